"""HTTP with one server within one deadline: redirects, cookies and credentials as the agents' client has them."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from importlib import metadata
from typing import Any

import httpx

from ai_ops.mcp.http.connections import Line
from ai_ops.mcp.http.failures import BodyError, parsed_url
from ai_ops.mcp.http.tls import certificate_end
from ai_ops.mcp.logic.credentials import Credentials
from ai_ops.mcp.logic.protocol import Message
from ai_ops.mcp.logic.verdicts import retry_after_seconds

VERSION = metadata.version("nautobot-app-ai-ops")

# As many as the agents' client follows.
MAX_REDIRECTS = 20

# As the agents' client sends them, and said in the server's log.
HEADERS = {
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "Connection": "keep-alive",
    "User-Agent": f"nautobot-app-ai-ops/{VERSION} health check",
}

# With these headers the server need not keep the connection.
LAST_REQUEST = {"Connection": "close"}

# So long the rest of an answer is waited for that is needed for nothing but its connection, and so much of it is read.
MOMENT_SECONDS = 0.05
MOMENT_PIECES = 8

_Origin = tuple[str, str, int | None]


class Exchange:
    """The requests of one probe.

    Attributes:
        ends: The moment, on the monotonic clock, by which a request has to be done.
        asked: What is being asked, for the sentence about it.
        status: Status code of the answer to it; None until there is one.
        redirected: Whether it was redirected, and so came without credentials.
        retry_after: Seconds for which the server asked to be left alone.
        certificate_ends: When the certificate that the server showed expires.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, credentials: Credentials | None, ends: float) -> None:
        self._transport = transport
        self._credentials = credentials
        self._jars: dict[_Origin, httpx.Cookies] = {}
        self._line = Line()
        self._answers_end = True
        self.ends = ends
        self.asked = ""
        self.status: int | None = None
        self.redirected = False
        self.retry_after: float | None = None
        self.certificate_ends: datetime | None = None

    @asynccontextmanager
    async def answer_to(
        self,
        method: str,
        url: str,
        *,
        message: Message | None = None,
        headers: Mapping[str, str] | None = None,
        aside: bool = False,
    ) -> AsyncIterator[httpx.Response]:
        """Send a request, and again where it is redirected on its origin; the body is the caller's to read.

        Args:
            method: Of HTTP.
            url: Where to.
            message: What to send as JSON.
            headers: What to send beside what is always sent.
            aside: Whether this is not what the probe is about, and its status says nothing.

        Raises:
            httpx.HTTPError: There is no answer.
            httpx.InvalidURL: The URL is none that can be asked.
        """
        request = httpx.Request(method, checked_url(url), json=message, headers=HEADERS | dict(headers or {}))
        if not aside:
            self.status, self.redirected = None, False
        home = request.url
        for more in range(MAX_REDIRECTS, -1, -1):
            response = await self._sent(request, home, aside)
            following = _next_on_origin(response) if more else None
            if following is None:
                break
            await response.aclose()
            request = following
            self.redirected = self.redirected or not aside
        try:
            yield response
            if not response.is_stream_consumed:
                await self.finish(response.aiter_raw())
        finally:
            await response.aclose()

    async def finish(self, rest: AsyncIterator[Any]) -> None:
        """Read the rest of an answer that has said enough, where it ends at once: its connection is used again then.

        A server that keeps such an answer open is not waited for a second time.
        """
        if not self._answers_end:
            return
        size = 0
        try:
            async with asyncio.timeout(MOMENT_SECONDS):
                async for _ in rest:
                    size += 1
                    if size > MOMENT_PIECES:
                        break
                else:
                    return
        except (TimeoutError, httpx.HTTPError, httpx.StreamError, BodyError, ValueError):
            pass
        self._answers_end = False

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Give what is asked in the block so many seconds at most, of what is left."""
        ends = self.ends
        self.ends = min(ends, time.monotonic() + seconds)
        try:
            yield
        finally:
            self.ends = ends

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Let the block ask more; if all of that succeeds, the probe speaks of what was asked before it."""
        seen = self.asked, self.status
        yield
        self.asked, self.status = seen

    def require_in_time(self) -> None:
        """Make sure that the last answer was there in time: an event loop that was held up notices late.

        Raises:
            httpx.ReadTimeout: It was not. Agents do not wait longer either.
        """
        if time.monotonic() > self.ends:
            raise httpx.ReadTimeout("the deadline has passed")

    def begin_anew(self) -> None:
        """Keep neither cookies nor connections, as another client does."""
        self._jars = {}
        self.hang_up()

    def hang_up(self) -> None:
        """Close the connections that are kept; call it at the end of a probe."""
        self._line.close()

    async def _sent(self, request: httpx.Request, home: httpx.URL, aside: bool) -> httpx.Response:
        self._equip(request, home)
        # A moment at least: the transport then says by itself what there was no time for.
        left = max(self.ends - time.monotonic(), 0.001)
        request.extensions = {
            **request.extensions,
            "timeout": dict.fromkeys(("connect", "read", "write", "pool"), left),
            "line": self._line,
        }
        response = await self._transport.handle_async_request(request)
        try:
            if response.has_redirect_location:
                await _read_redirect(response)
            self._note(request, response, aside)
        except BaseException:
            await response.aclose()
            raise
        return response

    def _equip(self, request: httpx.Request, home: httpx.URL) -> None:
        """Add cookies of this origin, and the credentials where the request goes where they belong."""
        request.headers.pop("cookie", None)
        if jar := self._jars.get(_origin(request.url)):
            try:
                jar.set_cookie_header(request)
            except UnicodeEncodeError as error:
                # The agents' client ends with it too.
                raise httpx.RemoteProtocolError("it set a cookie that is not ASCII", request=request) from error
        if self._credentials is None:
            return
        if request.url == home:
            request.headers[self._credentials.header] = self._credentials.value
        else:
            request.headers.pop(self._credentials.header, None)

    def _note(self, request: httpx.Request, response: httpx.Response, aside: bool) -> None:
        if "set-cookie" in response.headers:
            self._jars.setdefault(_origin(request.url), httpx.Cookies()).extract_cookies(response)
        if self.certificate_ends is None and request.url.scheme == "https":
            stream: Any = response.extensions.get("network_stream")
            connection = stream and stream.get_extra_info("ssl_object")
            if isinstance(connection, ssl.SSLObject):
                self.certificate_ends = certificate_end(connection)
        if aside:
            return
        self.status = response.status_code
        if "retry-after" in response.headers and response.status_code in (429, 503):
            self.retry_after = retry_after_seconds(response.headers["retry-after"], time.time())


