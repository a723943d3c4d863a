"""The agents' way to MCP servers: httpx as the MCP client wants it, to addresses that probes go to as well."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Generator, Iterable
from typing import Any

import anyio
import httpcore
import httpx

from ai_ops.adapters.deadline_transport import ResolveError, ResolveTimeout, require_allowed
from ai_ops.adapters.tls import ssl_context
from ai_ops.core.credentials import Credentials


class ClientFactory:
    """Makes the httpx client of each MCP session, as langchain-mcp-adapters asks for one.

    Args:
        verify: Whether the server's certificate is verified.
        ca_file: Path of a PEM file with the CAs to trust; empty for the usual ones.
        allow_loopback: Whether servers on this machine may be reached.
    """

    def __init__(self, *, verify: bool = True, ca_file: str = "", allow_loopback: bool = False) -> None:
        self._verify = verify
        self._ca_file = ca_file
        self._allow_loopback = allow_loopback

    def __call__(
        self,
        headers: dict[str, str] | None = None,
        timeout: httpx.Timeout | None = None,
        auth: httpx.Auth | None = None,
    ) -> httpx.AsyncClient:
        """Make one; the caller closes it.

        Raises:
            CAFileError: The CA file can't be used on this machine.
        """
        context = ssl_context(verify=self._verify, ca_file=self._ca_file)
        transport = GuardedTransport(context, allow_loopback=self._allow_loopback)
        return httpx.AsyncClient(
            transport=transport, trust_env=False, follow_redirects=False, headers=headers, timeout=timeout, auth=auth
        )


class HeaderAuth(httpx.Auth):
    """Sends credentials to one address, and takes them out of what is redirected from there to another."""

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


class GuardedTransport(httpx.AsyncHTTPTransport):
    """httpx's own transport, whose connections go to addresses that were checked."""

    def __init__(self, context: ssl.SSLContext, *, allow_loopback: bool = False) -> None:
        super().__init__(verify=context, trust_env=False)
        # The one place where httpx takes no network backend from outside.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context, keepalive_expiry=5.0, network_backend=_GuardedBackend(allow_loopback)
        )


class _GuardedBackend(httpcore.AsyncNetworkBackend):
    """Looks names up by itself, so that what is checked is what is connected to."""

    def __init__(self, allow_loopback: bool) -> None:
        self._allow_loopback = allow_loopback
        self._sockets = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await _resolved(host, port, timeout)
        require_allowed(addresses, self._allow_loopback)
        failure: httpcore.ConnectError | httpcore.ConnectTimeout = ResolveError("the name has no address")
        for address in addresses:
            share = None if timeout is None else timeout / len(addresses)
            try:
                return await self._sockets.connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


async def _resolved(host: str, port: int, timeout: float | None) -> list[str]:
    try:
        with anyio.fail_after(timeout):
            answers = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError as error:
        raise ResolveTimeout("the name lookup did not end in time") from error
    except (OSError, UnicodeError) as error:
        raise ResolveError(str(error)) from error
    return [str(sockaddr[0]) for *_, sockaddr in answers]
