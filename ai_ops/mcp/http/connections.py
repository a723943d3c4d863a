"""The connections of a probe: HTTP/1.1, each reused while the server keeps it open.

As in the agents' client, a session uses one connection if the server allows it. This is not a pool of httpcore, whose
time grows with the square of its size, because each probe has only two or three requests.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import h11
import httpcore
import httpx

from ai_ops.mcp.http.http11 import Head, RequestCycle

# Maximum number of bytes per read, as in httpcore.
READ_BYTES = 64 * 1024

# Seconds to wait for facts that a probe needs besides its verdict.
EXTRA_SECONDS = 1.0

# After this number of pieces of a body, other probes continue, because a server may send its body byte by byte.
PIECES_AT_ONCE = 32

# Includes everything before the head of an answer, such as endless hints (103).
MAX_BEFORE_BODY_BYTES = 4 * READ_BYTES

_USUAL_PORTS = {"http": 80, "https": 443}

_Place = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Question:
    """A request. It is converted to a request of httpx only for a redirect, a cookie or a sentence."""

    method: str
    url: httpx.URL
    headers: Mapping[str, str]
    content: bytes = b""

    @classmethod
    def of(cls, request: httpx.Request) -> Question:
        """Return the question for a request of httpx."""
        headers = {name.decode("ascii"): value.decode("utf-8") for name, value in request.headers.raw}
        return cls(request.method, request.url, headers, request.read())

    def as_httpx(self) -> httpx.Request:
        """Return it as a request of httpx."""
        headers = httpx.Headers(self.headers, encoding="utf-8")
        return httpx.Request(self.method, self.url, headers=headers, content=self.content or None)


class Answer:
    """An answer: its head, and its body in pieces by ``async for``. The caller must close it.

    Attributes:
        question: The request that it answers.
        status: Its status code.
        headers: Its headers by name in lower case.
        next_request: The request of a redirect, after it was read.
        is_begun: Whether reading of its body has started.
    """

    def __init__(
        self, question: Question, head: Head, reader: RequestCycle, connection: Connection, line: Line
    ) -> None:
        self.question = question
        self.status = head.status
        self.headers = head.headers
        self.next_request: httpx.Request | None = None
        self.is_begun = False
        self._fields = head.fields
        self._reader = reader
        self._connection = connection
        self._line = line
        self._pieces = 0
        self._closed = False

    @property
    def is_success(self) -> bool:
        """Return whether its status is a 2xx."""
        return 200 <= self.status < 300

    @property
    def content_type(self) -> str:
        """Return its content type in lower case; empty without one."""
        return self.headers.get("content-type", "").lower()

    @property
    def tls(self) -> ssl.SSLObject | None:
        """Return the TLS of its connection."""
        return self._connection.tls()

    def as_httpx(self) -> httpx.Response:
        """Return its head as a response of httpx."""
        return httpx.Response(self.status, headers=self._fields, request=self.question.as_httpx())

    def is_over(self) -> bool:
        """Return whether all of it is known to have arrived."""
        return self._reader.is_over()

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> bytes:
        self.is_begun = True
        self._pieces += 1
        if not self._pieces % PIECES_AT_ONCE:
            await asyncio.sleep(0)
        with _AS_HTTPX:
            while (piece := self._reader.piece()) is None:
                await self._connection.feed(self._reader)
        if not piece:
            raise StopAsyncIteration
        return piece

    def close(self) -> None:
        """Keep the connection if the whole answer has arrived, otherwise close it."""
        if self._closed:
            return
        self._closed = True
        rest = self._reader.rest()
        if rest is None:
            self._connection.close()
        else:
            self._connection.begun = rest
            self._line.keep(self._connection)


class Line:
    """The open connections of a probe. The caller must close it. It belongs to one event loop and one server."""

    def __init__(self) -> None:
        self._idle: dict[_Place, Connection] = {}

    def take(self, place: _Place) -> Connection | None:
        """Return the open connection to `place`, unless the server has closed it meanwhile."""
        connection = self._idle.pop(place, None)
        if connection is None or not connection.is_over():
            return connection
        connection.close()
        return None

    def keep(self, connection: Connection) -> None:
        """Keep a connection for the next request; of two, keep the earlier."""
        if self._idle.setdefault(connection.place, connection) is not connection:
            connection.close()

    def close(self) -> None:
        """Close the connection."""
        for connection in self._idle.values():
            connection.close()
        self._idle.clear()


class LineTransport:
    """Sends each request over a `Line`; raises the errors of httpx.

    Args:
        context: For ``https``.
        backend: Opens connections, whose streams have a deadline (``end_at``) and an immediate close (``abort``).
    """

    def __init__(self, context: ssl.SSLContext, backend: httpcore.AsyncNetworkBackend) -> None:
        context.set_alpn_protocols(["http/1.1"])
        self._context = context
        self._backend = backend

    async def answer_to(self, question: Question, line: Line, ends: float) -> Answer:
        """Send a request and return the answer; closing it returns its connection to the line.

        Args:
            question: The request.
            line: The connections of this probe.
            ends: The deadline for the whole answer, on the monotonic clock.
        """
        url = question.url
        place = url.scheme, url.raw_host.decode("ascii"), url.port or _USUAL_PORTS[url.scheme]
        with _AS_HTTPX:
            if connection := line.take(place):
                connection.end_at(ends)
                try:
                    return await connection.answer_to(question, line)
                except (httpcore.NetworkError, h11.RemoteProtocolError):
                    # A server that has just closed the connection has not read the request. Agents are slower and
                    # notice it before.
                    if connection.has_said_something:
                        raise
            connection = Connection(place, await self._opened(place, _left(ends)))
            try:
                return await connection.answer_to(question, line)
            except httpcore.ReadError:
                if place[0] == "https" and not connection.has_said_something:
                    await self._listen_for_alert(place)
                raise

    async def _listen_for_alert(self, place: _Place) -> None:
        """Connect again without a request, since an early request would hide the reason of a TLS failure.

        Raises:
            httpcore.ReadError: From the alert.
        """
        with suppress(TimeoutError, httpcore.TimeoutException, httpcore.ConnectError):
            stream = await self._opened(place, EXTRA_SECONDS)
            try:
                await stream.read(READ_BYTES)
            finally:
                stream.abort()

    async def _opened(self, place: _Place, seconds: float) -> Any:
        scheme, host, port = place
        stream = await self._backend.connect_tcp(host, port, seconds)
        return stream if scheme == "http" else await stream.start_tls(self._context, host, seconds)


def _left(ends: float) -> float:
    # At least a moment, so that the backend itself reports the timeout.
    return max(ends - time.monotonic(), 0.001)


class Connection:
    """A connection of a probe.

    Attributes:
        place: Its scheme, host and port.
        begun: Received bytes that belong to no answer yet.
        has_said_something: Whether a part of the answer to the latest request has arrived.
    """

    def __init__(self, place: _Place, stream: Any) -> None:
        self.place = place
        self.begun = b""
        self.has_said_something = False
        self._stream = stream

    def end_at(self, moment: float) -> None:
        """Set the deadline for all operations, on the monotonic clock."""
        self._stream.end_at(moment)

    def is_over(self) -> bool:
        """Return whether the server has closed it, or has sent unexpected data."""
        return bool(self._stream.get_extra_info("is_readable"))

    def tls(self) -> ssl.SSLObject | None:
        """Return its TLS; None without."""
        found = self._stream.get_extra_info("ssl_object")
        return found if isinstance(found, ssl.SSLObject) else None

    def close(self) -> None:
        """Close the connection."""
        self._stream.abort()

    async def answer_to(self, question: Question, line: Line) -> Answer:
        """Send a request, and read the head of the answer."""
        self.has_said_something = bool(self.begun)
        try:
            target = question.url.raw_path.decode("ascii")
            reader = RequestCycle(question.method, target, question.headers, question.content, self.begun)
            # A server may answer with a refusal before it has read the whole request.
            with suppress(httpcore.WriteError):
                await self._stream.write(reader.request)
            head = reader.head() if self.begun else None
            size = 0
            while head is None:
                size += await self.feed(reader)
                head = reader.head()
                if head is None and size > MAX_BEFORE_BODY_BYTES:
                    raise h11.RemoteProtocolError("Too much before the head of the answer.")
        except BaseException:
            self.close()
            raise
        return Answer(question, head, reader, self, line)

    async def feed(self, reader: RequestCycle) -> int:
        """Pass the next received bytes to a reader; return their number."""
        data = await self._stream.read(READ_BYTES)
        self.has_said_something = self.has_said_something or bool(data)
        reader.receive(data)
        return len(data)


class _AsHttpx:
    """Raises an error of httpcore or h11 as the error of httpx with its name, or the name of its base class."""

    def __enter__(self) -> None:
        """Enter a block. Blocks share no state, so one instance serves all of them."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: object) -> None:
        if isinstance(error, _FOREIGN):
            name = next(each.__name__ for each in type(error).__mro__ if hasattr(httpx, each.__name__))
            raise getattr(httpx, name)(str(error)) from error


_FOREIGN = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, h11.ProtocolError)
_AS_HTTPX = _AsHttpx()
