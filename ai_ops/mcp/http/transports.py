"""The transport to MCP servers for probes and agents: only to checked addresses, and within a deadline.

httpx's timeouts are per operation: a server that sends a byte every second never trips a read timeout of ten. Here the
connect timeout becomes a deadline for name lookup, connection and TLS handshake together, and in a probe for all
operations on the connection. The connection goes to an address that `ai_ops.mcp.logic.addresses` has allowed, and not
to a name that could resolve to another address a moment later.
"""

from __future__ import annotations

import asyncio
import ipaddress
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import httpcore
import httpx

from ai_ops.mcp.http.connections import LineTransport
from ai_ops.mcp.http.encodings import encoding_of
from ai_ops.mcp.http.quiet_logs import unlogged
from ai_ops.mcp.logic.addresses import refusal
from ai_ops.mcp.logic.credentials import Credentials

# Takes a host and a port, returns addresses in the order of attempts, raises OSError.
Resolver = Callable[[str, int], list[str]]

# The default timeout, so that no operation waits for ever.
FALLBACK_SECONDS = 60.0

# For agents, which send several requests in a row to one server.
KEEPALIVE_SECONDS = 5.0


class ResolveError(httpcore.ConnectError):
    """The host has no address."""


class AddressRefused(httpcore.ConnectError):
    """One of the host's addresses is forbidden."""


class ResolveTimeout(httpcore.ConnectTimeout):
    """The name lookup exceeded the deadline."""


class HandshakeTimeout(httpcore.ConnectTimeout):
    """The TLS handshake exceeded the deadline."""


@dataclass(frozen=True)
class Deadline:
    """A point on the monotonic clock, in seconds."""

    at: float

    @classmethod
    def after(cls, seconds: float | None) -> Deadline:
        """Return the deadline `seconds` from now."""
        return cls(time.monotonic() + (FALLBACK_SECONDS if seconds is None else seconds))

    def remaining(self, late: type[httpcore.TimeoutException]) -> float:
        """Return the remaining seconds.

        Raises:
            httpcore.TimeoutException: Of the type `late`, if the deadline has passed.
        """
        seconds = self.at - time.monotonic()
        if seconds <= 0:
            raise late("the deadline has passed")
        return seconds


class GuardedTransport(httpx.AsyncHTTPTransport):
    """HTTP/1.1 without proxies to checked addresses, for agents; each operation has its own timeout.

    Args:
        context: The TLS context of all connections; creating one takes about 30 ms of CPU.
        allow_loopback: Whether connections to this machine itself are allowed.
        resolve: The name lookup; tests pass their own.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        allow_loopback: bool = False,
        resolve: Resolver | None = None,
    ) -> None:
        super().__init__(verify=context, trust_env=False)
        # httpx has no argument for a network backend.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context,
            keepalive_expiry=KEEPALIVE_SECONDS,
            network_backend=_GuardedBackend(resolve or resolve_name, allow_loopback, one_deadline=False),
        )


def probe_transport(
    context: ssl.SSLContext, *, allow_loopback: bool = False, resolve: Resolver | None = None
) -> LineTransport:
    """Return a transport for probes: the connect timeout of a request is its whole deadline."""
    return LineTransport(context, _GuardedBackend(resolve or resolve_name, allow_loopback, one_deadline=True))


def resolve_name(host: str, port: int) -> list[str]:
    """Look up a name with the resolver of this machine.

    Raises:
        OSError: The name has no address, or the resolver did not answer.
    """
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label longer than DNS allows
        raise socket.gaierror(socket.EAI_NONAME, "a part of the name is empty or too long") from error
    return [str(sockaddr[0]) for *_, sockaddr in answers]


def require_allowed(addresses: Iterable[str], allow_loopback: bool) -> None:
    """Raise an error unless all addresses of a host are allowed, since DNS may return any of them next.

    Raises:
        AddressRefused: One of them is forbidden, for the reason in the message.
    """
    for address in addresses:
        if reason := refusal(address, allow_loopback=allow_loopback):
            raise AddressRefused(reason)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class _GuardedBackend(httpcore.AsyncNetworkBackend):
    """Looks up names itself, so that it connects to the checked address.

    It uses asyncio's own streams. The streams of httpcore for any event loop would double the time of a probe.
    """

    def __init__(self, resolve: Resolver, allow_loopback: bool, one_deadline: bool) -> None:
        self._resolve = resolve
        self._allow_loopback = allow_loopback
        self._one_deadline = one_deadline

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        deadline = Deadline.after(timeout)
        addresses = [host] if _is_address(host) else await _looked_up(self._resolve, host, port, deadline)
        require_allowed(addresses, self._allow_loopback)
        failure: httpcore.ConnectError | httpcore.ConnectTimeout = ResolveError("the name has no address")
        for index, address in enumerate(addresses):
            # A share of the time for each address, so that a dead first address leaves time for the second.
            share = deadline.remaining(httpcore.ConnectTimeout) / (len(addresses) - index)
            try:
                reader, writer = await _connected(address, port, share)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _GuardedStream(reader, writer, deadline, self._one_deadline)
        raise failure


async def _connected(address: str, port: int, seconds: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        async with asyncio.timeout(seconds):
            return await asyncio.open_connection(address, port)
    except TimeoutError as error:
        # The system's own timeout, before the deadline. Ours has no errno.
        if error.errno is not None:
            raise httpcore.ConnectError(str(error)) from error
        raise httpcore.ConnectTimeout("no connection in time") from None
    except OSError as error:
        raise httpcore.ConnectError(str(error)) from error


def _require_a_socket() -> None:
    """Fail here if this process can't open a socket, because in the name lookup it would look like a DNS failure."""
    try:
        socket.socket().close()
    except OSError as error:
        raise httpcore.ConnectError(str(error)) from error


