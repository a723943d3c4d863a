"""Commands of ``development/`` run as a person would, with a state folder of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

from development import services
from tests.waiting import until


def outside_environment(state: Path) -> dict[str, str]:
    """The environment of a shell in which nothing of this test run is set."""
    ours = ("NAUTOBOT_", "LANGGRAPH_", "AI_OPS_", "DJANGO_", "PYTEST_")
    env = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    # Without the last, what a process compiles stays for the next.
    for name in ("MAKELEVEL", "PYTHONDONTWRITEBYTECODE"):
        env.pop(name, None)
    return env | {"AI_OPS_STATE": str(state)}


def start(module: str, state: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start ``python -m module``."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=services.PROJECT,
        env=outside_environment(state),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def remove(state: Path) -> None:
    """Remove the state folder, with what PostgreSQL had to keep elsewhere."""
    subprocess.run(
        [sys.executable, "-c", "from development.services import remove_state; remove_state()"],
        cwd=services.PROJECT,
        env=outside_environment(state),
        check=True,
    )
    assert not state.exists()


def descendants(pid: int) -> list[psutil.Process]:
    """The processes that `pid` started, and those that they started."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def runs(process: psutil.Process) -> bool:
    """Return whether the process runs; one that has ended and waits to be collected does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def assert_gone(processes: list[psutil.Process]) -> None:
    """Fail if one of the processes still runs after a minute."""
    until(lambda: not any(map(runs, processes)), "the end of all processes")
