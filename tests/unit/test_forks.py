"""Forks of one process, in place of processes of which each imports Nautobot."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from development import forks
from development.services import ServiceError
from tests.waiting import until

PATIENCE_SECONDS = 60


def tell(*arguments: str) -> None:
    told = (arguments, os.environ["OF_THE_FORK"], Path.cwd(), os.getsid(0) == os.getpid(), "HOME" in os.environ)
    sys.stdout.write(" ".join(map(str, told)))


def end_with(code: str) -> None:
    sys.exit(int(code))


def sleep(mark: str) -> None:
    Path(mark).touch()
    time.sleep(PATIENCE_SECONDS)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "OF_THE_FORK": "told"}
    forks.start_server(env, tmp_path_factory.mktemp("forks") / "server.log", "pytest", __name__)
    return env


def service(tmp_path, target, *arguments, **options):
    return forks.ForkedService(
        "forked", arguments, ready=lambda: True, target=target, cwd=tmp_path, log=tmp_path / "forked.log", **options
    )


def is_gone(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    return True


def test_a_fork_has_an_environment_a_folder_a_session_and_a_log_of_its_own(server, tmp_path):
    for env, said in ((None, "told"), (server | {"OF_THE_FORK": "something else"}, "something else")):
        forked = service(tmp_path, tell, "a", "b", env=env)
        forked.start()
        assert forked.process.wait(PATIENCE_SECONDS) == 0, forked.tail()
        assert forked.tail(1).endswith(f"('a', 'b') {said} {tmp_path} True False")


def test_a_fork_runs_a_module_with_its_arguments_as_python_does(server, tmp_path):
    (tmp_path / "given.json").write_text('{"a":1}')
    forked = service(tmp_path, forks.run_module, "json.tool", "--compact", "given.json", "made.json")
    forked.start()
    assert forked.process.wait(PATIENCE_SECONDS) == 0, forked.tail()
    assert (tmp_path / "made.json").read_text().strip() == '{"a":1}'
    assert "Error" not in forked.tail()


@pytest.mark.parametrize("code", [0, 3])
def test_its_exit_code_is_that_of_the_command(server, tmp_path, code):
    forked = service(tmp_path, end_with, str(code))
    forked.start()
    assert forked.process.wait(PATIENCE_SECONDS) == code
    with pytest.raises(ServiceError, match=f"forked ended with exit code {code}"):
        forked.check()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_it(server, tmp_path, signum):
    forked = service(tmp_path, sleep, str(tmp_path / "runs"))
    forked.start()
    until((tmp_path / "runs").exists, "the fork")
    with pytest.raises(subprocess.TimeoutExpired):
        forked.process.wait(0.01)
    forked.process.send_signal(signum)
    assert forked.process.wait(PATIENCE_SECONDS) != 0
    forked.process.send_signal(signum)
    forked.stop()


def test_when_the_server_dies_its_forks_end_and_the_next_has_the_same_environment(server, tmp_path):
    forked = service(tmp_path, sleep, str(tmp_path / "runs"))
    forked.start()
    pid = forked.process.pid
    until((tmp_path / "runs").exists, "the fork")
    os.kill(int(Path(f"/proc/{pid}/stat").read_text().split()[3]), signal.SIGKILL)
    assert forked.process.wait(PATIENCE_SECONDS) != 0
    until(lambda: is_gone(pid), "the end of the fork")
    again = service(tmp_path, tell)
    again.start()
    assert again.process.wait(PATIENCE_SECONDS) == 0
    assert "() told" in again.tail(1)


def test_an_import_that_fails_is_a_sentence_that_names_the_log(tmp_path):
    (tmp_path / "broken.py").write_text("1 / 0")
    forks.start_server({"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}, tmp_path / "server.log", "broken")
    with pytest.raises(ServiceError, match=f"has ended: see {tmp_path}/server.log"):
        service(tmp_path, tell).start()
    assert "ZeroDivisionError" in (tmp_path / "server.log").read_text()


SUPERVISOR = """
import os, sys, time
from pathlib import Path
from development import forks
from tests.unit import test_forks
folder = Path(sys.argv[1])
forks.start_server(os.environ, folder / "server.log", "tests.unit.test_forks")
forked = test_forks.service(folder, test_forks.sleep, str(folder / "runs"))
forked.start()
print(forked.process.pid, flush=True)
time.sleep(60)
"""


def test_the_kernel_ends_all_of_them_when_their_supervisor_is_killed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", SUPERVISOR, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        pid = int(process.stdout.readline())
        server = int(Path(f"/proc/{pid}/stat").read_text().split()[3])
        until((tmp_path / "runs").exists, "the fork")
        process.kill()
    until(lambda: is_gone(pid) and is_gone(server), "the end of both")
