"""Waiting for something that another thread, process or server does."""

import socket
import time
from collections.abc import Callable
from typing import Any

# Far longer than anything waited for takes, so that a busy machine fails no test.
LONGEST_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 0.1


def until(condition: Callable[[], Any], what: str, seconds: float = LONGEST_SECONDS) -> Any:
    """Wait until `condition` returns something true, and return that."""
    deadline = time.monotonic() + seconds
    while True:
        asked = time.monotonic()
        if value := condition():
            return value
        now = time.monotonic()
        assert now < deadline, f"{what} did not come about in {seconds:g} s"
        # What is waited for needs the processor too: a page that takes long is asked for less often.
        time.sleep(max(0.005, min(now - asked, LONGEST_PAUSE_SECONDS)))


def listens(port: int) -> bool:
    """Return whether a program listens on that port of this machine."""
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0