async def _looked_up(resolve: Resolver, host: str, port: int, deadline: Deadline) -> list[str]:
    """Look up `host` in a separate thread, because getaddrinfo() has no timeout.

    It is a daemon thread, not one of the loop's threads. A thread that waits for a dead resolver must neither block
    other lookups nor delay the exit of the process.
    """
    _require_a_socket()
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[str]] = loop.create_future()

    def look_up() -> None:
        # The loop may be closed if the answer comes after the deadline.
        with suppress(RuntimeError):
            try:
                loop.call_soon_threadsafe(_settle, found, resolve(host, port), None)
            except OSError as error:
                loop.call_soon_threadsafe(_settle, found, [], error)

    threading.Thread(target=look_up, name="mcp-resolve", daemon=True).start()
    try:
        async with asyncio.timeout(deadline.remaining(ResolveTimeout)):
            return await found
    except TimeoutError:
        raise ResolveTimeout("the name lookup did not end in time") from None
    except OSError as error:
        raise ResolveError(error.strerror or str(error)) from error


def _settle(found: asyncio.Future[list[str]], addresses: list[str], error: OSError | None) -> None:
    if found.done():
        return
    if error is None:
        found.set_result(addresses)
    else:
        found.set_exception(error)


class _GuardedStream(httpcore.AsyncNetworkStream):
    """A connection with a deadline, which raises only errors that httpx knows.

    Args:
        reader: The reader of the stream.
        writer: The writer of the stream.
        deadline: The deadline for opening it.
        whole: Whether the deadline applies to all operations on it.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, deadline: Deadline, whole: bool
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._deadline = deadline
        self._whole = whole
        self._late = False
        self._ends = deadline.at
        self._alarm: asyncio.TimerHandle | None = None
        if whole:
            self.end_at(deadline.at)

    def end_at(self, moment: float) -> None:
        """Set the deadline for all operations (monotonic seconds), with one timer instead of one for each operation.

        A timer for an earlier time stays, and checks the deadline again then.
        """
        self._ends = moment
        if self._alarm and self._alarm.when() > moment:
            self._alarm.cancel()
            self._alarm = None
        if self._alarm is None:
            self._alarm = asyncio.get_running_loop().call_at(moment, self._end)

    def _end(self) -> None:
        self._alarm = None
        if self._ends > time.monotonic():
            self.end_at(self._ends)
            return
        self._late = True
        self._reader.set_exception(TimeoutError())
        self._writer.transport.abort()

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            if self._whole:
                return await self._reader.read(max_bytes)
            async with asyncio.timeout(timeout):
                return await self._reader.read(max_bytes)
        except (TimeoutError, OSError, ValueError) as error:
            raise self._as_httpcore(error, httpcore.ReadError, httpcore.ReadTimeout) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not buffer:
            return
        try:
            self._writer.write(buffer)
            if self._whole:
                await self._writer.drain()
            else:
                async with asyncio.timeout(timeout):
                    await self._writer.drain()
        except (TimeoutError, OSError, ValueError) as error:
            raise self._as_httpcore(error, httpcore.WriteError, httpcore.WriteTimeout) from error

    async def aclose(self) -> None:
        self.abort()

    def abort(self) -> None:
        """Close the connection immediately, because close() in TLS waits half a minute for the other side."""
        if self._alarm:
            self._alarm.cancel()
        self._writer.transport.abort()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        try:
            async with asyncio.timeout(self._deadline.remaining(HandshakeTimeout)):
                await self._writer.start_tls(ssl_context, server_hostname=server_hostname)
        except BaseException as error:
            self.abort()
            # ValueError for a name that TLS can't send, such as one that begins with a dot.
            if isinstance(error, TimeoutError | OSError | ValueError):
                raise self._as_httpcore(error, httpcore.ConnectError, HandshakeTimeout) from error
            raise
        return self

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            return (
                self._reader.at_eof()
                or self._writer.is_closing()
                or _has_unread_data(self._writer.get_extra_info("socket"))
            )
        return self._writer.get_extra_info(_EXTRA.get(info, info))

    def _as_httpcore(
        self, error: Exception, kind: type[httpcore.NetworkError], late: type[httpcore.TimeoutException]
    ) -> httpcore.NetworkError | httpcore.TimeoutException:
        """Return an error of a socket or of TLS as an error that httpx knows."""
        if self._late or (isinstance(error, TimeoutError) and error.errno is None):
            return late("the deadline has passed")
        return kind(str(error))


def _has_unread_data(connection: socket.socket) -> bool:
    """Return whether the socket has data that the event loop has not read yet."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


