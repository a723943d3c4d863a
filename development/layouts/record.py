"""Record the keys that other versions of the savers write, for the tests.

``python -m development.layouts.record``, optionally with names of `LIBRARIES`. It installs each library into a
temporary folder and lets it talk to its own server. The recorded keys go to tests/fixtures/layouts/, with its name and
version. Then the cleanup runs, and the library must still have all messages of the live threads.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from ai_ops.checkpoints.cleanup import CleanupRun
from ai_ops.checkpoints.logic.keys import KeyParser, KeyPrefixes
from ai_ops.checkpoints.logic.retention import DAY, RetentionPolicy
from ai_ops.checkpoints.redis.store import CheckpointStore
from development import services

HERE = Path(__file__).parent
FIXTURES = services.PROJECT / "tests" / "fixtures" / "layouts"
REDIS_SAVERS = ("RedisSaver", "ShallowRedisSaver")
PREFIXED = "RedisSaver with prefixes"
PREFIXES = KeyPrefixes("app:cp", "app:cp:w")  # as in talk.py


@dataclass(frozen=True)
class Library:
    """A library to record: its packages, the saver's first; its savers; and the programs that install and run it."""

    language: str
    packages: tuple[str, ...]
    savers: tuple[str, ...] = REDIS_SAVERS

    @property
    def name_and_version(self) -> list[str]:
        """Return the version of the saver's package."""
        name, version = self.packages[0].replace("==", "@").rsplit("@", 1)
        return [name.partition("[")[0], version]

    def install(self, folder: Path) -> None:
        """Install it into `folder`, together with the script."""
        if self.language == "python":
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
            uv = str(Path(sys.executable).with_name("uv"))
            subprocess.run(
                [uv, "pip", "install", "-q", "--python", folder / "bin" / "python", *self.packages], check=True
            )
            shutil.copy(HERE / "talk.py", folder)
        else:
            command = ["npm", "install", "--silent", "--no-audit", "--no-fund", *self.packages]
            subprocess.run(command, check=True, cwd=folder)
            shutil.copy(HERE / "talk.mjs", folder)

    def talk(self, folder: Path, *words: str) -> Any:
        """Run the script; return its messages."""
        start = (
            [folder / "bin" / "python", "-W", "ignore", "talk.py"]
            if self.language == "python"
            else ["node", "talk.mjs"]
        )
        run = subprocess.run([*start, *words], check=True, cwd=folder, stdout=subprocess.PIPE)
        return json.loads(run.stdout.splitlines()[-1])


def _python(saver: str, langgraph: str, *others: str, savers: tuple[str, ...] = REDIS_SAVERS) -> Library:
    """Return a Python library, with a LangGraph of its time: later versions have removed functions that it calls."""
    return Library("python", (saver, f"langgraph{langgraph}", "time-machine", *others), savers)


def _javascript(version: str, langgraph: str) -> Library:
    saver = f"@langchain/langgraph-checkpoint-redis@{version}"
    return Library(
        "javascript",
        (saver, f"@langchain/langgraph@{langgraph}", "@langchain/langgraph-checkpoint", "@langchain/core"),
    )


_REDIS, _AWS = "langgraph-checkpoint-redis", "langgraph-checkpoint-aws[valkey]"
_WITH_PREFIXES, _VALKEY = (*REDIS_SAVERS, PREFIXED), ("ValkeySaver",)
LIBRARIES = {
    "python-0.0.8": _python(f"{_REDIS}==0.0.8", "==0.5.4", "langgraph-checkpoint<3", "redis<7"),
    "python-0.1.0": _python(f"{_REDIS}==0.1.0", "==0.6.5", "langgraph-checkpoint<3", "redis<7"),
    "python-0.1.2": _python(f"{_REDIS}==0.1.2", "==0.6.5", "redis<7"),
    "python-0.1.3": _python(f"{_REDIS}==0.1.3", "==0.6.5", "redis<7"),
    "python-0.2.1": _python(f"{_REDIS}==0.2.1", "==1.0.4", "redis<7"),
    "python-0.3.0": _python(f"{_REDIS}==0.3.0", "==1.0.4", savers=_WITH_PREFIXES),
    "python-0.4.1": _python(f"{_REDIS}==0.4.1", "<1.2", savers=_WITH_PREFIXES),
    "python-0.5.2": _python(f"{_REDIS}==0.5.2", "==1.2.22", savers=_WITH_PREFIXES),
    "aws-1.0.2": _python(f"{_AWS}==1.0.2", "==1.0.4", savers=_VALKEY),
    "aws-1.0.4": _python(f"{_AWS}==1.0.4", "==1.0.4", savers=_VALKEY),
    "aws-1.1.0": _python(f"{_AWS}==1.1.0", "<1.2", savers=_VALKEY),
    "aws-1.2.6": _python(f"{_AWS}==1.2.6", "==1.2.22", savers=_VALKEY),
    "javascript-1.0.0": _javascript("1.0.0", "1.0.2"),
    "javascript-1.0.11": _javascript("1.0.11", "1.7.3"),
}


