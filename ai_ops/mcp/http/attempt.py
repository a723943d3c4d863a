"""A probe of an MCP server: by its health page, or by MCP as the agents' client does.

An unhealthy server must not block, flood or redirect its checker, and a probe must leave no state in a healthy server.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import httpx

from ai_ops.logic.limits import MAX_NAME_CHARACTERS
from ai_ops.mcp.http.body import beginning_of, body_of
from ai_ops.mcp.http.connections import LineTransport
from ai_ops.mcp.http.conversation import Conversation, Refused
from ai_ops.mcp.http.exchange import LAST_REQUEST, VERSION, Exchange
from ai_ops.mcp.http.failures import HOST_STATUSES, BodyError, Failure, Wording, explain, judge
from ai_ops.mcp.http.outcome import Outcome
from ai_ops.mcp.logic.credentials import Credentials
from ai_ops.mcp.logic.protocol import SSE_TYPE, Identity, Message, ProtocolViolation
from ai_ops.mcp.logic.verdicts import ProbeKind, Reason

# Part of the time reserved to end the session. A server whose answer never ends has opened a session, and would keep it
# for ever.
SHARE_FOR_LEAVING = 0.1

# Without any answer MCP would fail too, or there is no time left for it.
UNREACHED = frozenset({Reason.DNS, Reason.CONNECT, Reason.TLS, Reason.TIMEOUT, Reason.POLICY, Reason.CHECKER})


@dataclass(frozen=True)
class Target:
    """The target of a probe.

    Attributes:
        url: The full address of the server's health page.
        mcp_url: The full address of its MCP endpoint; not needed for ProbeKind.HTTP.
        kind: The kind of probe.
        verify_tls: Whether its certificate is verified.
        ca_file: Path of a PEM file with the CAs to trust; empty for the default CAs.
        credentials: The credentials to send.
    """

    url: str
    mcp_url: str = ""
    kind: ProbeKind = ProbeKind.HTTP
    verify_tls: bool = True
    ca_file: str = ""
    credentials: Credentials | None = field(default=None, repr=False)


class Attempt:
    """A running probe with its state and its deadline."""

    def __init__(self, transport: LineTransport, target: Target, started: float, timeout: float) -> None:
        self._target = target
        self._for_leaving = timeout * SHARE_FOR_LEAVING
        self._http = Exchange(transport, target.credentials, started + timeout)
        self._wording = Wording("health check path", "answers a GET with a 2xx status", target.credentials)
        self._identity: Identity | None = None
        self._started = started
        self._decided: float | None = None

    @property
    def latency_ms(self) -> float:
        """Return the milliseconds to the deciding answer, or to now; the end of the session does not count."""
        return round(((self._decided or time.monotonic()) - self._started) * 1000, 1)

    async def made(self) -> Outcome:
        """Make the kind of probe of the target."""
        if self._target.kind is ProbeKind.MCP:
            return await self._over_mcp()
        page = await self._outcome(self._get_health_page)
        if self._target.kind is ProbeKind.HTTP or _decides(page):
            return page
        happened = page.failure.happened if page.failure else ""
        outcome = await self._over_mcp(before=f"{page.asked} {happened}, and ")
        if outcome.failure and outcome.retry_after is None:
            outcome = dataclasses.replace(outcome, retry_after=page.retry_after)
        return outcome

    async def _over_mcp(self, before: str = "") -> Outcome:
        self._wording = Wording(
            "MCP endpoint", "answers according to MCP and within the limits", self._target.credentials
        )
        self._http.retry_after = None
        self._http.begin_anew()
        return await self._outcome(self._converse, before)

    async def _outcome(self, ask: Callable[[], Awaitable[str]], before: str = "") -> Outcome:
        """Make one kind of probe; expected errors are its failure, and other errors are raised."""
        http = self._http
        answered, failure = "", None
        try:
            answered = await ask()
        except Refused as refusal:
            failure = refusal.failure
        except (httpx.HTTPError, httpx.InvalidURL, BodyError, ProtocolViolation) as error:
            failure = explain(error, http.status, self._wording)
        finally:
            http.hang_up()
        return Outcome(
            before + http.asked, answered, failure, http.status, self._identity, http.retry_after, http.certificate_ends
        )

    # ----------------------------------------------------------------------------------------
    # The health page

    async def _get_health_page(self) -> str:
        """Request the health page; a 2xx status with a complete body is healthy."""
        http, target = self._http, self._target
        http.asked = f"GET {self._wording.shown(target.url) or '(no address)'}"
        async with http.answer_to("GET", target.url, headers=LAST_REQUEST) as answer:
            if not answer.is_success:
                body = await beginning_of(answer) if answer.status in HOST_STATUSES else b""
                raise Refused(judge(answer, self._wording, body, redirected=http.redirected))
            if target.kind is ProbeKind.AUTO and answer.content_type.startswith(SSE_TYPE):
                raise Refused(_event_stream(answer.status))
            async for _ in body_of(answer):
                pass
        http.require_in_time()
        return f"answered {http.status}"

    # ----------------------------------------------------------------------------------------
    # MCP

    async def _converse(self) -> str:
        """Do the handshake and list the tools, as agents do, and always end the session."""
        http = self._http
        talk = Conversation(http, self._target.mcp_url, self._wording, VERSION)
        http.ends -= self._for_leaving
        try:
            await talk.shake_hands()
            with http.further_requests():
                await self._use(talk)
                http.require_in_time()
        finally:
            self._decided = time.monotonic()
            http.ends += self._for_leaving
            self._identity = talk.identity and self._shown_identity(talk.identity)
            # The answer does not matter, so a server without one must not occupy a lane for the remaining time.
            with http.within(self._for_leaving):
                await talk.leave()
        identity = self._identity or Identity("")
        return f"answered {http.status} as {identity.name} {identity.version}, MCP {identity.protocol_version}"

    async def _use(self, talk: Conversation) -> None:
        """List the tools, because agents get nothing from a server whose list they can't read."""
        async for page in talk.tool_pages():
            self._keep(page)

    def _keep(self, page: Message) -> None:
        """Drop a page of tools, since a probe only checks that it is readable."""

    def _shown_identity(self, identity: Identity) -> Identity:
        """Return a server's own description in a form for tables."""
        version, name, own = (
            text and self._wording.clean(text)[:MAX_NAME_CHARACTERS]
            for text in (identity.protocol_version, identity.name, identity.version)
        )
        return Identity(version or "", name, own)


def _decides(page: Outcome) -> bool:
    """Return whether the health page decides. Its other answers say nothing about MCP."""
    if page.failure is None or page.failure.reason in UNREACHED:
        return True
    return page.status is not None and 500 <= page.status < 600


def _event_stream(status: int) -> Failure:
    return Failure(
        Reason.HTTP, f"answered {status} with an event stream", "set the health check path to one that ends its answer"
    )
