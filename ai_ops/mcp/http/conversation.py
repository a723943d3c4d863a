"""MCP with a server over Streamable HTTP, as in the agents' client.

This is not that client, which waits for its whole time limit for missing answers, reads without bounds, and does not
report the fault. Both succeed and fail in the same cases; a test compares them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
from httpx_sse import ServerSentEvent, SSEError
from mcp.types import JSONRPCError, JSONRPCRequest, JSONRPCResponse

from ai_ops.mcp.http.answers import answer_of, initialized_identity, message_in, next_cursor, refusal_in, reply_to
from ai_ops.mcp.http.body import beginning_of, events_of, whole_body_of
from ai_ops.mcp.http.connections import EXTRA_SECONDS, Answer
from ai_ops.mcp.http.exchange import LAST_REQUEST, Exchange
from ai_ops.mcp.http.failures import BodyError, Failure, Wording, judge
from ai_ops.mcp.logic.protocol import (
    CLIENT_REVISIONS,
    JSON_TYPE,
    SSE_TYPE,
    STATELESS_CODES,
    STATELESS_REVISION,
    UNSUPPORTED_PROTOCOL_VERSION,
    Identity,
    Message,
    ProtocolViolation,
    RpcError,
    discover_request,
    discovered_identity,
    initialize_request,
    initialized_notification,
    tools_request,
)
from ai_ops.mcp.logic.tools import MAX_LIST_BYTES, MAX_PAGES
from ai_ops.mcp.logic.verdicts import Reason

SESSION_HEADER = "Mcp-Session-Id"
VERSION_HEADER = "Mcp-Protocol-Version"

# The agents' client gives up after this number of consecutive failed attempts to resume a stream, and waits this long
# before each unless the server sets another wait.
RESUMPTIONS = 2
RESUMPTION_SECONDS = 1.0
# A server may ask for a longer wait, which no probe has time for.
MAX_RETRY_MILLISECONDS = 86_400_000

# Statuses of a server that does not support Streamable HTTP, but may support the earlier transport.
NO_STREAMABLE_HTTP = frozenset({400, 404, 405, 406, 415, 501})

# The first ids are already used.
FIRST_LIST_ID = 10


# Limits of one stream. A server sends few events and fewer requests before it answers. They cost a probe more than they
# cost the server, and delay the probes of other servers.
MAX_EVENTS = 10_000
MAX_REPLIES = 100
# After this number of events, other probes continue.
EVENTS_AT_ONCE = 32


class Refused(Exception):
    """The server's answer is invalid or an error."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.happened)
        self.failure = failure


@dataclass
class _Resumption:
    """The position at which to resume a stream that ended early: the last event's id, and the wait before."""

    last_event_id: str = ""
    seconds: float = RESUMPTION_SECONDS

    def note(self, event: ServerSentEvent) -> None:
        self.last_event_id = event.id or self.last_event_id
        if event.retry is not None:
            # The number may be too large for a float.
            self.seconds = min(event.retry, MAX_RETRY_MILLISECONDS) / 1000


