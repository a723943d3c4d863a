"""One probe of one MCP server: by its health page, or by MCP's own handshake.

No SDK: a server that is ill must not hang, flood or follow its checker, and what is left of a probe in a
server that is well must be nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata

import httpx

from ai_ops.adapters.http_body import body_of
from ai_ops.adapters.http_failures import BodyError, Failure, Wording, explain, judge
from ai_ops.adapters.probe_outcome import Outcome
from ai_ops.core.credentials import Credentials
from ai_ops.core.health import ProbeKind, Reason, retry_after_seconds
from ai_ops.core.mcp_protocol import (
    CLIENT_REVISIONS,
    JSON_TYPE,
    MAX_NAME_CHARACTERS,
    MAX_SSE_LINE_BYTES,
    SSE_TYPE,
    STATELESS_CODES,
    STATELESS_REVISION,
    UNSUPPORTED_PROTOCOL_VERSION,
    Identity,
    Message,
    ProtocolViolation,
    RpcError,
    SSEDecoder,
    answer_in,
    discover_request,
    discovered_identity,
    initialize_request,
    initialized_identity,
    initialized_notification,
)

# A missing slash and a proxy's path: what goes on longer is a loop.
MAX_REDIRECTS = 2

# Where there is no health page, an ordinary MCP server may be all the same: the SDKs' own have none.
NO_HEALTH_PAGE = frozenset({404, 405, 501})

# Kept of the time for taking leave: a server whose answer never ends still has opened a session, and would
# keep it for ever.
SHARE_FOR_LEAVING = 0.1

SESSION_HEADER = "Mcp-Session-Id"
VERSION_HEADER = "Mcp-Protocol-Version"
MAX_SESSION_CHARACTERS = 1024

VERSION = metadata.version("nautobot-app-ai-ops")


@dataclass(frozen=True)
class Target:
    """What to ask, and how.

    Attributes:
        url: The full address of the server's health page.
        mcp_url: The full address of its MCP endpoint; not needed for ProbeKind.HTTP.
        kind: How to ask.
        verify_tls: Whether its certificate is verified.
        ca_file: Path of a PEM file with the CAs to trust; empty for the usual ones.
        credentials: What to prove oneself with.
    """

    url: str
    mcp_url: str = ""
    kind: ProbeKind = ProbeKind.HTTP
    verify_tls: bool = True
    ca_file: str = ""
    credentials: Credentials | None = field(default=None, repr=False)


class Refused(Exception):
    """The server answered, and the answer is no good."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.happened)
        self.failure = failure


