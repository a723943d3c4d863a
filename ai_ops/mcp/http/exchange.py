"""HTTP with a server within a deadline, with redirects, cookies and credentials as in the agents' client."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import AsyncIterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from importlib import metadata
from typing import Any

import httpx

from ai_ops.mcp.http.connections import Answer, Line, LineTransport, Question
from ai_ops.mcp.http.failures import BodyError, parsed_url
from ai_ops.mcp.http.tls import certificate_end
from ai_ops.mcp.logic.credentials import Credentials
from ai_ops.mcp.logic.protocol import Message
from ai_ops.mcp.logic.verdicts import retry_after_seconds

VERSION = metadata.version("nautobot-app-ai-ops")

# The same number as in the agents' client.
MAX_REDIRECTS = 20

# As in the agents' client; the server's log shows them.
HEADERS = {
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "Connection": "keep-alive",
    "User-Agent": f"nautobot-app-ai-ops/{VERSION} health check",
}

# With these headers the server need not keep the connection.
LAST_REQUEST = {"Connection": "close"}

# Limits in seconds and bytes for reading the rest of an answer only to reuse its connection.
MOMENT_SECONDS = 0.05
MOMENT_PIECES = 8

# Statuses of redirects, and those that keep method and body.
REDIRECTS = frozenset({301, 302, 303, 307, 308})
SAME_AGAIN = frozenset({307, 308})

# As httpx writes JSON.
_written = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode

_Origin = tuple[str, str, int | None]


class Exchange:
    """The requests of one probe.

    Attributes:
        ends: The deadline for a request, on the monotonic clock.
        asked: The current request, for the sentence about it.
        status: Status code of its answer; None without an answer.
        redirected: Whether it was redirected, and so had no credentials.
        retry_after: Seconds for which the server asked for no request.
        certificate_ends: Expiry of the server's certificate.
    """

    def __init__(self, transport: LineTransport, credentials: Credentials | None, ends: float) -> None:
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

    def answer_to(
        self,
        method: str,
        url: str,
        *,
        message: Message | None = None,
        headers: Mapping[str, str] | None = None,
        aside: bool = False,
    ) -> _Asking:
        """Send a request and follow redirects on its origin; the caller reads the body.

        Args:
            method: HTTP method.
            url: The address.
            message: The body, sent as JSON.
            headers: Additional headers.
            aside: Whether the request is not the subject of the probe, so that its status does not matter.

        Returns:
            An asynchronous context manager that returns the answer, and raises httpx.HTTPError without an answer.

        Raises:
            httpx.InvalidURL: The URL is invalid.
        """
        return _Asking(self, _question(method, checked_url(url), message, headers or {}), aside)

    async def answer_after_redirects(self, question: Question, aside: bool) -> Answer:
        """Send a request; return the answer after the followed redirects."""
        if not aside:
            self.status, self.redirected = None, False
        home = question.url
        for more in range(MAX_REDIRECTS, -1, -1):
            answer = await self._sent(question, home, aside)
            following = _next_on_origin(answer) if more else None
            if following is None:
                break
            answer.close()
            question = Question.of(following)
            self.redirected = self.redirected or not aside
        return answer

    async def finish(self, rest: AsyncIterable[Any]) -> None:
        """Read the rest of a sufficient answer if it ends soon, so that its connection can be reused.

        If a server keeps such an answer open, this does not wait a second time.
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
        except (TimeoutError, httpx.HTTPError, BodyError, ValueError):
            pass
        self._answers_end = False

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Limit the requests in the block to this number of seconds of the remaining time."""
        ends = self.ends
        self.ends = min(ends, time.monotonic() + seconds)
        try:
            yield
        finally:
            self.ends = ends

    @contextmanager
    def further_requests(self) -> Iterator[None]:
        """Allow further requests in the block; if all succeed, the probe reports the request before them."""
        seen = self.asked, self.status
        yield
        self.asked, self.status = seen

    def require_in_time(self) -> None:
        """Raise an error if the last answer was late, because a blocked event loop notices this late.

        Raises:
            httpx.ReadTimeout: It was late. Agents do not wait longer either.
        """
        if time.monotonic() > self.ends:
            raise httpx.ReadTimeout("the deadline has passed")

    def begin_anew(self) -> None:
        """Drop cookies and connections, as a new client would."""
        self._jars = {}
        self.hang_up()

    def hang_up(self) -> None:
        """Close the kept connections; call this at the end of a probe."""
        self._line.close()

    async def _sent(self, question: Question, home: httpx.URL, aside: bool) -> Answer:
        answer = await self._transport.answer_to(self._equipped(question, home), self._line, self.ends)
        try:
            if answer.status in REDIRECTS and "location" in answer.headers:
                await _read_redirect(answer)
            self._note(answer, aside)
        except BaseException:
            answer.close()
            raise
        return answer

    def _equipped(self, question: Question, home: httpx.URL) -> Question:
        """Add the cookies of this origin, and the credentials if the request goes to their address."""
        jar = self._jars.get(_origin(question.url)) if self._jars else None
        credentials = self._credentials
        if not jar and not credentials and question.url is home:
            return question
        own = {"cookie", credentials.header.lower() if credentials else ""}
        headers = {name: value for name, value in question.headers.items() if name.lower() not in own}
        if jar:
            headers |= _cookies(jar, question.url)
        if credentials and question.url == home:
            headers[credentials.header] = credentials.value
        return dataclasses.replace(question, headers=headers)

    def _note(self, answer: Answer, aside: bool) -> None:
        if "set-cookie" in answer.headers:
            self._jars.setdefault(_origin(answer.question.url), httpx.Cookies()).extract_cookies(answer.as_httpx())
        if self.certificate_ends is None and (connection := answer.tls):
            self.certificate_ends = certificate_end(connection)
        if aside:
            return
        self.status = answer.status
        if answer.status in (429, 503) and "retry-after" in answer.headers:
            self.retry_after = retry_after_seconds(answer.headers["retry-after"], time.time())


class _Asking:
    """A request, from its sending until its answer is no longer needed."""

    def __init__(self, exchange: Exchange, question: Question, aside: bool) -> None:
        self._exchange = exchange
        self._question = question
        self._aside = aside

    async def __aenter__(self) -> Answer:
        self._answer = await self._exchange.answer_after_redirects(self._question, self._aside)
        return self._answer

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: object) -> None:
        try:
            if error is None and not self._answer.is_begun and not self._answer.is_over():
                await self._exchange.finish(self._answer)
        finally:
            self._answer.close()


def _question(method: str, url: httpx.URL, message: Message | None, headers: Mapping[str, str]) -> Question:
    head = {"Host": url.netloc.decode("ascii"), **HEADERS, **headers}
    if message is None:
        return Question(method, url, head)
    content = _written(message).encode()
    return Question(
        method, url, {**head, "Content-Length": str(len(content)), "Content-Type": "application/json"}, content
    )


def _cookies(jar: httpx.Cookies, url: httpx.URL) -> dict[str, str]:
    """Return the header with the cookies for this address, if there are any.

    Raises:
        httpx.RemoteProtocolError: A cookie is not ASCII.
    """
    request = httpx.Request("GET", url)
    try:
        jar.set_cookie_header(request)
    except UnicodeEncodeError as error:
        # The agents' client fails with this error too.
        raise httpx.RemoteProtocolError("it set a cookie that is not ASCII", request=request) from error
    cookies = request.headers.get("cookie")
    return {"Cookie": cookies} if cookies else {}


def checked_url(text: str) -> httpx.URL:
    """Validate a URL, and remove user name and password, which would be sent as credentials.

    Raises:
        httpx.InvalidURL: The URL is invalid.
    """
    try:
        url = parsed_url(text)
        host = url.host
    except UnicodeError as error:
        raise httpx.InvalidURL("its host is not a valid DNS name") from error
    if url.scheme not in ("http", "https") or not host:
        raise httpx.InvalidURL("it needs http:// or https:// and a host")
    if url.port is not None and not 0 < url.port < 65536:
        raise httpx.InvalidURL(f"{url.port} is not a port")
    # A copy would be parsed again, which takes a tenth of the time of the probe.
    return url.copy_with(userinfo=b"") if url.userinfo else url


def _origin(url: httpx.URL) -> _Origin:
    return url.scheme, url.host, url.port


async def _read_redirect(answer: Answer) -> None:
    """Let httpx compute the target of a redirect, its `next_request`, as in the agents' client.

    Raises:
        httpx.RemoteProtocolError: The target is not an address.
    """
    same = httpx.MockTransport(lambda _: answer.as_httpx())
    async with httpx.AsyncClient(transport=same, trust_env=False) as client:
        try:
            answer.next_request = (await client.send(answer.question.as_httpx(), stream=True)).next_request
        except UnicodeError as error:
            # An unreadable host name: httpx raises the error of its parser.
            raise httpx.RemoteProtocolError("redirects to an invalid address") from error


def _next_on_origin(answer: Answer) -> httpx.Request | None:
    """Return the request of a redirect if method, body, scheme, host and port stay the same.

    As in the agents' client, a change from http to https on the default ports is allowed too.
    """
    following = answer.next_request
    if following is None or answer.status not in SAME_AGAIN:
        return None
    here, there = answer.question.url, following.url
    upgraded = (here.scheme, here.port, there.scheme, there.port) == ("http", None, "https", None)
    if _origin(here) != _origin(there) and not (upgraded and here.host == there.host):
        return None
    if there.userinfo:
        return None
    return following
