"""The wheel in a plain Nautobot: installed, used, uninstalled and installed again, by the words of the documentation.

Each process that imports Nautobot costs ten seconds of a processor. So an operator's shells are forks of one process
for each PLUGINS, and web, worker, beat and doctor are forks of such a shell.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import redis

from ai_ops.schedules import DEFAULT_SCHEDULES
from development import database, late_import, services
from tests.acceptance import local_processes
from tests.acceptance.day_in_the_life import Day
from tests.plugin import running_redis
from tests.waiting import until

UNINSTALL = services.PROJECT / "docs" / "admin" / "uninstall.md"
TOKEN = "0123456789" * 4
# Jobs that an installation has enabled: those with a schedule, and the search of the page "Threads".
ENABLED = len(DEFAULT_SCHEDULES) + 1
# Of a process that imports Nautobot on a busy machine, and of its answers.
TIMEOUT_SECONDS = 300

CONFIG = """
from nautobot.core.settings import *

SECRET_KEY = "of this test alone, and as long as Nautobot wants it to be"
ALLOWED_HOSTS = ["*"]
INSTALLATION_METRICS_ENABLED = False
RELEASE_CHECK_URL = None
"""
WITH_THE_APP = (
    CONFIG
    + """
PLUGINS = ["ai_ops"]
# The MCP servers of the test are on this machine, and nothing is to wait for the minutes between attempts.
PLUGINS_CONFIG = {"ai_ops": {"retention_days": 30, "allow_loopback": True, "max_attempts": 1}}
"""
)

# Reads a program from each line, runs it, and says that it has. An empty line ends it, and the next shell begins.
SHELL = (
    inspect.getsource(late_import)
    + """
import_kubernetes_later()
import ctypes, gc, json, os, signal, sys, time, traceback
# What is imported stays: to look through it for garbage takes a third of the time, and copies it into each fork.
gc.disable()
import nautobot
nautobot.setup()
gc.freeze()
gc.enable()
gc.set_threshold(5_000, 20, 50)
from django.core.management import call_command, execute_from_command_line
from django.db import connections
from nautobot.extras.models import Job, JobResult, ScheduledJob
forks = {}

