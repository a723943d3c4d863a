"""Keeps what probes and agents send and receive out of the logs of the libraries in between.

httpx logs each request with its query, httpcore headers and mcp whole messages: tokens, sessions, what users said.
A filter on the library's own loggers leaves out what they tell of our requests, and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# Tasks that a library starts inherit it.
_ours: ContextVar[bool] = ContextVar("ai_ops_mcp_request", default=False)

# A filter holds for a logger alone, not for those below it.
LIBRARIES = (
    "httpx",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpcore.socks",
    "client",  # that of mcp.client.session
    "mcp.client.auth.oauth2",
    "mcp.client.auth.utils",
    "mcp.client.sse",
    "mcp.client.streamable_http",
    "mcp.shared.tool_name_validation",
)


class _OursStayUnlogged(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not _ours.get()


class _TheirsOnTheRootStayUnlogged(logging.Filter):
    """mcp.shared.session logs what it could not read without a logger of its own."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (_ours.get() and "mcp" in record.pathname.replace("\\", "/").split("/"))


for _name in LIBRARIES:
    logging.getLogger(_name).addFilter(_OursStayUnlogged())
logging.getLogger().addFilter(_TheirsOnTheRootStayUnlogged())


@contextmanager
def unlogged() -> Iterator[None]:
    """Leave out what the libraries tell of requests that are made in the block."""
    before = _ours.set(True)
    try:
        yield
    finally:
        try:
            _ours.reset(before)
        except ValueError:  # left in another task than it was entered in
            _ours.set(False)