def dumped(client: redis.Redis) -> dict[str, Any]:
    """Return all keys of a database: JSON documents, strings, lists, and members of sorted sets with their scores."""
    found: dict[str, Any] = {}
    for key in sorted(client.scan_iter()):
        kind = client.type(key).decode()
        if kind == "ReJSON-RL":
            found[key.decode()] = {"json": json.loads(client.execute_command("JSON.GET", key))}
        elif kind == "zset":
            found[key.decode()] = {
                "zset": [[each.decode(), score] for each, score in client.zrange(key, 0, -1, withscores=True)]
            }
        elif kind == "list":
            found[key.decode()] = {"list": [each.decode() for each in client.lrange(key, 0, -1)]}
        elif kind == "string":
            found[key.decode()] = {"string": client.get(key).decode()}
        else:
            raise ValueError(f"{key!r} is a {kind}, which no fixture has had yet: add it here and to the test.")
    return found


def clean_up(client: redis.Redis, prefixes: KeyPrefixes) -> None:
    """Run the cleanup of the app with tomorrow's date, so that all orphans are old enough."""
    now = time.time() + DAY
    parser, policy = KeyParser(now, prefixes), RetentionPolicy(30 * DAY, 30 * DAY, prefixes=prefixes)
    CleanupRun(CheckpointStore(client, parser), parser, policy, now, dryrun=False).execute()


def record(name: str, library: Library, url: str, client: redis.Redis) -> list[str]:
    """Record one library with each of its savers; return the needed data that a cleanup has deleted."""
    package, version = library.name_and_version
    fixture = {"library": package, "version": version, "recorded": int(time.time()), "savers": {}}
    missing = []
    with tempfile.TemporaryDirectory() as folder:
        library.install(Path(folder))
        for saver in library.savers:
            client.flushall()
            before = library.talk(Path(folder), url, saver)
            fixture["savers"][saver] = dumped(client)
            clean_up(client, PREFIXES if saver == PREFIXED else KeyPrefixes())
            after = library.talk(Path(folder), url, saver, "remember")
            print(f"{name} {saver}: {len(fixture['savers'][saver])} keys, {client.dbsize()} left", flush=True)
            if after != before:
                missing.append(f"{name} {saver} remembered {before} and after the cleanup {after}.")
    FIXTURES.mkdir(parents=True, exist_ok=True)
    (FIXTURES / f"{name}.json").write_text(_with_a_line_for_each_key(fixture))
    return missing


def _with_a_line_for_each_key(fixture: dict[str, Any]) -> str:
    savers = [
        f"{json.dumps(saver)}: {{\n"
        + ",\n".join(f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in keys.items())
        + "\n}"
        for saver, keys in fixture["savers"].items()
    ]
    head = json.dumps({name: value for name, value in fixture.items() if name != "savers"})
    return head[:-1] + ', "savers": {\n' + ",\n".join(savers) + "\n}}\n"


def main(names: Sequence[str]) -> None:
    """Record the libraries with these names, or all."""
    missing: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        (port,) = services.free_ports(1)
        server = services.redis_server("layouts", port, "", modules=True, folder=Path(folder))
        server.start()
        try:
            server.wait_ready(time.monotonic() + services.START_TIMEOUT)
            with redis.Redis(port=port) as client:
                for name in names or LIBRARIES:
                    missing += record(name, LIBRARIES[name], f"redis://127.0.0.1:{port}/0", client)
        finally:
            server.stop()
    if missing:
        raise SystemExit("\n".join(missing))


if __name__ == "__main__":
    os.environ.pop("LANGGRAPH_REDIS_URL", None)
    main(sys.argv[1:])