class Attempt:
    """One probe on its way: what it has seen so far, and the time by which it has to be done."""

    def __init__(self, client: httpx.Client, target: Target, started: float, timeout: float) -> None:
        self._client = client
        self._target = target
        self._ends = started + timeout
        self._for_leaving = timeout * SHARE_FOR_LEAVING
        self._wording = Wording("health check path", "answers a GET with a 2xx status", target.credentials)
        self._asked = ""
        self._status: int | None = None
        self._identity: Identity | None = None
        self._retry_after: float | None = None
        self._redirected = False
        self._received = 0
        self._event_limit = MAX_SSE_LINE_BYTES

    def made(self) -> Outcome:
        """Ask in the way the target says."""
        if self._target.kind is ProbeKind.MCP:
            return self._over_mcp()
        page = self._outcome(self._get_health_page)
        if self._target.kind is ProbeKind.AUTO and page.failure and page.status in NO_HEALTH_PAGE:
            return self._over_mcp(before=f"{page.asked} {page.failure.happened}, and ")
        return page

    def _over_mcp(self, before: str = "") -> Outcome:
        self._wording = Wording("MCP endpoint", "answers initialize as MCP says", self._target.credentials)
        return self._outcome(self._shake_hands, before)

    def _outcome(self, ask: Callable[[], str], before: str = "") -> Outcome:
        """Run one way of asking; what it raises is its failure, and anything else is a bug that shows."""
        answered, failure = "", None
        try:
            answered = ask()
        except Refused as refusal:
            failure = refusal.failure
        except (httpx.HTTPError, httpx.InvalidURL, BodyError, ProtocolViolation) as error:
            failure = explain(error, self._status, self._wording)
        return Outcome(before + self._asked, answered, failure, self._status, self._identity, self._retry_after)

    # ----------------------------------------------------------------------------------------
    # The health page

    def _get_health_page(self) -> str:
        """A 2xx status with a body that ends is healthy."""
        self._asked = f"GET {self._wording.shown(self._target.url) or '(no address)'}"
        with self._answer_to("GET", self._target.url) as response:
            self._require_success(response)
            for _ in body_of(response):
                pass
        return f"answered {self._status}"

    # ----------------------------------------------------------------------------------------
    # MCP

    def _shake_hands(self) -> str:
        """Say initialize as the agents' client does, and take leave of the session whatever came of it."""
        session: dict[str, str] = {}
        self._ends -= self._for_leaving
        try:
            with self._post(initialize_request(1, VERSION)) as response:
                session = _session(response)
                answer = self._read_answer(response, 1)
            if isinstance(answer, RpcError):
                raise self._refusal(answer)
            asked, status = self._asked, self._status
            identity = self._identity = self._shown_identity(initialized_identity(answer))
            if identity.protocol_version not in CLIENT_REVISIONS:
                raise Refused(_incompatible(f"MCP {identity.protocol_version}"))
            headers = session | {VERSION_HEADER: identity.protocol_version}
            with self._post(initialized_notification(), headers) as response:
                self._require_success(response)
            self._use_session(headers)
            self._asked, self._status = asked, status
        finally:
            self._ends += self._for_leaving
            if session:
                self._take_leave(session)
        return f"answered {status} as {identity.name} {identity.version}, MCP {identity.protocol_version}"

    def _use_session(self, headers: Mapping[str, str]) -> None:
        """What is to be done in the session, which these headers name. A probe has seen enough."""

    def _refusal(self, error: RpcError) -> Refused:
        """Find out whether a server that refuses the handshake is of the revision that has none."""
        refused = Failure(
            Reason.PROTOCOL,
            f"was answered with the JSON-RPC error {error.code} ({self._wording.clean(error.message)})",
            "look into the server's log, and check that the MCP endpoint is right",
        )
        if error.code not in STATELESS_CODES:
            return Refused(refused)
        asked, status = self._asked, self._status
        found = self._discovered()
        self._asked, self._status = asked, status
        if found is not None:
            self._identity = self._shown_identity(found)
            return Refused(_incompatible(f"MCP {self._identity.protocol_version}"))
        if error.code == UNSUPPORTED_PROTOCOL_VERSION:
            return Refused(
                _incompatible(f"none of MCP {', '.join(CLIENT_REVISIONS)}", "all of which the agents' client does")
            )
        return Refused(refused)

    def _discovered(self) -> Identity | None:
        """Who the server is by ``server/discover``; None if it does not answer that either."""
        headers = {VERSION_HEADER: STATELESS_REVISION, "Mcp-Method": "server/discover"}
        try:
            with self._post(discover_request(2, VERSION), headers) as response:
                answer = self._read_answer(response, 2)
            return None if isinstance(answer, RpcError) else discovered_identity(answer)
        except (ProtocolViolation, BodyError, Refused):
            return None

    def _take_leave(self, headers: Mapping[str, str]) -> None:
        """End the session. A server may refuse that (405), or be gone: neither says anything about its health."""
        seen = self._status, self._retry_after
        with (
            suppress(httpx.HTTPError, httpx.InvalidURL),
            self._answer_to("DELETE", self._target.mcp_url, headers=headers),
        ):
            pass
        self._status, self._retry_after = seen

    def _post(
        self, message: Message, headers: Mapping[str, str] | None = None
    ) -> AbstractContextManager[httpx.Response]:
        self._asked = f"POST {message['method']} to {self._wording.shown(self._target.mcp_url) or '(no address)'}"
        accept = {"Accept": f"{JSON_TYPE}, {SSE_TYPE}"}
        return self._answer_to("POST", self._target.mcp_url, message=message, headers=accept | dict(headers or {}))

    def _read_answer(self, response: httpx.Response, request_id: int) -> Message | RpcError:
        """Read until the answer to the request is there, and no further."""
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        body = self._counted(body_of(response))
        error = None if response.is_success or kind != JSON_TYPE else _stateless_error(body, request_id)
        if error is not None:
            return error
        self._require_success(response)
        if kind == SSE_TYPE:
            return _answer_among_events(body, request_id, self._event_limit)
        if kind != JSON_TYPE:
            raise ProtocolViolation(f"answered {response.status_code} with {kind or 'no content'} instead of JSON")
        answer = answer_in(b"".join(body), request_id)
        if answer is None:
            raise ProtocolViolation("did not answer with the id of the request")
        return answer

    def _counted(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._received += len(chunk)
            yield chunk

    def _shown_identity(self, identity: Identity) -> Identity:
        """A server's own words, fit for a table."""
        version, name, own = (
            text and self._wording.clean(text)[:MAX_NAME_CHARACTERS]
            for text in (identity.protocol_version, identity.name, identity.version)
        )
        return Identity(version or "", name, own)

    # ----------------------------------------------------------------------------------------
    # HTTP

    @contextmanager
    def _answer_to(
        self, method: str, url: str, *, message: Message | None = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[httpx.Response]:
        """Send a request, and again where it is redirected on its origin; the body is the caller's to read."""
        self._status, self._redirected = None, False
        request = self._client.build_request(method, _checked_url(url), json=message, headers=headers)
        if credentials := self._target.credentials:
            request.headers[credentials.header] = credentials.value
        for _ in range(MAX_REDIRECTS):
            with self._sent(request) as response:
                following = _next_on_origin(response)
                if following is None:
                    yield response
                    return
            request = following
            self._redirected = True
            if credentials:
                request.headers.pop(credentials.header, None)
        with self._sent(request) as response:
            yield response

    @contextmanager
    def _sent(self, request: httpx.Request) -> Iterator[httpx.Response]:
        # A moment at least: the transport then says by itself what there was no time for.
        left = max(self._ends - time.monotonic(), 0.001)
        request.extensions = {**request.extensions, "timeout": httpx.Timeout(left).as_dict()}
        response = self._client.send(request, stream=True, auth=None)
        try:
            self._status = response.status_code
            if "retry-after" in response.headers and response.status_code in (429, 503):
                self._retry_after = retry_after_seconds(response.headers["retry-after"], time.time())
            yield response
        finally:
            response.close()

    def _require_success(self, response: httpx.Response) -> None:
        failure = judge(response, self._wording, redirected=self._redirected)
        if failure:
            raise Refused(failure)


def _incompatible(speaks: str, client: str = "which the agents' client does not") -> Failure:
    return Failure(
        Reason.INCOMPATIBLE,
        f"was answered by a server that speaks {speaks}, {client}",
        f"have the server speak MCP {CLIENT_REVISIONS[0]} too, as most servers of a newer revision can",
    )


def _session(response: httpx.Response) -> dict[str, str]:
    """The header that ends the session, if the server opened one.

    Raises:
        ProtocolViolation: Its id has characters that could not be sent back.
    """
    session = response.headers.get(SESSION_HEADER)
    if not session:
        return {}
    if len(session) > MAX_SESSION_CHARACTERS or not session.isascii() or not session.isprintable():
        raise ProtocolViolation("opened a session whose id is too long or has characters that no header can carry")
    return {SESSION_HEADER: session}


def _checked_url(text: str) -> httpx.URL:
    """Refuse what can't be asked; user name and password are taken out, they would be sent as credentials."""
    url = httpx.URL(text)
    if url.scheme not in ("http", "https") or not url.host:
        raise httpx.InvalidURL("it needs http:// or https:// and a host")
    if url.port is not None and not 0 < url.port < 65536:
        raise httpx.InvalidURL(f"{url.port} is no port")
    # A copy is parsed again, which costs as much as a tenth of the probe.
    return url.copy_with(userinfo=b"") if url.userinfo else url


def _next_on_origin(response: httpx.Response) -> httpx.Request | None:
    """The request that a redirect asks for, where it stays what it is: method, body, scheme, host and port."""
    following = response.next_request
    if following is None or response.status_code not in (307, 308):
        return None
    here, there = response.request.url, following.url
    if (here.scheme, here.host, here.port) != (there.scheme, there.host, there.port):
        return None
    following.url = there.copy_with(userinfo=b"")
    return following


def _stateless_error(body: Iterator[bytes], request_id: int) -> RpcError | None:
    """The JSON-RPC error below an HTTP error, if it is one of the revision without a handshake."""
    try:
        answer = answer_in(b"".join(body), request_id)
    except (ProtocolViolation, BodyError):
        return None
    return answer if isinstance(answer, RpcError) and answer.code in STATELESS_CODES else None


def _answer_among_events(body: Iterator[bytes], request_id: int, limit: int) -> Message | RpcError:
    """The first event that answers the request; what a server tells before it is not asked for."""
    decoder = SSEDecoder(limit)
    for chunk in body:
        for data in decoder.feed(chunk):
            answer = answer_in(data, request_id)
            if answer is not None:
                return answer
    raise ProtocolViolation("ended its events without an answer to the request")
