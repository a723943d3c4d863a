"""Probes of MCP servers over HTTP: many at once, from a few threads with an event loop each."""

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

# A server that swallows packets costs its lane a probe's whole time, and no work: after so long the lane goes on
# without it. As many more servers are waited for at once as there are lanes.
PATIENCE_SECONDS = 0.2

Answer = TypeVar("Answer")

_Settings = tuple[bool, str]
_Ask = Callable[[LineTransport, Target], Awaitable[Answer]]


class Prober:
    """The settings and TLS contexts that all probes of a run share. Use it in a ``with``.

    Args:
        timeout: Seconds for all of one probe, wall clock, its requests together.
        allow_loopback: Whether servers on this machine are asked.
        resolve: The name lookup; in tests one that answers what a test needs.
        concurrency: How many servers each thread asks at once.
        ca_directories: Folders in one of which a CA file must be; None for anywhere.
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
        self._told: set[str] = set()

    def __enter__(self) -> Prober:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is kept open between rounds."""

    def probing(self, targets: Sequence[Target], workers: int = MAX_WORKERS) -> Round[Probe]:
        """Probe every target once in at most `workers` threads, which do HTTP and nothing else."""
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
        """Probe every target once; give the probes in the order of `targets`."""
        yield from _in_order(self.probing(targets, workers), len(targets))

    def list_all(self, targets: Sequence[Target], workers: int = MAX_WORKERS) -> Iterator[Listing]:
        """List the tools of every target; give the lists in the order of `targets`."""
        yield from _in_order(self.listing(targets, workers), len(targets))

    def probe(self, target: Target) -> Probe:
        """Ask one server once.

        Never raises for anything a server or the network does: that is in the Probe.
        """
        (probe,) = self.probe_all([target])
        return probe

    def list_tools(self, target: Target) -> Listing:
        """List the tools of one server at its MCP endpoint, however its health is asked for.

        Never raises for anything a server or the network does: that is in the Listing.
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
        """Make what asks servers with the TLS settings of `target`.

        Raises:
            CAFileError: The CA file can't be used.
        """
        context = ssl_context(verify=target.verify_tls, ca_file=target.ca_file, directories=self._ca_directories)
        return probe_transport(context, allow_loopback=self._allow_loopback, resolve=self._resolve)

    def _without_answer(self, target: Target, error: Exception) -> Probe:
        """Return the result of a probe that raised; the log has the traceback, once for each kind."""
        if isinstance(error, CAFileError):
            return unasked(str(error), "correct the server, the file, or the setting")
        if isinstance(error, OSError) and error.errno in CHECKER_ERRNOS:
            return unasked(f"no socket could be opened ({error.strerror})", RUN_OUT)
        told = "".join(traceback.format_exception(error))
        hidden = target.credentials.hide_in(told) if target.credentials else told
        place = traceback.extract_tb(error.__traceback__)[-1]
        kind = f"{type(error).__qualname__} {place.filename}:{place.lineno}"
        if kind not in self._told:
            self._told.add(kind)
            logger.error("A probe ended with an error of the program.\n%s", hidden)
        return unasked(
            f"the probe ended with {type(error).__name__}, an error of the program",
            "look for its traceback in the worker's log, and report it",
        )


class Round(Generic[Answer]):
    """Every target asked once; iterate over it for (number of the target, answer), in the order in which they come.

    Use it in a ``with``: at its end no thread is left. Targets that were not begun by then are left out.
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
        """Begin nothing more, and give the answers of those that are being asked: within the time of a probe."""
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
        """Ask one after the other, and begin the next while as many as `slow` allows are still waited for."""
        left: set[asyncio.Task[None]] = set()
        while (number := self._turns.take()) is not None or left:
            if number is None:
                # The end of one makes room at its place for another, which a lane must be there to take.
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
        """Ask one. The one broad catch: whatever a server does to a library costs only its own."""
        target = self._targets[number]
        try:
            answer = await self._ask(await self._shared(transports, target), target)
        except Exception as error:
            answer = self._without_answer(target, error)
        self._answers.put((number, answer))
        self._turns.give_back(number)

    async def _shared(self, transports: dict[_Settings, LineTransport | Exception], target: Target) -> LineTransport:
        """The transport of this loop for the settings of the target, which are those of most others."""
        settings = target.verify_tls, target.ca_file
        if settings not in transports:
            try:
                # Not on the loop: the CA file is read.
                transports[settings] = await asyncio.to_thread(self._transport, target)
            except CAFileError as error:
                transports[settings] = error
        known = transports[settings]
        if isinstance(known, Exception):
            raise known
        return known


def _loop() -> asyncio.AbstractEventLoop:
    """Make an event loop; where no file is left for one, fail before the half of one is made."""
    for half in socket.socketpair():
        half.close()
    return uvloop.new_event_loop()


def _in_order(round_: Round[Answer], count: int) -> Iterator[Answer]:
    """Give the answers in the order of their numbers. Close it when stopping early."""
    early: dict[int, Answer] = {}
    following = 0
    with round_:
        for number, answer in round_:
            early[number] = answer
            while following in early:
                yield early.pop(following)
                following += 1


def _port(url: str) -> tuple[str | None, int | None] | str:
    """The host and port of a URL; what is no URL stands for itself."""
    try:
        parsed = urlsplit(url)
        return parsed.hostname, parsed.port or (443 if parsed.scheme == "https" else 80)
    except ValueError:
        return url


def unasked(happened: str, remedy: str) -> Probe:
    """A probe that could not be made, for a reason that lies with us; both arguments are clauses."""
    return Probe(
        False, Reason.CHECKER, f"The server was not asked, since {happened}: {remedy}.", 0.0, remedy=as_sentence(remedy)
    )
