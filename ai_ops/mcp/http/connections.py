"""The connections of one probe: HTTP/1.1 on h11, each used again while the server keeps it.

As the agents' client has it, one session is one connection, where the server lets it be. Not a pool of httpcore: what
that costs grows with the square of what it holds, and each probe has its own two or three requests.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import h11
import httpcore
import httpx

# As httpcore has them: more is no head of an answer, and so much is read at once.
MAX_HEAD_BYTES = 100 * 1024
READ_BYTES = 64 * 1024

# For what a probe would like to know beside its verdict.
CURIOUS_SECONDS = 1.0

_USUAL_PORTS = {"http": 80, "https": 443}

_Place = tuple[str, str, int]


class Line:
    """The open connections of one probe; close it at its end. It belongs to one event loop, and to no other server."""

    def __init__(self) -> None:
        self._idle: dict[_Place, _Connection] = {}

    def take(self, place: _Place) -> _Connection | None:
        """Give the connection that waits for another request there, unless the server has hung up meanwhile."""
        connection = self._idle.pop(place, None)
        if connection is None or not connection.is_over():
            return connection
        connection.close()
        return None

    def keep(self, connection: _Connection) -> None:
        """Keep one that has answered, for the next request; of two, the earlier."""
        if self._idle.setdefault(connection.place, connection) is not connection:
            connection.close()

    def close(self) -> None:
        """Hang up."""
        for connection in self._idle.values():
            connection.close()
        self._idle.clear()


class LineTransport(httpx.AsyncBaseTransport):
    """Sends each request over the `Line` in its extensions; raises what httpx raises.

    Args:
        context: For ``https``.
        backend: Opens connections, whose streams know a deadline (``end_at``) and close at once (``abort``).
    """

    def __init__(self, context: ssl.SSLContext, backend: httpcore.AsyncNetworkBackend) -> None:
        context.set_alpn_protocols(["http/1.1"])
        self._context = context
        self._backend = backend

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer; the connection goes back to its line when the answer is closed."""
        line: Line = request.extensions["line"]
        seconds: float = request.extensions["timeout"]["connect"]
        url = request.url
        place = url.scheme, url.raw_host.decode("ascii"), url.port or _USUAL_PORTS[url.scheme]
        with _as_httpx():
            if connection := line.take(place):
                connection.give_time(seconds)
                try:
                    return await connection.answer_to(request, line)
                except (httpcore.NetworkError, httpcore.RemoteProtocolError):
                    # A server that has just hung up has not read the request; agents, who are slower, see it before.
                    if connection.has_said_something:
                        raise
            connection = _Connection(place, await self._opened(place, seconds))
            try:
                return await connection.answer_to(request, line)
            except httpcore.ReadError:
                if place[0] == "https" and not connection.has_said_something:
                    await self._listen_for_alert(place)
                raise

    async def _listen_for_alert(self, place: _Place) -> None:
        """Connect once more, and ask nothing: a request that comes too early wipes out why TLS was refused.

        Raises:
            httpcore.ReadError: From the alert.
        """
        with suppress(TimeoutError, httpcore.TimeoutException, httpcore.ConnectError):
            stream = await self._opened(place, CURIOUS_SECONDS)
            try:
                await stream.read(READ_BYTES)
            finally:
                stream.abort()

    async def _opened(self, place: _Place, seconds: float) -> Any:
        scheme, host, port = place
        stream = await self._backend.connect_tcp(host, port, seconds)
        return stream if scheme == "http" else await stream.start_tls(self._context, host, seconds)


class _Connection:
    """One connection and what h11 knows of it.

    Attributes:
        place: Where it leads.
        has_said_something: Whether any of the answer to the latest request has come.
    """

    def __init__(self, place: _Place, stream: Any) -> None:
        self.place = place
        self.has_said_something = False
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)

    def give_time(self, seconds: float) -> None:
        self._stream.end_at(time.monotonic() + seconds)

    def is_over(self) -> bool:
        """Return whether the server has hung up, or says what was not asked."""
        return bool(self._stream.get_extra_info("is_readable"))

    def close(self) -> None:
        self._stream.abort()

    async def answer_to(self, request: httpx.Request, line: Line) -> httpx.Response:
        self.has_said_something = bool(self._http.trailing_data[0])
        try:
            with _as_httpcore(h11.LocalProtocolError, httpcore.LocalProtocolError):
                sent = self._as_bytes(request)
            # A server may refuse before it has read all, and its answer is there all the same.
            with suppress(httpcore.WriteError):
                await self._stream.write(sent)
            head = await self._head()
        except BaseException:
            self.close()
            raise
        extensions = {
            "http_version": b"HTTP/" + head.http_version,
            "reason_phrase": head.reason,
            "network_stream": self._stream,
        }
        headers = head.headers.raw_items()
        return httpx.Response(
            head.status_code, headers=headers, stream=_Content(self, line), request=request, extensions=extensions
        )

    def _as_bytes(self, request: httpx.Request) -> bytes:
        """Head and body together, which is one packet for most."""
        head = h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
        body = h11.Data(data=request.read())
        events = (head, body, h11.EndOfMessage()) if body.data else (head, h11.EndOfMessage())
        return b"".join(self._http.send(event) or b"" for event in events)

    async def _head(self) -> h11.Response | h11.InformationalResponse:
        while True:
            event = await self.event()
            if isinstance(event, h11.Response):
                return event
            if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                return event

    async def event(self) -> Any:
        """The next thing that the server has to say."""
        while True:
            with _as_httpcore(h11.RemoteProtocolError, httpcore.RemoteProtocolError):
                event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            data = await self._stream.read(READ_BYTES)
            if not data and self._http.their_state is h11.SEND_RESPONSE:
                raise httpcore.RemoteProtocolError("Server disconnected without sending a response.")
            self.has_said_something = self.has_said_something or bool(data)
            self._http.receive_data(data)

    def is_done(self) -> bool:
        """Return whether another request may follow; makes ready for it."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True


class _Content(httpx.AsyncByteStream):
    """The body of an answer. When it is closed the connection is kept where all of it was read, or else closed."""

    def __init__(self, connection: _Connection, line: Line) -> None:
        self._connection = connection
        self._line = line
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx():
            while isinstance(event := await self._connection.event(), h11.Data):
                yield bytes(event.data)

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._connection.is_done():
            self._line.keep(self._connection)
        else:
            self._connection.close()


@contextmanager
def _as_httpcore(what: type[Exception], name: type[Exception]) -> Iterator[None]:
    try:
        yield
    except what as error:
        raise name(error) from error


@contextmanager
def _as_httpx() -> Iterator[None]:
    """Raise an error of httpcore as the one of httpx that has its name, or the name of what it is a kind of."""
    try:
        yield
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
        kind = next(getattr(httpx, each.__name__) for each in type(error).__mro__ if hasattr(httpx, each.__name__))
        raise kind(str(error)) from error
