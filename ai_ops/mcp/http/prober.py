"""Probes of many MCP servers over HTTP at the same time, from a few threads with an event loop each."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType
from typing import Generic, TypeVar
from urllib.parse import urlsplit

import uvloop

from ai_ops.logic.limits import CHECK_TIMEOUT_SECONDS, PROBE_CONCURRENCY
from ai_ops.mcp.http.attempt import Attempt, Target
from ai_ops.mcp.http.connections import LineTransport
from ai_ops.mcp.http.failures import CHECKER_ERRNOS, RUN_OUT
from ai_ops.mcp.http.outcome import as_sentence
from ai_ops.mcp.http.quiet_logs import unlogged
from ai_ops.mcp.http.tls import CAFileError, ssl_context
from ai_ops.mcp.http.tool_listing import Listing, ToolListing
from ai_ops.mcp.http.transports import Resolver, probe_transport
from ai_ops.mcp.logic.probe_threads import MAX_AT_ONE_PORT, MAX_WORKERS, THREAD_NAME
from ai_ops.mcp.logic.turns import Turns
from ai_ops.mcp.logic.verdicts import Probe, Reason

__all__ = ["Listing", "Prober", "Target", "unasked"]

logger = logging.getLogger(__name__)

# A server that drops packets would occupy its lane for the whole time of a probe without work. After this many seconds
# the lane continues without it. The number of such servers is at most the number of lanes.
PATIENCE_SECONDS = 0.2

Answer = TypeVar("Answer")

_Settings = tuple[bool, str]
_Ask = Callable[[LineTransport, Target], Awaitable[Answer]]


class Prober:
    """The settings and TLS contexts that all probes of a run share. Use it as a context manager.

    Args:
        timeout: Seconds for a whole probe with all its requests, wall clock.
        allow_loopback: Whether servers on this machine are probed.
        resolve: The name lookup; tests pass their own.
        concurrency: Number of servers that each thread probes at a time.
        ca_directories: Folders that may contain CA files; None for any folder.
    """

    def __init__(
        self,
        timeout: float = CHECK_TIMEOUT_SECONDS,
        *,
        allow_loopback: bool = False,
        resolve: Resolver | None = None,
        concurrency: int = PROBE_CONCURRENCY,
        ca_directories: Sequence[str] | None = None,
    ) -> None:
        self._timeout = timeout
        self._allow_loopback = allow_loopback
        self._resolve = resolve
        self._concurrency = concurrency
        self._ca_directories = ca_directories
        self._logged_kinds: set[str] = set()

    def __enter__(self) -> Prober:
        return self

    def __exit__(self, *_: object) -> None:
        """Close nothing, because nothing is open between rounds."""

    def probing(self, targets: Sequence[Target], workers: int = MAX_WORKERS) -> Round[Probe]:
        """Probe every target once in at most `workers` threads, which do only HTTP."""
        return Round(targets, self._probe, self._without_answer, self._transport, workers, self._concurrency)

    def listing(self, targets: Sequence[Target], workers: int = MAX_WORKERS) -> Round[Listing]:
        """List the tools of every target in the same way."""
        return Round(
            targets,
            self._list,
            lambda target, error: Listing(self._without_answer(target, error)),
            self._transport,
            workers,
            self._concurrency,
        )

    def probe_all(self, targets: Sequence[Target], workers: int = MAX_WORKERS) -> Iterator[Probe]:
        """Probe every target once; yield the probes in the order of `targets`."""
        yield from _in_order(self.probing(targets, workers), len(targets))

    def list_all(self, targets: Sequence[Target], workers: int = MAX_WORKERS) -> Iterator[Listing]:
        """List the tools of every target; yield the lists in the order of `targets`."""
        yield from _in_order(self.listing(targets, workers), len(targets))

    def probe(self, target: Target) -> Probe:
        """Probe a server once.

        Failures of the server or the network are in the Probe, and raise no error.
        """
        (probe,) = self.probe_all([target])
        return probe

    def list_tools(self, target: Target) -> Listing:
        """List the tools of a server at its MCP endpoint, with any kind of probe.

        Failures of the server or the network are in the Listing, and raise no error.
        """
        (listing,) = self.list_all([target])
        return listing

    async def _probe(self, transport: LineTransport, target: Target) -> Probe:
        attempt = Attempt(transport, target, time.monotonic(), self._timeout)
        outcome = await attempt.made()
        return outcome.as_probe(attempt.latency_ms)

    async def _list(self, transport: LineTransport, target: Target) -> Listing:
        return await ToolListing(transport, target, time.monotonic(), self._timeout).listed()

    def _transport(self, target: Target) -> LineTransport:
        """Return a transport with the TLS settings of `target`.

        Raises:
            CAFileError: The CA file can't be used.
        """
        context = ssl_context(verify=target.verify_tls, ca_file=target.ca_file, directories=self._ca_directories)
        return probe_transport(context, allow_loopback=self._allow_loopback, resolve=self._resolve)

    def _without_answer(self, target: Target, error: Exception) -> Probe:
        """Return the result of a probe that raised an error; log its traceback, once for each type."""
        if isinstance(error, CAFileError):
            return unasked(str(error), "correct the server, the file or the setting")
        if isinstance(error, OSError) and error.errno in CHECKER_ERRNOS:
            return unasked(f"no socket could be opened ({error.strerror})", RUN_OUT)
        text = "".join(traceback.format_exception(error))
        hidden = target.credentials.hide_in(text) if target.credentials else text
        place = traceback.extract_tb(error.__traceback__)[-1]
        kind = f"{type(error).__qualname__} {place.filename}:{place.lineno}"
        if kind not in self._logged_kinds:
            self._logged_kinds.add(kind)
            logger.error("A probe ended with a programming error.\n%s", hidden)
        return unasked(
            f"the probe ended with {type(error).__name__}, a programming error",
            "look for its traceback in the worker's log, and report it",
        )


class Round(Generic[Answer]):
    """A round over all targets; iterate over it for (number of the target, answer), in the order of arrival.

    Use it as a context manager, which waits for all threads at its end. Targets that were not started are omitted.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        ask: _Ask[Answer],
        without_answer: Callable[[Target, Exception], Answer],
        transport: Callable[[Target], LineTransport],
        workers: int,
        concurrency: int,
    ) -> None:
        self._targets = targets
        self._ask = ask
        self._without_answer = without_answer
        self._transport = transport
        self._concurrency = concurrency
        self._turns = Turns([_port(target.url or target.mcp_url) for target in targets], MAX_AT_ONE_PORT)
        # None: a thread has ended.
        self._answers: SimpleQueue[tuple[int, Answer] | None] = SimpleQueue()
        self._executor = ThreadPoolExecutor(max(1, min(workers, len(targets))), thread_name_prefix=THREAD_NAME)
        self._threads: list[Future[None]] = []
        self._running = 0
        for _ in range(min(workers, len(targets))):
            self._running += 1
            thread = self._executor.submit(self._run)
            thread.add_done_callback(lambda _: self._answers.put(None))
            self._threads.append(thread)

    def __enter__(self) -> Round[Answer]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._turns.stop()
        self._executor.shutdown()

    def __iter__(self) -> Iterator[tuple[int, Answer]]:
        while self._running:
            answer = self._answers.get()
            if answer is None:
                self._running -= 1
            else:
                yield answer
        for thread in self._threads:
            thread.result()

    def rest(self) -> Iterator[tuple[int, Answer]]:
        """Start no further probes, and yield the answers of the running ones, within the time of a probe."""
        self._turns.stop()
        return iter(self)

    def _run(self) -> None:
        try:
            loop = _loop()
        except OSError as error:
            self._ask_none(error)
            return
        with unlogged(), asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._ask_some())

    def _ask_none(self, error: OSError) -> None:
        while (number := self._turns.take()) is not None:
            self._answers.put((number, self._without_answer(self._targets[number], error)))
            self._turns.give_back(number)

    async def _ask_some(self) -> None:
        transports: dict[_Settings, LineTransport | Exception] = {}
        lanes = min(self._concurrency, len(self._targets))
        slow = asyncio.Semaphore(lanes)
        await asyncio.gather(*(self._lane(transports, slow) for _ in range(lanes)))

    async def _lane(
        self,
        transports: dict[_Settings, LineTransport | Exception],
        slow: asyncio.Semaphore,
    ) -> None:
        """Probe targets one by one; start the next while at most the number allowed by `slow` are still waiting."""
        left: set[asyncio.Task[None]] = set()
        while (number := self._turns.take()) is not None or left:
            if number is None:
                # The end of a probe frees its place for another target, which a lane must take.
                ended, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                for asked in ended:
                    asked.result()
                continue
            asking = asyncio.create_task(self._ask_one(number, transports))
            await asyncio.wait([asking], timeout=PATIENCE_SECONDS)
            if asking.done() or slow.locked():
                await asking
                continue
            await slow.acquire()
            asking.add_done_callback(lambda _: slow.release())
            left.add(asking)

    async def _ask_one(self, number: int, transports: dict[_Settings, LineTransport | Exception]) -> None:
        """Probe a target. It catches all errors, so that an error in a library affects only this target."""
        target = self._targets[number]
        try:
            answer = await self._ask(await self._shared(transports, target), target)
        except Exception as error:
            answer = self._without_answer(target, error)
        self._answers.put((number, answer))
        self._turns.give_back(number)

    async def _shared(self, transports: dict[_Settings, LineTransport | Exception], target: Target) -> LineTransport:
        """Return the transport of this loop for the settings of the target, which most targets share."""
        settings = target.verify_tls, target.ca_file
        if settings not in transports:
            try:
                # Not on the loop, because this reads the CA file.
                transports[settings] = await asyncio.to_thread(self._transport, target)
            except CAFileError as error:
                transports[settings] = error
        known = transports[settings]
        if isinstance(known, Exception):
            raise known
        return known


def _loop() -> asyncio.AbstractEventLoop:
    """Create an event loop; without a free file descriptor, fail before it is half created."""
    for half in socket.socketpair():
        half.close()
    return uvloop.new_event_loop()


def _in_order(round_: Round[Answer], count: int) -> Iterator[Answer]:
    """Yield the answers in the order of their numbers. The caller closes it to stop early."""
    early: dict[int, Answer] = {}
    following = 0
    with round_:
        for number, answer in round_:
            early[number] = answer
            while following in early:
                yield early.pop(following)
                following += 1


def _port(url: str) -> tuple[str | None, int | None] | str:
    """Return the host and port of a URL; return an invalid URL unchanged."""
    try:
        parsed = urlsplit(url)
        return parsed.hostname, parsed.port or (443 if parsed.scheme == "https" else 80)
    except ValueError:
        return url


def unasked(happened: str, remedy: str) -> Probe:
    """Return a probe that this worker could not make; both arguments are clauses."""
    return Probe(
        False,
        Reason.CHECKER,
        f"The server was not probed, since {happened}: {remedy}.",
        0.0,
        remedy=as_sentence(remedy),
    )
