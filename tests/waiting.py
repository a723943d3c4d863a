"""Waiting for something that another thread, process or server does."""

import socket
import time
from collections.abc import Callable
from typing import Any

# Far longer than anything waited for takes, so that a busy machine fails no test.
LONGEST_SECONDS = 60.0


def until(condition: Callable[[], Any], what: str, seconds: float = LONGEST_SECONDS) -> Any:
    """Wait until `condition` returns something true, and return that."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come about in {seconds:g} s"
        time.sleep(0.005)
    return value


def listens(port: int) -> bool:
    """Return whether a program listens on that port of this machine."""
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0
