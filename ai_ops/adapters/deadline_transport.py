"""An httpx transport whose timeout is wall clock.

httpx's timeouts are per operation: a server that sends a byte every second never trips a read
timeout of ten. Here the timeout with which a connection is opened becomes a deadline for
everything that happens on it, the name lookup and the TLS handshake included. Connections are
not kept, so one request is one connection. It goes to an address that `ai_ops.core.addresses` has let
pass, and not to a name that could mean another address a moment later.
"""

from __future__ import annotations

import ipaddress
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import httpcore
import httpx

from ai_ops.core.addresses import refusal

# Takes a host and a port, returns addresses in the order in which to try them, raises OSError.
Resolver = Callable[[str, int], list[str]]

# Used when no timeout was given, so that nothing here can wait for ever.
FALLBACK_SECONDS = 60.0


class ResolveError(httpcore.ConnectError):
    """The host has no address."""


class AddressRefused(httpcore.ConnectError):
    """One of the host's addresses is one that nothing is sent to."""


class ResolveTimeout(httpcore.ConnectTimeout):
    """The name lookup outlasted the deadline."""


class HandshakeTimeout(httpcore.ConnectTimeout):
    """The TLS handshake outlasted the deadline."""


@dataclass(frozen=True)
class Deadline:
    """A point on the monotonic clock, in seconds."""

    at: float

    @classmethod
    def after(cls, seconds: float | None) -> Deadline:
        """The point `seconds` from now."""
        return cls(time.monotonic() + (FALLBACK_SECONDS if seconds is None else seconds))

    def remaining(self, late: type[httpcore.TimeoutException]) -> float:
        """Seconds left.

        Raises:
            httpcore.TimeoutException: Of the kind `late`, when none are.
        """
        seconds = self.at - time.monotonic()
        if seconds <= 0:
            raise late("the deadline has passed")
        return seconds


class DeadlineTransport(httpx.HTTPTransport):
    """HTTP/1.1 without proxies and kept connections, under a wall clock deadline.

    Args:
        ssl_context: Shared by all connections; making one costs some 30 ms of CPU.
        allow_loopback: Whether connections to this machine itself are allowed.
        resolve: The name lookup; in tests one that is slow or answers what a test needs.
    """

    def __init__(
        self, ssl_context: ssl.SSLContext, *, allow_loopback: bool = False, resolve: Resolver | None = None
    ) -> None:
        super().__init__(verify=ssl_context, trust_env=False)
        # The one place where httpx takes no network backend from outside.
        self._pool = httpcore.ConnectionPool(
            ssl_context=ssl_context,
            max_connections=None,
            max_keepalive_connections=0,
            network_backend=_DeadlineBackend(resolve or resolve_name, allow_loopback),
        )


def resolve_name(host: str, port: int) -> list[str]:
    """Look a name up the way every program on this machine does.

    Raises:
        OSError: The name has no address, or the resolver did not answer.
    """
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label longer than DNS allows
        raise socket.gaierror(socket.EAI_NONAME, "a part of the name is empty or too long") from error
    return [str(sockaddr[0]) for *_, sockaddr in answers]


def require_allowed(addresses: Iterable[str], allow_loopback: bool) -> None:
    """Let pass only hosts all of whose addresses may be asked: of two, anyone may be the next answer of DNS.

    Raises:
        AddressRefused: One of them may not; the message says why.
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


class _DeadlineBackend(httpcore.NetworkBackend):
    """Opens connections that know when they have to be done."""

    def __init__(self, resolve: Resolver, allow_loopback: bool) -> None:
        self._resolve = resolve
        self._allow_loopback = allow_loopback
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        deadline = Deadline.after(timeout)
        _require_a_socket()
        addresses = self._addresses(host, port, deadline)
        require_allowed(addresses, self._allow_loopback)
        failure: httpcore.ConnectError | httpcore.ConnectTimeout = ResolveError("the name has no address")
        for index, address in enumerate(addresses):
            # A share each, so that a dead first address leaves time for the second.
            share = deadline.remaining(httpcore.ConnectTimeout) / (len(addresses) - index)
            try:
                stream = self._sockets.connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _DeadlineStream(stream, deadline)
        raise failure

    def _addresses(self, host: str, port: int, deadline: Deadline) -> list[str]:
        """Look `host` up in a thread of its own, since getaddrinfo() can't be given a timeout.

        What is an address already is taken as it is: the thread costs more than all else of a connection.
        It is a daemon: one that waits for a dead resolver must not hold up the worker's exit.
        """
        if _is_address(host):
            return [host]
        answers: queue.SimpleQueue[list[str] | OSError] = queue.SimpleQueue()

        def look_up() -> None:
            try:
                answers.put(self._resolve(host, port))
            except OSError as error:
                answers.put(error)

        threading.Thread(target=look_up, name="mcp-resolve", daemon=True).start()
        try:
            answer = answers.get(timeout=deadline.remaining(ResolveTimeout))
        except queue.Empty:
            raise ResolveTimeout("the name lookup did not end in time") from None
        if isinstance(answer, OSError):
            raise ResolveError(answer.strerror or str(answer)) from answer
        return answer


def _require_a_socket() -> None:
    """Fail here if this process can't open a socket: in the name lookup that would pass for trouble with DNS."""
    try:
        socket.socket().close()
    except OSError as error:
        raise httpcore.ConnectError(str(error)) from error


class _DeadlineStream(httpcore.NetworkStream):
    """A connection on which every operation gets the time that is left, whatever it asks for."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.remaining(httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.remaining(httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        try:
            stream = self._stream.start_tls(
                ssl_context, server_hostname, self._deadline.remaining(httpcore.ConnectTimeout)
            )
        except httpcore.ConnectTimeout as error:
            raise HandshakeTimeout(str(error)) from error
        return _DeadlineStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
