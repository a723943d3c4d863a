"""A server of the MCP SDK in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from development.services import free_ports
from tests.waiting import listens, until


@contextmanager
def sdk_server(*arguments: str) -> Iterator[tuple[int, str]]:
    """Run Python with these arguments and a port; give the id of the process and the address of the server."""
    (port,) = free_ports(1)
    with subprocess.Popen([sys.executable, *arguments, str(port)]) as process:
        try:
            until(lambda: listens(port), "the server")
            yield process.pid, f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