def start_fork(name, *arguments):
    connections.close_all()
    forks[name] = os.fork()
    if forks[name]:
        return
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # at the end of this shell
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(name + ".log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
        os.dup2(1, 2)
        sys.argv[:] = ["nautobot-server", *arguments]
        execute_from_command_line(sys.argv)
        os._exit(0)
    except SystemExit as end:
        os._exit(end.code or 0)
    except BaseException:
        traceback.print_exc()
        os._exit(70)

def end_fork(name):
    os.kill(forks[name], signal.SIGTERM)
    deadline = time.monotonic() + 15
    while not os.waitid(os.P_PID, forks[name], os.WEXITED | os.WNOHANG | os.WNOWAIT) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(forks[name], signal.SIGKILL)
    wait_for_fork(name)

def wait_for_fork(name):
    return os.waitstatus_to_exitcode(os.waitpid(forks.pop(name), 0)[1])

connections.close_all()
while shell := os.fork():
    if os.waitpid(shell, 0)[1]:
        sys.exit("a shell has died")
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
while line := sys.stdin.readline():
    if line == "\\n":
        break
    try:
        exec(json.loads(line))
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        print("\\nFAILED", flush=True)
    print("\\nDONE", flush=True)
print("\\nDONE", flush=True)
sys.exit(not line)
"""
)
# A command of the app, its exit code and its JSON; a check makes short pauses.
COMMAND = """
import dataclasses, io
from ai_ops.runs.context import current_request, requested_by
said, code = io.StringIO(), 0
try:
    with requested_by(dataclasses.replace(current_request(), pause=0.05)):
        call_command("ai_ops", *{arguments!r}, "--json", "--quiet", stdout=said)
except SystemExit as end:
    code = end.code
print(json.dumps([code, json.loads(said.getvalue())]))
"""
# The static files are those of the first time.
KNOWN_FILES = " --no-collectstatic --no-trace-paths"
BEAT = "__import__('ai_ops.schedules.status', fromlist=['status']).get_scheduler_status()"
NEW_OPERATOR = f"""
from django.contrib.auth import get_user_model
from nautobot.users.models import Token
operator = get_user_model().objects.create_superuser("operator", password="secret")
Token.objects.create(user=operator, key="{TOKEN}")
"""


@dataclass
class Place:
    """A virtual environment with Nautobot, its servers and its configuration."""

    folder: Path
    env: dict[str, str]

    @property
    def python(self) -> str:
        return str(self.folder / "environment" / "bin" / "python")

    def configure(self, text: str) -> None:
        Path(self.env["NAUTOBOT_CONFIG"]).write_text(text)

    def pip(self, *arguments: str) -> None:
        command = [uv(), "pip", *arguments, "--quiet", "--python", self.python]
        subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_SECONDS)

    @contextlib.contextmanager
    def shell(self) -> Iterator[Shell]:
        """An operator's shell, in which Nautobot is set up."""
        process = subprocess.Popen(
            [self.python, "-c", SHELL],
            cwd=self.folder,
            env=self.env,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            yield Shell(process)
        finally:
            process.kill()
            process.communicate()


class Shell:
    """Runs commands one by one."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def does(self, program: str) -> str:
        """Run a Python program; what it printed."""
        return self._tell(json.dumps(program))

    def begins_anew(self) -> None:
        """End the shell, and begin another with the same PLUGINS."""
        self._tell("")

    def _tell(self, line: str) -> str:
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        said = []
        for line in self._process.stdout:
            if line == "DONE\n":
                break
            said.append(line)
        text = "".join(said)
        assert "\nFAILED\n" not in text, text
        return text

    def runs(self, command: str) -> str:
        """Run a `nautobot-server` command."""
        program, *arguments = shlex.split(command)
        assert program == "nautobot-server"
        return self.does(f"call_command(*{arguments!r})")

    def command(self, *arguments: str):
        """Run `nautobot-server ai_ops ...`; its exit code, and what it printed as JSON."""
        return json.loads(self.does(COMMAND.format(arguments=arguments)).strip().splitlines()[-1])

    @contextlib.contextmanager
    def running(self, name: str, *command: str) -> Iterator[None]:
        """Run a `nautobot-server` command in a process of its own until the block ends; its log has its name."""
        self.does(f"start_fork({name!r}, *{command!r})")
        try:
            yield
        finally:
            self.does(f"end_fork({name!r})")

    def doctor(self, folder: Path) -> dict[str, str]:
        """Ask the doctor in a process of its own; what is not well, by the name of its check."""
        self.does("start_fork('doctor', 'ai_ops', 'doctor', '--json')")
        code = self.tells("wait_for_fork('doctor')")
        said = (folder / "doctor.log").read_text()
        assert code in (0, 1, 2), said
        checks = json.loads(said[said.index("{") :])["checks"]
        assert len(checks) == 16
        return {check["check"]: check["outcome"] for check in checks if check["outcome"] != "well"}

    def tells(self, expression: str):
        """The value of an expression."""
        return json.loads(self.does(f"print(json.dumps({expression}))").strip().splitlines()[-1])


def uv() -> str:
    return str(Path(sys.executable).with_name("uv"))


def blocks(page: Path, language: str) -> list[str]:
    """The examples of a page, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The app's wheel, with its help pages."""
    if not (services.PROJECT / "ai_ops" / "docs" / "index.html").exists():
        subprocess.run([Path(sys.executable).with_name("mkdocs"), "build", "--quiet"], cwd=services.PROJECT, check=True)
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        # Both: the wheel is built from the source archive.
        [uv(), "build", "--quiet", "--out-dir", str(folder), str(services.PROJECT)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )
    if "hatchling" in built.stderr and built.returncode:
        pytest.skip(f"uv could not fetch hatchling, which needs its cache or the network: {built.stderr[-300:]}")
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Place]:
    """Nautobot alone: its schema, its packages, and no app."""
    folder = tmp_path_factory.mktemp("installation")
    name = f"installation_{os.getpid()}_{uuid.uuid4().hex[:6]}"
    with contextlib.ExitStack() as stack:
        cache = stack.enter_context(running_redis("installation-cache"))
        checkpoints = stack.enter_context(running_redis("installation-checkpoints", modules=True))
        of_postgres = {key: value for key, value in os.environ.items() if key.startswith("NAUTOBOT_DB_")}
        env = (
            local_processes.outside_environment(folder)
            | of_postgres
            | {
                "NAUTOBOT_DB_NAME": name,
                "NAUTOBOT_REDIS_HOST": "127.0.0.1",
                "NAUTOBOT_REDIS_PORT": str(cache.port),
                "NAUTOBOT_REDIS_PASSWORD": cache.password,
                "LANGGRAPH_REDIS_URL": checkpoints.url(0),
                "NAUTOBOT_CONFIG": str(folder / "nautobot_config.py"),
                "NAUTOBOT_ROOT": str(folder),
                "NAUTOBOT_CELERY_HEALTH_PROBES_AS_FILES": "true",
                **{
                    f"NAUTOBOT_CELERY_{each.upper()}_FILE": str(folder / each)
                    for each in ("worker_readiness", "worker_heartbeat", "beat_heartbeat")
                },
                "PYTHONUNBUFFERED": "1",
                "PYTHONWARNINGS": "ignore",
            }
        )
        env.pop("PYTHONPATH", None)
        snapshot = database.snapshot_path(database.nautobot_version())
        if not snapshot.exists():
            pytest.skip("without a snapshot of Nautobot's schema its migrations take minutes")
        database.execute(env, "CREATE DATABASE {} TEMPLATE template0", name)
        stack.callback(database.execute, env, "DROP DATABASE {} WITH (FORCE)", name)
        database.restore(env, snapshot, name)
        subprocess.run([uv(), "venv", "--quiet", "--python", sys.executable, folder / "environment"], check=True)
        # The packages that are installed here, but for this app: an editable one is in no folder.
        own = next((folder / "environment").glob("lib/python*/site-packages"))
        (own / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
        yield Place(folder, env)


def test_it_is_installed_used_uninstalled_and_installed_again(place, wheel):
    place.configure(WITH_THE_APP)
    place.pip("install", "--no-deps", str(wheel))
    with place.shell() as shell:
        shell.runs("nautobot-server post_upgrade")
        assert "site-packages" in shell.does("import ai_ops; print(ai_ops.__file__)")
        assert shell.tells("ScheduledJob.objects.filter(enabled=True).count()") == len(DEFAULT_SCHEDULES)
        assert shell.tells('Job.objects.filter(module_name__startswith="ai_ops.", enabled=True).count()') == ENABLED
        shell.does(NEW_OPERATOR)
        use(place, shell)
        uninstall(place, shell)
        install_again(place, wheel, shell)


def use(place: Place, shell: Shell) -> None:
    """Run web, worker and beat, and each Job once by REST; beat starts a run too."""
    (port,) = services.free_ports(1)
    url = f"http://127.0.0.1:{port}"
    beat_seen = place.folder / "beat_heartbeat"
    with (
        shell.running("web", "runserver", "--noreload", "--insecure", f"127.0.0.1:{port}"),
        shell.running("worker", "celery", "worker", "--concurrency", "1"),
        shell.running("beat", "celery", "beat"),
        httpx.Client(base_url=url, headers={"Authorization": f"Token {TOKEN}"}, timeout=60) as rest,
    ):
        for name, ready in (
            ("web", lambda: answers(url)),
            ("worker", (place.folder / "worker_readiness").exists),
            ("beat", beat_seen.exists),
        ):
            until(ready, f"{name}, with its log in {place.folder}/{name}.log,", TIMEOUT_SECONDS)
        at = (datetime.now(UTC) + timedelta(seconds=3)).isoformat()
        once = rest.post("/api/plugins/ai-ops/schedules/", json={"kind": "incidents", "at": at, "name": "once"})
        assert once.status_code == 201, once.text
        # Those that move and erase conversations are enabled by an operator, later in the day.
        ours = {"module_name__isw": "ai_ops.", "enabled": True, "limit": 0}
        jobs = rest.get("/api/extras/jobs/", params=ours).json()["results"]
        assert len(jobs) == ENABLED
        asked = {job["name"]: rest.post(f"/api/extras/jobs/{job['id']}/run/", json={"data": {}}) for job in jobs}
        for name, answer in asked.items():
            assert answer.status_code == 201, (name, answer.text)
            result = answer.json()["job_result"]["url"]
            ended = until(lambda result=result: has_ended(rest, result), f"the end of {name}", TIMEOUT_SECONDS)
            assert ended["status"]["value"] == "SUCCESS", (name, ended)
        shown = rest.get(f"/api/plugins/ai-ops/schedules/{once.json()['id']}/")
        until(
            lambda: rest.get(str(shown.url)).json()["last_outcome"] == "succeeded", "the run of beat", TIMEOUT_SECONDS
        )
        assert rest.get("/api/plugins/ai-ops/runs/", params={"state": "succeeded"}).json()["count"] > len(jobs)
        look_at_help(url)
        until(lambda: shell.tells(BEAT)["last_sign"], "beat's sign of life", TIMEOUT_SECONDS)
        # Nautobot's own Job is the operator's to schedule; all else is as the documentation has set it up.
        assert shell.doctor(place.folder) == {"logs cleanup": "problem"}
        with redis.Redis.from_url(place.env["LANGGRAPH_REDIS_URL"]) as agents:
            Day(rest, shell.command, agents).live()
        shell.does("ScheduledJob.objects.update(enabled=False, last_run_at=None)")
        assert shell.tells(BEAT)["running"] is True, "whatever was paused"


def answers(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{url}/robots.txt", timeout=5).is_success
    return False


def has_ended(rest: httpx.Client, result: str):
    answer = rest.get(result).json()
    return answer if answer["status"]["value"] in ("SUCCESS", "FAILURE", "REVOKED") else None


def look_at_help(url: str) -> None:
    """Open the help pages, which the wheel brings, as a user who has logged in."""
    with httpx.Client(base_url=url, follow_redirects=True, timeout=60, headers={"Referer": url}) as browser:
        browser.get("/login/")
        form = {"username": "operator", "password": "secret", "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
        assert browser.post("/login/", data=form).is_success
        for page in ("/plugins/ai-ops/docs/", "/docs/ai-ops/models/mcpserver.html", "/plugins/ai-ops/"):
            answer = browser.get(page)
            assert answer.status_code == 200, page
            assert "AI Ops" in answer.text


def uninstall(place: Place, shell: Shell) -> None:
    """Do what the documentation says, in its words and its order."""
    delete_schedules, _ = blocks(UNINSTALL, "python")
    drop_tables, let_nautobot_notice, stale = (
        next(line for line in block.splitlines() if line.startswith("nautobot-server"))
        for block in [
            *blocks(UNINSTALL, "shell"),
            *re.findall(r"`(nautobot-server remove_stale[^`]*)`", UNINSTALL.read_text()),
        ]
    )
    shell.does(delete_schedules)
    shell.runs(drop_tables)
    place.configure(CONFIG)
    with place.shell() as without:
        without.runs(let_nautobot_notice + KNOWN_FILES)
        place.pip("uninstall", "nautobot-app-ai-ops")
        assert without.tells('Job.objects.filter(module_name__startswith="ai_ops.", installed=True).count()') == 0
        assert without.tells('ScheduledJob.objects.filter(task__startswith="ai_ops.").count()') == 0
        without.runs(f"{stale} --no-input")
        tables = "[each for each in __import__('django').db.connection.introspection.table_names() if 'ai_ops' in each]"
        assert without.tells(tables) == []
        assert without.tells("'ai_ops' in __import__('sys').modules") is False


def install_again(place: Place, wheel: Path, shell: Shell) -> None:
    """Install over what is left, results of Jobs that ran: each schedule left out is named, and how to get it."""
    place.pip("install", "--no-deps", str(wheel))
    place.configure(WITH_THE_APP)
    shell.begins_anew()
    said = shell.runs("nautobot-server post_upgrade" + KNOWN_FILES)
    for kind in DEFAULT_SCHEDULES:
        assert f'ensure_schedule("{kind}")' in said, said
    _, example = blocks(UNINSTALL, "python")
    for kind in DEFAULT_SCHEDULES:
        shell.does(example.replace("health", kind))
    assert shell.tells("ScheduledJob.objects.filter(enabled=True).count()") == len(DEFAULT_SCHEDULES)
