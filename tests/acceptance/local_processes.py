"""Commands of ``development/`` run as a person would, with a state folder of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from development import services


def outside_environment(state: Path) -> dict[str, str]:
    """The environment of a shell in which nothing of this test run is set."""
    ours = ("NAUTOBOT_", "LANGGRAPH_", "AI_OPS_", "DJANGO_", "PYTEST_")
    env = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    env.pop("MAKELEVEL", None)
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


def descendants(pid: int) -> list[int]:
    """The processes that `pid` started, and those that they started."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *descendants(child)]
    return found


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits to be collected does not."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def assert_gone(pids: list[int], seconds: float = 20) -> None:
    """Fail if one of the processes still runs after `seconds`."""
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [Path(f"/proc/{pid}/cmdline").read_text() for pid in pids if alive(pid)]