class _Replies:
    """Replies to a server's requests, sent while its events are read."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def send(self, reply: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start sending a reply.

        Raises:
            ProtocolViolation: There are too many replies.
        """
        if len(self._tasks) >= MAX_REPLIES:
            raise ProtocolViolation(f"sent more than {MAX_REPLIES} requests before its answer")
        self._tasks.append(asyncio.create_task(reply()))

    async def sent(self) -> None:
        """Wait until all are sent; raise their first error."""
        if self._tasks:
            await asyncio.gather(*self._tasks)

    async def drop(self) -> None:
        """Cancel the replies that are not sent yet."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)


class Conversation:
    """A session with a server: the handshake, the list of its tools, and the end of the session.

    Attributes:
        identity: The name, version and revision of the server, after the handshake.
    """

    def __init__(self, http: Exchange, url: str, wording: Wording, client_version: str) -> None:
        self._http = http
        self._url = url
        self._wording = wording
        self._shown_url = wording.shown(url) or "(no address)"
        self._client_version = client_version
        self._headers: dict[str, str] = {}
        self._received = 0
        self.identity: Identity | None = None

    async def shake_hands(self) -> None:
        """Send ``initialize``, and confirm its result.

        Raises:
            Refused, ProtocolViolation, BodyError, httpx.HTTPError, httpx.InvalidURL: The agents' client could not.
        """
        answer = await self._answer_to(initialize_request(1, self._client_version), opens_session=True)
        if isinstance(answer, RpcError):
            raise await self._refusal(answer)
        self.identity = identity = initialized_identity(answer)
        if identity.protocol_version not in CLIENT_REVISIONS:
            raise Refused(_incompatible(f"MCP {self._wording.clean(identity.protocol_version)}", identity))
        self._headers[VERSION_HEADER] = identity.protocol_version
        with self._http.further_requests():
            await self._notify(initialized_notification())

    async def tool_pages(self) -> AsyncIterator[Message]:
        """Yield the pages of its list of tools as the server sent them; raises the errors of `shake_hands`."""
        request_id, cursor = FIRST_LIST_ID, None
        seen: set[str] = set()
        while True:
            answer = await self._answer_to(tools_request(request_id, cursor))
            if isinstance(answer, RpcError):
                raise Refused(self._refused_to_list(answer))
            if self._received > MAX_LIST_BYTES:
                raise ProtocolViolation(f"sent a list longer than {MAX_LIST_BYTES // 1024:,} KiB")
            cursor = next_cursor(answer)
            yield answer
            if cursor is None:
                return
            if cursor in seen:
                raise ProtocolViolation("sent the same cursor again, so its list would never end")
            seen.add(cursor)
            if len(seen) >= MAX_PAGES:
                raise ProtocolViolation(f"sent a list of more than {MAX_PAGES} pages")
            request_id += 1

    async def leave(self) -> None:
        """End the session. A server may refuse this (405) or be down, which says nothing about its health."""
        if SESSION_HEADER not in self._headers:
            return
        headers = self._headers | LAST_REQUEST
        with suppress(httpx.HTTPError, httpx.InvalidURL):
            async with self._http.answer_to("DELETE", self._url, headers=headers, aside=True):
                pass

    # ----------------------------------------------------------------------------------------
    # Requests

    def _ask(self, message: Message) -> None:
        self._http.asked = f"POST {message['method']} to {self._shown_url}"

    async def _answer_to(self, request: Message, *, opens_session: bool = False) -> Message | RpcError:
        """Send a request and read its answer, but no further."""
        self._ask(request)
        headers = {"Accept": f"{JSON_TYPE}, {SSE_TYPE}", **self._headers}
        resumption = _Resumption()
        async with self._http.answer_to("POST", self._url, message=request, headers=headers) as response:
            if not response.is_success:
                return await self._refused_with(response, opens_session)
            if opens_session and (session := response.headers.get(SESSION_HEADER.lower())):
                self._headers[SESSION_HEADER] = _session(session)
            if response.status == 202 and SESSION_HEADER in self._headers and not opens_session:
                return await self._answer_on_stream(request)
            kind = response.headers.get("content-type", "")
            if kind.lower().startswith(JSON_TYPE):
                return await self._answer_in_body(response, request["id"])
            if not kind.lower().startswith(SSE_TYPE):
                shown = kind.partition(";")[0].strip() or "no content"
                raise ProtocolViolation(f"answered {response.status} with {shown} instead of JSON")
            answer = await self._answer_among_events(response, request["id"], resumption)
        return await self._resumed(request["id"], resumption) if answer is None else answer

    async def _answer_on_stream(self, request: Message) -> Message | RpcError:
        """Repeat a request with the stream of the session open, on which a server may answer accepted requests.

        The agents' client opens the stream at the start.
        """
        again = request | {"id": request["id"] + MAX_PAGES}
        headers = {"Accept": SSE_TYPE, "Cache-Control": "no-store", **self._headers}
        async with self._http.answer_to("GET", self._url, headers=headers) as response:
            if not response.is_success or not response.content_type.startswith(SSE_TYPE):
                raise ProtocolViolation("answered 202 with no content instead of JSON")
            asked = asyncio.create_task(self._notify(again, aside=True))
            try:
                async with aclosing(events_of(response)) as events:
                    async for event in _bounded(events):
                        self._received += len(event.data)
                        for message in (request, again):
                            if (answer := _answer_to_one_of_ours(event, message["id"])) is not None:
                                return answer
            finally:
                asked.cancel()
                await asyncio.gather(asked, return_exceptions=True)
        raise ProtocolViolation("ended the stream of the session without an answer to the request")

    async def _answer_in_body(self, response: Answer, request_id: int) -> Message | RpcError:
        body = await whole_body_of(response)
        self._received += len(body)
        answer = answer_of(message_in(body), request_id)
        if answer is None:
            raise ProtocolViolation("did not answer with the id of the request")
        return answer

    async def _notify(self, message: Message, *, aside: bool = False) -> None:
        """Send a message without an answer."""
        if not aside:
            self._ask(message)
        headers = {"Accept": f"{JSON_TYPE}, {SSE_TYPE}", **self._headers}
        async with self._http.answer_to("POST", self._url, message=message, headers=headers, aside=aside) as response:
            # The agents' client treats a 404 as no answer, as expected here.
            if not response.is_success and response.status != 404:
                body = await beginning_of(response)
                raise Refused(judge(response, self._wording, body, redirected=self._http.redirected))

    # ----------------------------------------------------------------------------------------
    # Events

    async def _answer_among_events(
        self, response: Answer, request_id: int, resumption: _Resumption, *, resumed: bool = False
    ) -> Message | RpcError | None:
        """Return the first event that answers; None if the stream ends before it, and can be resumed.

        Requests of the server in between are answered while the stream continues.
        """
        replies = _Replies()
        try:
            async with aclosing(events_of(response)) as events:
                async for event in _bounded(events):
                    resumption.note(event)
                    self._received += len(event.data)
                    answer = self._answer_in_event(event, request_id, replies, resumed=resumed)
                    if answer is not None:
                        await replies.sent()
                        if not response.is_over():
                            await self._http.finish(events)
                        return answer
            await replies.sent()
        except (httpx.NetworkError, httpx.RemoteProtocolError):
            # As an end, because a proxy has cut it.
            if not resumption.last_event_id:
                raise
        finally:
            await replies.drop()
        if not resumption.last_event_id:
            raise ProtocolViolation("ended its events without an answer to the request")
        return None

    def _answer_in_event(
        self, event: ServerSentEvent, request_id: int, replies: _Replies, *, resumed: bool
    ) -> Message | RpcError | None:
        """Return the answer in an event; None for an unreadable event, or one that answers none of our requests."""
        if event.event != "message" or not event.data:
            return None
        try:
            received = message_in(event.data)
        except ProtocolViolation:
            return None
        if isinstance(received, JSONRPCRequest):
            replies.send(partial(self._notify, reply_to(received), aside=True))
        if not isinstance(received, JSONRPCResponse | JSONRPCError):
            return None
        if resumed:
            # On a request's own stream it can't answer another request.
            received.id = request_id
        answer = answer_of(received, request_id)
        if answer is None:
            # The agents' client stops reading, and waits until its time limit.
            raise ProtocolViolation("did not answer with the id of the request")
        return answer

    async def _resumed(self, request_id: int, resumption: _Resumption) -> Message | RpcError:
        """Resume a stream that the server has closed, as often as needed within the deadline."""
        failed = 0
        while failed < RESUMPTIONS:
            await self._wait(resumption.seconds)
            if not resumption.last_event_id.isascii():
                raise ProtocolViolation("sent an event with an id that no header can contain")
            headers = {"Accept": SSE_TYPE, "Cache-Control": "no-store", **self._headers}
            headers["Last-Event-ID"] = resumption.last_event_id
            try:
                async with self._http.answer_to("GET", self._url, headers=headers) as response:
                    if response.is_success:
                        failed = 0
                        answer = await self._answer_among_events(response, request_id, resumption, resumed=True)
                        if answer is not None:
                            return answer
                        continue
            except (httpx.NetworkError, httpx.RemoteProtocolError, SSEError):
                pass
            failed += 1
        raise ProtocolViolation("ended its events without an answer to the request, and did not let them be resumed")

    async def _wait(self, seconds: float) -> None:
        left = self._http.ends - time.monotonic()
        await asyncio.sleep(max(0.0, min(seconds, left)))
        if seconds >= left:
            raise httpx.ReadTimeout("the deadline has passed before the stream could be resumed")

    # ----------------------------------------------------------------------------------------
    # Refusals

    async def _refused_with(self, response: Answer, opens_session: bool) -> RpcError:
        """Explain an HTTP error, as a JSON-RPC error if a server of the newer revision sent one.

        Raises:
            Refused: With the explanation.
        """
        body = await beginning_of(response)
        error = refusal_in(body)
        if error is not None and error.code in STATELESS_CODES:
            return error
        if opens_session and response.status in NO_STREAMABLE_HTTP and await self._speaks_only_sse():
            raise Refused(_only_sse())
        raise Refused(judge(response, self._wording, body, redirected=self._http.redirected))

    async def _refusal(self, error: RpcError) -> Refused:
        """Return the refusal of a handshake; ask whether the server has the revision without a handshake."""
        refused = Failure(
            Reason.PROTOCOL,
            f"was answered with the JSON-RPC error {error.code} ({self._wording.clean(error.message)})",
            "check the server's log and the MCP endpoint",
        )
        if error.code not in STATELESS_CODES:
            return Refused(refused)
        found = await self._discovered()
        if found is not None:
            self.identity = found
            return Refused(_incompatible(f"MCP {self._wording.clean(found.protocol_version)}", found))
        if error.code == UNSUPPORTED_PROTOCOL_VERSION:
            return Refused(
                Failure(
                    Reason.INCOMPATIBLE,
                    f"was answered by a server that speaks none of MCP {', '.join(CLIENT_REVISIONS)}, the revisions of "
                    "the agents' client",
                    _NEWER,
                )
            )
        return Refused(refused)

    async def _discovered(self) -> Identity | None:
        """Return the server's identity by ``server/discover``; None if it does not answer this either."""
        headers = {
            "Accept": f"{JSON_TYPE}, {SSE_TYPE}",
            VERSION_HEADER: STATELESS_REVISION,
            "Mcp-Method": "server/discover",
        }
        request = discover_request(2, self._client_version)
        try:
            async with self._http.answer_to(
                "POST", self._url, message=request, headers=headers, aside=True
            ) as response:
                if not response.is_success:
                    return None
                if response.content_type.startswith(SSE_TYPE):
                    answer = await self._answer_among_events(response, 2, _Resumption())
                else:
                    answer = answer_of(message_in(await whole_body_of(response)), 2)
            return discovered_identity(answer) if isinstance(answer, dict) else None
        except (httpx.HTTPError, ProtocolViolation, BodyError, Refused):
            return None

    async def _speaks_only_sse(self) -> bool:
        """Return whether the endpoint has the older transport, which answers a GET with an address to post to."""
        headers: Mapping[str, str] = {"Accept": SSE_TYPE}
        for url in dict.fromkeys((self._url, str(httpx.URL(self._url).join("sse")))):
            with self._http.within(EXTRA_SECONDS):
                try:
                    async with self._http.answer_to("GET", url, headers=headers, aside=True) as response:
                        if response.is_success and await _begins_with_endpoint(response):
                            return True
                except (httpx.HTTPError, httpx.InvalidURL, BodyError):
                    continue
        return False

    def _refused_to_list(self, error: RpcError) -> Failure:
        return Failure(
            Reason.PROTOCOL,
            f"was answered with the JSON-RPC error {error.code} ({self._wording.clean(error.message)})",
            "agents can't list its tools either, so check the server's log, or correct the MCP endpoint",
        )


