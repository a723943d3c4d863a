"""The local servers: they start, are found again, and leave no process behind."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psycopg2
import pytest
import redis

from development import services
from tests.acceptance import local_processes
from tests.waiting import until

ENV_LINE = re.compile(r"export (\w+)=(.*)")


class Servers:
    """`invoke services`, with a state folder of its own."""

    def __init__(self, state: Path) -> None:
        self.process = local_processes.start("development.services", state)
        self.env: dict[str, str] = {}
        for line in self.process.stdout:
            if line.startswith("#"):
                break
            if match := ENV_LINE.match(line):
                self.env[match[1]] = shlex.split(match[2])[0] if match[2] else ""

    def connect(self):
        return psycopg2.connect(
            host=self.env["NAUTOBOT_DB_HOST"],
            port=self.env["NAUTOBOT_DB_PORT"],
            user=self.env["NAUTOBOT_DB_USER"],
            password=self.env["NAUTOBOT_DB_PASSWORD"],
            dbname="postgres",
        )

    def checkpoint_redis(self):
        return redis.Redis.from_url(self.env["LANGGRAPH_REDIS_URL"])

    def stop(self, signum: signal.Signals = signal.SIGINT) -> None:
        self.process.send_signal(signum)
        self.process.wait(60)
        self.process.stdout.close()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_no_process_survives_the_supervisor(state, signum):
    servers = Servers(state)
    children = local_processes.descendants(servers.process.pid)
    assert len(children) >= 3, "PostgreSQL and two Redis-protocol servers"
    servers.stop(signum)
    local_processes.assert_gone(children)


def test_second_start_finds_what_the_first_left(state):
    first = Servers(state)
    with first.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    connection.close()
    first.checkpoint_redis().set("checkpoint:kept", "42")
    first.stop()
    second = Servers(state)
    try:
        assert second.env == first.env
        with second.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT answer FROM kept")
            assert cursor.fetchone() == (42,)
        connection.close()
        assert second.checkpoint_redis().get("checkpoint:kept") == b"42"
    finally:
        second.stop()


def test_start_while_running_uses_what_runs(state):
    first = Servers(state)
    try:
        again = Servers(state)
        assert again.env == first.env
        assert again.process.wait(60) == 0
        assert first.process.poll() is None
    finally:
        first.stop()


def test_a_port_that_another_program_has_is_named_with_what_to_do(state):
    Servers(state).stop()
    settings = json.loads((state / "settings.json").read_text())
    for name, what in (("postgres_port", "postgres"), ("checkpoint_redis_port", "checkpoints")):
        with socket.create_server(("127.0.0.1", settings[name])):
            again = local_processes.start("development.services", state)
            output, _ = again.communicate(timeout=60)
        assert again.returncode == 1
        assert f"Another program listens on port {settings[name]}, which {what} needs: end that program" in output
        assert "settings.json" in output
        assert "Traceback" not in output


@pytest.mark.parametrize("module", ["development.services", "development.stack", "development.demo"])
def test_ctrl_c_while_servers_start_says_that_it_stops_and_leaves_no_traceback(state, module):
    starting = local_processes.start(module, state)
    # PostgreSQL among them: what imports Nautobot is there before it.
    until(lambda: len(local_processes.descendants(starting.pid)) >= 4, "servers")
    children = local_processes.descendants(starting.pid)
    starting.send_signal(signal.SIGINT)
    output, _ = starting.communicate(timeout=60)
    assert "Stopping ..." in output
    assert "Traceback" not in output
    local_processes.assert_gone(children)


def test_the_demo_and_the_benchmarks_need_no_nautobot(tmp_path):
    """They clean up without one, and start it in processes of their own."""
    modules = ("demo", "demo_conversations", "other_savers", "stack", "bench_cleanup", "bench_health", "bench_saver")
    # What is imported stays: to look through it for garbage takes a quarter of the time.
    imports = "import gc; gc.disable()\n" + "".join(f"import development.{name}\n" for name in modules)
    env = local_processes.outside_environment(tmp_path)
    subprocess.run([sys.executable, "-c", imports], cwd=services.PROJECT, env=env, check=True)


def test_long_work_says_that_it_goes_on(capsys):
    with services.telling("Preparing the database", every=0.05):
        until(lambda: "still running after 0 s: preparing the database" in capsys.readouterr().out, "a line")
    capsys.readouterr()
    with services.telling("Preparing the database"):
        pass
    assert capsys.readouterr().out == "Preparing the database ...\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be shut out of what PostgreSQL's user must reach")
def test_below_a_folder_that_only_root_can_enter(tmp_path):
    tmp_path.chmod(0o700)
    servers = Servers(tmp_path / "state")
    try:
        with servers.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        connection.close()
        assert tmp_path.stat().st_mode & 0o777 == 0o700, "the permissions of others' folders are not changed"
    finally:
        servers.stop()
        local_processes.remove(tmp_path / "state")


def test_the_users_own_servers_are_used_instead(monkeypatch):
    monkeypatch.setenv("NAUTOBOT_DB_HOST", "db.example.com")
    monkeypatch.setenv("NAUTOBOT_REDIS_HOST", "redis.example.com")
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", "redis://checkpoints.example.com/0")
    settings = services.Settings("/nowhere", 1, 2, 3, 4, [5, 6, 7, 8], "secret")
    assert services.wanted_services(settings) == []
    env = services.environment(settings)
    assert env["NAUTOBOT_DB_HOST"] == "db.example.com"
    assert env["LANGGRAPH_REDIS_URL"] == "redis://checkpoints.example.com/0"


def test_platform_without_the_modules_is_told_what_to_set(monkeypatch):
    monkeypatch.setattr(services.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(services.ServiceError, match="which RedisSaver needs"):
        services.module_paths()


def test_server_that_cannot_start_is_named_with_the_end_of_its_log(tmp_path):
    service = services.redis_server("broken", 1, "", folder=tmp_path, options=["--no-such-option", "1"])
    with (
        services.Supervisor() as supervisor,
        pytest.raises(services.ServiceError, match=r"broken ended(.|\n)*no-such-option"),
    ):
        supervisor.start(service)
