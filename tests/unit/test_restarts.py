"""The local stack's supervisor starts what has ended again, where that is said of it."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

import pytest

from development.services import INTERRUPTS, Service, ServiceError, Supervisor, interrupts_later
from tests.waiting import until


def service(tmp_path: Path, name: str, code: str, **options: bool) -> Service:
    return Service(
        name, [sys.executable, "-c", code], ready=lambda: True, cwd=tmp_path, log=tmp_path / f"{name}.log", **options
    )


@pytest.fixture
def supervisor():
    started = Supervisor()
    yield started
    for each in started.services:
        each.stop()


def test_a_service_that_ends_is_started_again_and_the_others_go_on(tmp_path, supervisor, capsys):
    counted = "open('starts', 'a').write('x'); import time; time.sleep(0.05)"
    beat, database = (
        service(tmp_path, "beat", counted, restarts=True),
        service(tmp_path, "db", "import time; time.sleep(60)"),
    )
    supervisor.start(beat, database)
    # Not a Supervisor in a with block, which only the main thread may be.
    threading.Thread(target=supervisor.watch, args=(0.01, 0.01), daemon=True).start()
    starts = tmp_path / "starts"
    until(lambda: starts.exists() and len(starts.read_text()) >= 3, "three starts")
    assert database.process is not None
    assert database.process.poll() is None
    assert "beat has ended. It will be restarted in 0.01 s" in capsys.readouterr().out
    beat.restarts = False


def test_what_must_not_end_ends_all(tmp_path, supervisor):
    supervisor.start(service(tmp_path, "db", "raise SystemExit(3)"))
    with pytest.raises(ServiceError, match="db ended with exit code 3"):
        supervisor.watch(0.01)


# Ends when all of its kind have been asked to end, and says so.
OF_SEVERAL = """
import pathlib, signal, sys, time
def end(*_):
    pathlib.Path("{name}.asked").touch()
    while len(list(pathlib.Path().glob("*.asked"))) < 2:
        time.sleep(0.005)
    pathlib.Path("{name}.ended").touch()
    sys.exit()
signal.signal(signal.SIGTERM, end)
pathlib.Path("{name}.runs").touch()
time.sleep(60)
"""
UNDER_THEM = """
import pathlib, signal, sys, time
def end(*_):
    pathlib.Path("seen").write_text(" ".join(sorted(map(str, pathlib.Path().glob("*.ended")))))
    sys.exit()
signal.signal(signal.SIGTERM, end)
pathlib.Path("database.runs").touch()
time.sleep(60)
"""


def test_what_was_started_together_ends_together_and_before_what_it_uses(tmp_path):
    programs = {"database": UNDER_THEM, "web": OF_SEVERAL, "worker": OF_SEVERAL}
    database, web, worker = (service(tmp_path, name, code.format(name=name)) for name, code in programs.items())
    with Supervisor() as supervisor:
        supervisor.start(database)
        supervisor.start(web, worker)
        until(lambda: len(list(tmp_path.glob("*.runs"))) == 3, "all three")
    assert (tmp_path / "seen").read_text() == "web.ended worker.ended"


@pytest.mark.parametrize("signum", INTERRUPTS)
def test_an_interrupt_in_the_middle_of_a_start_comes_when_the_process_is_known(signum):
    done = []

    def start():
        with interrupts_later():
            signal.raise_signal(signum)
            done.append(signum)

    with Supervisor(), pytest.raises(KeyboardInterrupt):
        start()
    assert done == [signum]
