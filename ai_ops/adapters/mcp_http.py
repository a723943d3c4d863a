"""Asks MCP servers over HTTP how they are, from as many threads as it is told."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TypeVar

import httpx

from ai_ops.adapters.deadline_transport import DeadlineTransport, Resolver
from ai_ops.adapters.probe_attempt import VERSION, Attempt, Target
from ai_ops.adapters.probe_outcome import as_sentence
from ai_ops.adapters.tls import CAFileError, ssl_context
from ai_ops.adapters.tool_listing import Listing, ToolListing
from ai_ops.core.health import CHECK_TIMEOUT_SECONDS, MAX_WORKERS, Probe, Reason

__all__ = ["Listing", "Prober", "Target", "unasked"]

THREAD_NAME = "mcp-probe"

Answer = TypeVar("Answer")


class _ProbesStayUnlogged(logging.Filter):
    """httpx logs each request with its query, which may hold a token, and from the thread that made it."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.threadName or "").startswith(THREAD_NAME)


logging.getLogger("httpx").addFilter(_ProbesStayUnlogged())


class Prober:
    """What all probes of a run share. Use it in a ``with``, from as many threads as needed.

    Args:
        timeout: Seconds for all of one probe, wall clock, its requests together.
        allow_loopback: Whether servers on this machine are asked.
        resolve: The name lookup; in tests one that answers what a test needs.
    """

    def __init__(
        self,
        timeout: float = CHECK_TIMEOUT_SECONDS,
        *,
        allow_loopback: bool = False,
        resolve: Resolver | None = None,
    ) -> None:
        self._timeout = timeout
        self._allow_loopback = allow_loopback
        self._resolve = resolve
        self._clients: dict[int, httpx.Client] = {}
        self._open = ExitStack()
        self._lock = threading.Lock()

    def __enter__(self) -> Prober:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def probe_all(self, targets: Sequence[Target], workers: int = MAX_WORKERS) -> Iterator[Probe]:
        """Probe every target once in at most `workers` threads, which do HTTP and nothing else.

        Yields in the order of `targets`. Close it when stopping early: targets not yet begun are then left
        out, and those under way end within their timeout.
        """
        yield from _in_threads(self.probe, targets, workers)

    def list_all(self, targets: Sequence[Target], workers: int = MAX_WORKERS) -> Iterator[Listing]:
        """List the tools of every target in the same way."""
        yield from _in_threads(self.list_tools, targets, workers)

    def probe(self, target: Target) -> Probe:
        """Ask one server once.

        Never raises for anything a server or the network does: that is in the Probe.
        """
        started = time.monotonic()
        try:
            client = self._client(target)
        except CAFileError as error:
            return unasked(str(error), "put it on this worker, or correct the setting")
        outcome = Attempt(client, target, started, self._timeout).made()
        return outcome.as_probe(round((time.monotonic() - started) * 1000, 1))

    def list_tools(self, target: Target) -> Listing:
        """List the tools of one server at its MCP endpoint, however its health is asked for.

        Never raises for anything a server or the network does: that is in the Listing.
        """
        started = time.monotonic()
        try:
            client = self._client(target)
        except CAFileError as error:
            return Listing(unasked(str(error), "put it on this worker, or correct the setting"))
        return ToolListing(client, target, started, self._timeout).listed()

    def _client(self, target: Target) -> httpx.Client:
        context = ssl_context(verify=target.verify_tls, ca_file=target.ca_file)
        with self._lock:
            if id(context) not in self._clients:
                transport = DeadlineTransport(context, allow_loopback=self._allow_loopback, resolve=self._resolve)
                self._clients[id(context)] = self._open.enter_context(_client_over(transport))
            return self._clients[id(context)]


def _in_threads(ask: Callable[[Target], Answer], targets: Sequence[Target], workers: int) -> Iterator[Answer]:
    executor = ThreadPoolExecutor(max(1, min(workers, len(targets))), thread_name_prefix=THREAD_NAME)
    try:
        yield from executor.map(ask, targets)
    finally:
        executor.shutdown(cancel_futures=True)


def unasked(happened: str, remedy: str) -> Probe:
    """A probe that could not be made, for a reason that lies with us; both arguments are clauses."""
    return Probe(
        False, Reason.CHECKER, f"The server was not asked, since {happened}: {remedy}.", 0.0, remedy=as_sentence(remedy)
    )


def _client_over(transport: httpx.BaseTransport) -> httpx.Client:
    return httpx.Client(
        transport=transport,
        follow_redirects=False,
        # No proxy, no .netrc: the probe goes to the server itself and carries nobody's password.
        trust_env=False,
        cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
        headers={
            "User-Agent": f"nautobot-app-ai-ops/{VERSION} health check",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            "Connection": "close",
        },
    )
