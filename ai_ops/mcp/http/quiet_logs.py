"""Suppression of library logs about the requests of probes and agents.

httpx logs each request with its query, httpcore logs headers and mcp whole messages, which contain tokens, sessions and
users' texts. A filter on the libraries' loggers drops only records about our requests.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# Tasks started by a library inherit it.
_ours: ContextVar[bool] = ContextVar("ai_ops_mcp_request", default=False)

# A filter applies only to its logger, not to the loggers below it.
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
    """Drops unreadable messages that mcp.shared.session logs on the root logger."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (_ours.get() and "mcp" in record.pathname.replace("\\", "/").split("/"))


for _name in LIBRARIES:
    logging.getLogger(_name).addFilter(_OursStayUnlogged())
logging.getLogger().addFilter(_TheirsOnTheRootStayUnlogged())


@contextmanager
def unlogged() -> Iterator[None]:
    """Drop library log records about requests in the block."""
    before = _ours.set(True)
    try:
        yield
    finally:
        try:
            _ours.reset(before)
        except ValueError:  # left in another task than it was entered in
            _ours.set(False)