async def _bounded(events: AsyncIterator[ServerSentEvent]) -> AsyncIterator[ServerSentEvent]:
    number = 0
    async for event in events:
        number += 1
        if number > MAX_EVENTS:
            raise ProtocolViolation(f"sent more than {MAX_EVENTS:,} events without an answer to the request")
        if not number % EVENTS_AT_ONCE:
            await asyncio.sleep(0)
        yield event


def _answer_to_one_of_ours(event: ServerSentEvent, request_id: int) -> Message | RpcError | None:
    """Return the answer of an event to that request; None for another event."""
    with suppress(ProtocolViolation):
        return answer_of(message_in(event.data), request_id) if event.data else None
    return None


async def _begins_with_endpoint(response: Answer) -> bool:
    if not response.content_type.startswith(SSE_TYPE):
        return False
    async with aclosing(events_of(response)) as events:
        async for event in events:
            return event.event == "endpoint"
    return False


def _session(session: str) -> str:
    """Return the id of a session, which is sent back in a header.

    Raises:
        ProtocolViolation: It has characters that no header can contain. Except for non-ASCII characters, such an id
            can't have come in a header.
    """
    if not session.isascii():
        raise ProtocolViolation("opened a session with an id that no header can contain")
    return session


_NEWER = f"let the server speak MCP {CLIENT_REVISIONS[0]} too, as most servers of a newer revision can"


def _incompatible(speaks: str, identity: Identity) -> Failure:
    newer = identity.protocol_version > CLIENT_REVISIONS[-1]
    older = f"update the server, whose revision is older than MCP {CLIENT_REVISIONS[-1]}, the oldest that agents speak"
    return Failure(
        Reason.INCOMPATIBLE,
        f"was answered by a server that speaks {speaks}, which the agents' client does not support",
        _NEWER if newer else older,
    )


def _only_sse() -> Failure:
    return Failure(
        Reason.INCOMPATIBLE,
        "found a server that speaks only the transport HTTP+SSE of MCP 2024-11-05, which the agents' client does not "
        "support",
        "let the server use Streamable HTTP, or put a gateway in front of it that does",
    )
