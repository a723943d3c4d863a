"""The saver as others install it: what it imports, what carries it, and that it needs nothing else."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import langgraph_checkpoint_compact

PROJECT = Path(__file__).parents[2]
PACKAGE = PROJECT / "langgraph_checkpoint_compact"
DISTRIBUTION = PROJECT / "packages" / "langgraph-checkpoint-compact"
# langgraph-checkpoint needs it itself; here it is named for type checkers alone.
FOR_TYPES = {"langchain_core.runnables"}

PROGRAM = """
import asyncio, json, sys
from importlib.metadata import distributions
from langgraph.checkpoint.base import empty_checkpoint
from langgraph_checkpoint_compact import AsyncCompactRedisSaver, CompactRedisSaver
import langgraph_checkpoint_compact.migration

def checkpoint(saver):
    version = saver.get_next_version(None, None)
    return {**empty_checkpoint(), "channel_values": {"said": ["x" * 900]}, "channel_versions": {"said": version}}

config = {"configurable": {"thread_id": "alone", "checkpoint_ns": ""}}
with CompactRedisSaver.from_url(sys.argv[1], prefix="alone") as saver:
    made = checkpoint(saver)
    stored = saver.put(config, made, {"source": "loop"}, made["channel_versions"])
    saver.put_writes(stored, [("said", "y")], "task")
    read = saver.get_tuple(config)

async def main():
    async with AsyncCompactRedisSaver.from_url(sys.argv[1], prefix="alone") as saver:
        found = [each async for each in saver.alist(None)]
        await saver.aprune(["alone"])
        await saver.adelete_thread("alone")
        return found

print(json.dumps({
    "read": read.checkpoint["channel_values"]["said"] == ["x" * 900] and len(read.pending_writes),
    "listed": len(asyncio.run(main())),
    "distributions": sorted(each.metadata["Name"].lower() for each in distributions()),
}))
"""


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            yield node.module


def test_it_imports_redis_and_langgraph_checkpoint_alone():
    names = {name for path in PACKAGE.rglob("*.py") for name in imported(path)} - FOR_TYPES
    foreign = {name for name in names if name.split(".")[0] not in sys.stdlib_module_names}
    allowed = ("redis", "langgraph.checkpoint", PACKAGE.name)
    assert {name for name in foreign if not name.startswith(allowed)} == set()


def test_both_distributions_carry_it_under_one_version():
    own = tomllib.loads((DISTRIBUTION / "pyproject.toml").read_text())["project"]
    assert own["version"] == langgraph_checkpoint_compact.__version__
    assert sorted(each.split(">")[0] for each in own["dependencies"]) == ["langgraph-checkpoint", "redis"]
    app = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    assert PACKAGE.name in app["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


def uv(*arguments, cwd=PROJECT):
    command = [str(Path(sys.executable).with_name("uv")), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def test_it_works_where_nothing_else_is_installed(tmp_path, url, client):
    python = tmp_path / "environment" / "bin" / "python"
    assert uv("venv", "--quiet", "--python", sys.executable, tmp_path / "environment").returncode == 0
    # The versions that are installed here already come out of uv's cache.
    wanted = [f"{name}=={version(name)}" for name in ("redis", "langgraph-checkpoint")]
    installed = uv("pip", "install", "--quiet", "--python", python, *wanted, "hatchling")
    if installed.returncode != 0:
        pytest.skip(f"uv could not install {wanted}, which needs its cache or the network: {installed.stderr[-300:]}")
    install = ["pip", "install", "--quiet", "--python", python]
    for each in ("--sdist", "--wheel"):
        built = uv(
            *("build", "--quiet", each, "--no-build-isolation", "--python", python),
            *("--out-dir", tmp_path / "built", DISTRIBUTION),
        )
        assert built.returncode == 0, built.stderr
    (sdist,) = (tmp_path / "built").glob("*.tar.gz")
    (wheel,) = (tmp_path / "built").glob("*.whl")
    files = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    packed = {Path(name).name for name in zipfile.ZipFile(wheel).namelist() if name.startswith(PACKAGE.name + "/")}
    assert packed == files
    # The sdist, which holds all that its wheel is made of.
    done = uv(*install, "--no-deps", "--no-build-isolation", sdist)
    assert done.returncode == 0, done.stderr
    assert uv("pip", "uninstall", "--quiet", "--python", python, "hatchling").returncode == 0

    ran = subprocess.run(
        [str(python), "-I", "-c", PROGRAM, url], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert (told["read"], told["listed"]) == (1, 1)
    assert not {"langgraph", "nautobot", "django", "redisvl"} & set(told["distributions"])
    assert client.keys() == []


def test_it_works_with_the_oldest_versions_that_it_allows(tmp_path, url, client):
    own = tomllib.loads((DISTRIBUTION / "pyproject.toml").read_text())["project"]
    python = tmp_path / "environment" / "bin" / "python"
    assert uv("venv", "--quiet", "--python", sys.executable, tmp_path / "environment").returncode == 0
    oldest = [each.replace(">=", "==") for each in own["dependencies"]]
    installed = uv("pip", "install", "--quiet", "--python", python, *oldest)
    if installed.returncode != 0:
        pytest.skip(f"uv could not install {oldest}, which needs its cache or the network: {installed.stderr[-300:]}")
    run = subprocess.run(
        [python, "-W", "ignore", "-c", PROGRAM, url],
        env={"PYTHONPATH": str(PROJECT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["read"] == 1
    assert client.dbsize() == 0