# The names in httpcore and in asyncio.
_EXTRA = {"client_addr": "sockname", "server_addr": "peername"}


class ClientFactory:
    """Creates the httpx client of each MCP session for langchain-mcp-adapters.

    Args:
        context: The TLS context. It is created beforehand, because a session starts on an event loop.
        allow_loopback: Whether servers on this machine may be reached.
        leaving: Maximum number of seconds to end a session.
    """

    def __init__(self, context: ssl.SSLContext, *, allow_loopback: bool = False, leaving: float = 1.0) -> None:
        self._context = context
        self._allow_loopback = allow_loopback
        self._leaving = leaving

    def __call__(
        self,
        headers: dict[str, str] | None = None,
        timeout: httpx.Timeout | None = None,
        auth: httpx.Auth | None = None,
    ) -> httpx.AsyncClient:
        """Create a client; the caller closes it."""
        return _AgentClient(
            self._leaving,
            transport=GuardedTransport(self._context, allow_loopback=self._allow_loopback),
            trust_env=False,
            follow_redirects=False,
            headers=headers,
            timeout=timeout,
            auth=auth,
        )


class _AgentClient(httpx.AsyncClient):
    """Sends an agent's requests, and suppresses library logs about them."""

    def __init__(self, leaving: float, **options: Any) -> None:
        super().__init__(**options)
        self._leaving = leaving
        self._quiet = unlogged()

    async def __aenter__(self) -> Self:
        self._quiet.__enter__()
        return await super().__aenter__()

    async def __aexit__(self, *args: Any) -> None:
        try:
            await super().__aexit__(*args)
        finally:
            self._quiet.__exit__(None, None, None)

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        if request.method != "DELETE":
            return await _require_text(await super().send(request, **options))
        # The agent already has its answer.
        async with asyncio.timeout(self._leaving):
            response = await super().send(request, **options)
            await response.aread()
            return response


async def _require_text(response: httpx.Response) -> httpx.Response:
    """Refuse an encoding that takes hours to decode, which would block the other agents on the event loop.

    Raises:
        httpx.RemoteProtocolError: The encoding of the answer is not for text.
    """
    if encoding_of(response.headers.get("content-type", "")) is None:
        await response.aclose()
        raise httpx.RemoteProtocolError("it answered in an encoding that is not for text", request=response.request)
    return response


class HeaderAuth(httpx.Auth):
    """Sends credentials to one address, and removes them from redirects to other addresses."""

    def __init__(self, url: str, credentials: Credentials) -> None:
        self._url = httpx.URL(url)
        self._credentials = credentials

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the header, or remove it."""
        if request.url == self._url:
            request.headers[self._credentials.header] = self._credentials.value
        else:
            request.headers.pop(self._credentials.header, None)
        yield request