def checked_url(text: str) -> httpx.URL:
    """Refuse what can't be asked; user name and password are taken out, they would be sent as credentials.

    Raises:
        httpx.InvalidURL: It can't.
    """
    try:
        url = parsed_url(text)
        host = url.host
    except UnicodeError as error:
        raise httpx.InvalidURL("its host is no name that DNS can have") from error
    if url.scheme not in ("http", "https") or not host:
        raise httpx.InvalidURL("it needs http:// or https:// and a host")
    if url.port is not None and not 0 < url.port < 65536:
        raise httpx.InvalidURL(f"{url.port} is no port")
    # A copy is parsed again, which costs as much as a tenth of the probe.
    return url.copy_with(userinfo=b"") if url.userinfo else url


def _origin(url: httpx.URL) -> _Origin:
    return url.scheme, url.host, url.port


async def _read_redirect(response: httpx.Response) -> None:
    """Let httpx say where a redirect leads, as it does for the agents' client; that is its `next_request`.

    Raises:
        httpx.RemoteProtocolError: To no address.
    """
    same = httpx.MockTransport(lambda _: httpx.Response(response.status_code, headers=response.headers.raw))
    async with httpx.AsyncClient(transport=same, trust_env=False) as client:
        try:
            response.next_request = (await client.send(response.request, stream=True)).next_request
        except UnicodeError as error:
            # A host whose name can't be read: httpx raises what its parser does.
            raise httpx.RemoteProtocolError("redirects to an address that is none") from error


def _next_on_origin(response: httpx.Response) -> httpx.Request | None:
    """The request that a redirect asks for, where it stays what it is: method, body, scheme, host and port.

    As the agents' client has it: from http to https on the default ports is the same place too.
    """
    following = response.next_request
    if following is None or response.status_code not in (307, 308):
        return None
    here, there = response.request.url, following.url
    upgraded = (here.scheme, here.port, there.scheme, there.port) == ("http", None, "https", None)
    if _origin(here) != _origin(there) and not (upgraded and here.host == there.host):
        return None
    if there.userinfo:
        return None
    return following
