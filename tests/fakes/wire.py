"""Answers of MCP servers, byte by byte: a row for each way of being well or ill, served at a path of its own.

A row overrides what a well server answers to a method, of JSON-RPC or of HTTP. Asked at ``/{who}/{row}``, so that what
a row remembers of one client does not reach the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import re
import socket
import zlib
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import zstandard

from tests.fakes.threaded import listening

Message = dict[str, Any]


@dataclass
class Call:
    """One request, and what the row remembers of this client."""

    path: str
    verb: str
    headers: dict[str, str]
    message: Message | None
    writer: asyncio.StreamWriter
    memo: dict[str, Any] = field(repr=False)

    @property
    def request_id(self) -> Any:
        return (self.message or {}).get("id")


Reply = bytes | Callable[[Call], bytes | Awaitable[bytes]]
WELL: Message = {
    "protocolVersion": "2025-06-18",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "wire", "version": "1"},
}
TOOL: Message = {"name": "lookup", "description": "Look up.", "inputSchema": {"type": "object", "properties": {}}}


def raw(status: int, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} -", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def text(content: bytes, *headers: str, kind: str = "application/json") -> bytes:
    return raw(200, content, f"Content-Type: {kind}", *headers)


KEPT = b"Connection: keep-alive"
# White space is no part of JSON, so that it can be a sign to the server.
HUNG_UP = b"\n\n\n"


def kept(call: Call, end: bytes = b"", more: bytes = b"") -> bytes:
    """The answers of a well server, on a connection that can be used again."""
    head, _, content = _well(call).partition(b"\r\n\r\n")
    length = f"Content-Length: {len(content + end)}".encode()
    head = re.sub(rb"Content-Length: \d+", length, head.replace(b"Connection: close", KEPT))
    return head + b"\r\n\r\n" + content + end + more


async def kept_events(call: Call, ends: bool = True) -> bytes:
    """The same as events in chunks, after which the stream ends or stays open."""
    if call.message is None or "id" not in call.message:
        return kept(call)
    message = json.loads(_well(call).partition(b"\r\n\r\n")[2])
    chunk = event(message)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n" + KEPT
    sent = head + f"\r\n\r\n{len(chunk):x}\r\n".encode() + chunk + b"\r\n"
    if ends:
        return sent + b"0\r\n\r\n"
    call.writer.write(sent)
    await call.writer.drain()
    return await hangs(call)


def all_of(reply: Reply) -> dict[str, Reply]:
    """This for whatever is asked."""
    return dict.fromkeys(("initialize", "notifications/initialized", "tools/list", "DELETE"), reply)


def answer(result: Any, request_id: Any, **more: Any) -> Message:
    return {"jsonrpc": "2.0", "id": request_id, "result": result, **more}


def error(request_id: Any, code: int = -32603) -> Message:
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": "no"}}


def event(message: Any, *lines: str, end: str = "\n") -> bytes:
    data = message if isinstance(message, str) else json.dumps(message)
    return (end.join([*lines, f"data: {data}"]) + end * 2).encode()


def stream(*events: bytes, kind: str = "text/event-stream", headers: str = "") -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n{headers}\r\n"
    return head.encode() + b"".join(events)


def result(content: Any, *headers: str, **more: Any) -> Reply:
    """JSON with this result."""
    return lambda call: text(json.dumps(answer(content, call.request_id, **more)).encode(), *headers)


def body(make: Callable[[Any], Any], *headers: str, kind: str = "application/json") -> Reply:
    """JSON made from the id of the request; bytes as they are."""

    def reply(call: Call) -> bytes:
        made = make(call.request_id)
        return text(made if isinstance(made, bytes) else json.dumps(made).encode(), *headers, kind=kind)

    return reply


def streamed(make: Callable[[Any], list[bytes]], **options: Any) -> Reply:
    """Events made from the id of the request."""
    return lambda call: stream(*make(call.request_id), **options)


def init(**changes: Any) -> Message:
    """A well result of initialize with other values; without those that are None."""
    return {key: value for key, value in {**WELL, **changes}.items() if value is not ...}


def tools(*listed: Any, **more: Any) -> Reply:
    return result({"tools": list(listed), **more})


def redirect(*steps: str, status: int = 307) -> Reply:
    """Through these queries of the same path, and to a well answer."""

    def reply(call: Call) -> bytes:
        step = int(call.headers.get("query", "") or 0)
        if step < len(steps):
            return raw(status, b"", f"Location: {steps[step].format(path=call.path, next=step + 1)}")
        return _well(call)

    return reply


async def hangs(call: Call) -> bytes:
    await asyncio.sleep(3600)
    return b""


async def asks_first(call: Call, method: str = "ping", check: str = "result") -> bytes:
    """Answer initialize only when a request of the server's own was answered."""
    answered = call.memo.setdefault("answered", asyncio.Event())
    call.writer.write(stream(event({"jsonrpc": "2.0", "id": "from-server", "method": method})))
    await call.writer.drain()
    await answered.wait()
    if check not in call.memo["reply"]:
        return event(error(call.request_id))
    return event(answer(WELL, call.request_id))


async def takes_reply(call: Call) -> bytes:
    call.memo["reply"] = call.message
    call.memo["answered"].set()
    return raw(202)


def primed(retry: int | None = 10, resumes: bool = True, name: str = "e1") -> dict[str, Reply]:
    """A stream that begins with an id, ends, and goes on at GET."""

    def begin(call: Call) -> bytes:
        call.memo["id"] = call.request_id
        lines = [f"retry: {retry}"] if retry is not None else []
        return stream(("\n".join([*lines, f"id: {name}", "data: "]) + "\n\n").encode())

    def go_on(call: Call) -> bytes:
        if not resumes or call.headers.get("last-event-id") != name:
            return raw(405)
        return stream(event(answer(WELL, call.memo["id"]), "id: e2"))

    return {"initialize": begin, "GET": go_on}


def sticky(call: Call) -> bytes:
    """A load balancer whose other server knows nothing of the session."""
    if call.message and call.message.get("method") == "initialize":
        return text(
            json.dumps(answer(WELL, call.request_id)).encode(), "Set-Cookie: lb=one; Path=/", "Mcp-Session-Id: s"
        )
    if "lb=one" not in call.headers.get("cookie", ""):
        return raw(400)
    return _well(call)


def written(head: str, content: Callable[[bytes], bytes] = bytes) -> Reply:
    """A well answer under a head of its own, with its body as `content` writes it."""

    def reply(call: Call) -> bytes:
        sent = content(_well(call).partition(b"\r\n\r\n")[2])
        lines = head.format(length=len(sent)) + "Content-Type: application/json\r\nConnection: close\r\n\r\n"
        return lines.encode("latin-1") + sent

    return reply


def chunks(sent: bytes, extension: str = "", end: str = "", size: str = "x") -> bytes:
    return f"{len(sent):{size}}{extension}\r\n".encode() + sent + f"\r\n0\r\n{end}\r\n".encode()


CHUNKED = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"


def needs_session(call: Call, session: str = "s" * 1500) -> bytes:
    """A session with this id, which later requests must have."""
    if call.message and call.message.get("method") == "initialize":
        return text(json.dumps(answer(WELL, call.request_id)).encode(), f"Mcp-Session-Id: {session}")
    return _well(call) if call.headers.get("mcp-session-id") == session else raw(400)


def nested(levels: int) -> Message:
    schema: Message = {"type": "object"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return {**TOOL, "inputSchema": schema}


def pages(call: Call, before: str = "") -> bytes:
    cursor = ((call.message or {}).get("params") or {}).get("cursor", "0")
    number = int(cursor.lstrip("x"))
    more = {"nextCursor": f"{before}{number + 1}"} if number < 2 else {}
    content = {"tools": [{**TOOL, "name": f"tool_{number}"}], **more}
    return text(json.dumps(answer(content, call.request_id)).encode())


def answers_at_get(make: Callable[[Any], Message] | None = None) -> dict[str, Reply]:
    """A server that accepts the request for its tools, and answers it on the stream at GET."""

    def asked(call: Call) -> asyncio.Queue[Any]:
        return call.memo.setdefault("asked", asyncio.Queue())

    def accept(call: Call) -> bytes:
        asked(call).put_nowait(call.request_id)
        return raw(202)

    async def tell(call: Call) -> bytes:
        call.writer.write(stream(event(NOTICE)))
        await call.writer.drain()
        request_id = await asked(call).get()
        return event(make(request_id) if make else answer({"tools": [TOOL]}, request_id))

    return {"tools/list": accept, "GET": tell}


NOTICE = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "hello"}}
_ODD = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "no such level", "data": 1}}


def packed(pack: Callable[[bytes], bytes], coding: str) -> Reply:
    return lambda call: text(pack(json.dumps(answer(WELL, call.request_id)).encode()), f"Content-Encoding: {coding}")


def _bare_deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


# By name: whether agents can use it, and what is other than at a well server.
ROWS: dict[str, tuple[bool, dict[str, Reply]]] = {
    # Answers to initialize that are well
    "plain": (True, {}),
    "events": (True, {"initialize": streamed(lambda n: [event(answer(WELL, n))])}),
    "events-with-names": (True, {"initialize": streamed(lambda n: [event(answer(WELL, n), "event: message")])}),
    "events-with-crlf": (
        True,
        {"initialize": streamed(lambda n: [b": hi\r\n\r\n", event(answer(WELL, n), end="\r\n")])},
    ),
    "events-with-cr": (True, {"initialize": streamed(lambda n: [event(answer(WELL, n), end="\r"), b": more\n\n"])}),
    "notice-first": (True, {"initialize": streamed(lambda n: [event(NOTICE), event(answer(WELL, n))])}),
    "odd-notice-first": (True, {"initialize": streamed(lambda n: [event(_ODD), event(answer(WELL, n))])}),
    "junk-event-first": (True, {"initialize": streamed(lambda n: [event("{"), event(answer(WELL, n))])}),
    "other-event-first": (
        True,
        {"initialize": streamed(lambda n: [event("x", "event: ping"), event(answer(WELL, n))])},
    ),
    "empty-event-first": (True, {"initialize": streamed(lambda n: [b"data:\n\n", event(answer(WELL, n))])}),
    "batch-event-first": (True, {"initialize": streamed(lambda n: [event([NOTICE]), event(answer(WELL, n))])}),
    "id-as-text": (True, {"initialize": lambda call: text(json.dumps(answer(WELL, str(call.request_id))).encode())}),
    "id-as-text-in-event": (True, {"initialize": streamed(lambda n: [event(answer(WELL, f" {n} "))])}),
    "long-event": (True, {"initialize": streamed(lambda n: [event(answer(init(instructions="x" * 70_000), n))])}),
    "long-body": (True, {"initialize": result(init(instructions="x" * 200_000))}),
    "long-session": (True, all_of(needs_session)),
    "session-with-a-control": (True, all_of(lambda call: needs_session(call, "a\x01b"))),
    "session-with-a-tab": (True, all_of(lambda call: needs_session(call, "a\tb"))),
    "two-content-types": (True, {"initialize": result(WELL, "Content-Type: application/json")}),
    "two-content-types-of-events": (
        True,
        {"initialize": streamed(lambda n: [event(answer(WELL, n))], headers="Content-Type: text/event-stream\r\n")},
    ),
    "content-type-in-capitals": (
        True,
        {"initialize": body(lambda n: answer(WELL, n), kind="Application/JSON; Charset=UTF-8")},
    ),
    "content-type-that-begins-so": (True, {"initialize": body(lambda n: answer(WELL, n), kind="application/json-rpc")}),
    "one-redirect": (True, {"initialize": redirect("{path}?{next}")}),
    "one-redirect-308": (True, {"initialize": redirect("{path}?{next}", status=308)}),
    "three-redirects": (True, {"initialize": redirect(*["{path}?{next}"] * 3)}),
    "six-redirects": (True, {"initialize": redirect(*["{path}?{next}"] * 6)}),
    "list-redirected": (True, {"tools/list": redirect("{path}?{next}")}),
    "ping-first": (True, {"initialize": asks_first, "reply": takes_reply}),
    "roots-first": (True, {"initialize": lambda call: asks_first(call, "roots/list", "error"), "reply": takes_reply}),
    "unknown-request-first": (
        True,
        {"initialize": lambda call: asks_first(call, "no/such", "error"), "reply": takes_reply},
    ),
    "resumed": (True, primed()),
    "resumed-after-a-second": (True, primed(retry=None)),
    "sticky-cookie": (True, all_of(sticky)),
    "cookie-not-ascii": (False, {"initialize": result(WELL, "Set-Cookie: caf\xe9=\xe9; Path=/", "Mcp-Session-Id: s")}),
    "gzip": (True, {"initialize": packed(gzip.compress, "gzip")}),
    "deflate": (True, {"initialize": packed(zlib.compress, "deflate")}),
    "bare-deflate": (True, {"initialize": packed(_bare_deflate, "deflate")}),
    "twice-packed": (True, {"initialize": packed(lambda data: gzip.compress(zlib.compress(data)), "deflate, gzip")}),
    "gzip-and-more": (True, {"initialize": packed(lambda data: gzip.compress(data) + b"rest", "gzip")}),
    "zstd": (True, {"initialize": packed(zstandard.compress, "zstd")}),
    "zstd-in-two-frames": (
        True,
        {"initialize": packed(lambda d: zstandard.compress(d[:9]) + zstandard.compress(d[9:]), "zstd")},
    ),
    "zstd-in-gzip": (False, {"initialize": packed(lambda data: gzip.compress(zstandard.compress(data)), "zstd, gzip")}),
    "events-in-zstd-in-gzip": (
        True,
        {
            "initialize": lambda call: stream(
                gzip.compress(zstandard.compress(event(answer(WELL, call.request_id)))),
                headers="Content-Encoding: zstd, gzip\r\n",
            )
        },
    ),
    "packed-a-thousand-times": (False, {"initialize": packed(gzip.compress, ", ".join(["gzip"] * 1000))}),
    "bare-a-thousand-times": (True, {"initialize": packed(bytes, ", ".join(["identity"] * 1000))}),
    "x-gzip": (False, {"initialize": packed(gzip.compress, "x-gzip")}),
    "gzip-called-deflate": (False, {"initialize": packed(gzip.compress, "deflate")}),
    "deflate-called-gzip": (False, {"initialize": packed(zlib.compress, "gzip")}),
    "unknown-coding": (True, {"initialize": packed(lambda data: data, "no-such-coding")}),
    "unknown-members": (True, {"initialize": result(init(more=[1]), "X-More: 1", extra=True)}),
    "no-capabilities-named": (True, {"initialize": result(init(capabilities={}))}),
    "oldest-revision": (True, {"initialize": result(init(protocolVersion="2024-11-05"))}),
    "instructions-null": (True, {"initialize": result(init(instructions=None))}),
    "space-around": (True, {"initialize": body(lambda n: b"\n " + json.dumps(answer(WELL, n)).encode() + b"\n")}),
    "not-a-number": (True, {"initialize": body(lambda n: answer(init(_meta={"a": float("nan")}), n))}),
    # Connections that are kept
    "kept": (True, all_of(kept)),
    "kept-in-words-only": (True, all_of(lambda call: kept(call, HUNG_UP))),
    "kept-events": (True, all_of(kept_events)),
    "kept-events-that-stay-open": (True, all_of(lambda call: kept_events(call, ends=False))),
    "kept-and-more-sent": (False, all_of(lambda call: kept(call, more=b"more"))),
    # Answers on the stream of the session
    "answers-at-get": (True, answers_at_get()),
    "answers-at-get-with-an-error": (False, answers_at_get(lambda n: error(n))),
    "answers-nowhere": (False, {"tools/list": raw(202)}),
    # Notifications and the end of a session
    "notification-200": (True, {"notifications/initialized": raw(200, b"ok")}),
    "notification-204": (True, {"notifications/initialized": raw(204)}),
    "notification-404": (True, {"notifications/initialized": raw(404)}),
    "notification-400": (False, {"notifications/initialized": raw(400)}),
    "notification-500": (False, {"notifications/initialized": raw(500)}),
    "notification-redirected-away": (
        False,
        {"notifications/initialized": raw(307, b"", "Location: http://127.0.0.1:1/")},
    ),
    "notification-cut": (False, {"notifications/initialized": b""}),
    "delete-405": (True, {"DELETE": raw(405)}),
    "delete-500": (True, {"DELETE": raw(500)}),
    "delete-cut": (True, {"DELETE": b""}),
    "delete-hangs": (True, {"DELETE": hangs}),
    # Answers to initialize that no agent can use
    "batch": (False, {"initialize": body(lambda n: [answer(WELL, n)])}),
    "batch-event": (False, {"initialize": streamed(lambda n: [event([answer(WELL, n)])])}),
    "capabilities-tools-a-list": (False, {"initialize": result(init(capabilities={"tools": []}))}),
    "capabilities-a-list": (False, {"initialize": result(init(capabilities=[]))}),
    "capabilities-missing": (False, {"initialize": result(init(capabilities=...))}),
    "instructions-a-number": (False, {"initialize": result(init(instructions=7))}),
    "instructions-a-list": (False, {"initialize": result(init(instructions=["a"]))}),
    "revision-missing": (False, {"initialize": result(init(protocolVersion=...))}),
    "revision-of-the-future": (False, {"initialize": result(init(protocolVersion="2031-01-01"))}),
    "revision-too-old": (False, {"initialize": result(init(protocolVersion="2024-10-07"))}),
    "revision-a-number": (False, {"initialize": result(init(protocolVersion=20250618))}),
    "server-without-version": (False, {"initialize": result(init(serverInfo={"name": "x"}))}),
    "server-a-text": (False, {"initialize": result(init(serverInfo="x"))}),
    "result-a-list": (False, {"initialize": result([])}),
    "result-missing": (False, {"initialize": body(lambda n: {"jsonrpc": "2.0", "id": n})}),
    "wrong-id": (False, {"initialize": body(lambda n: answer(WELL, 77))}),
    "wrong-id-in-event": (False, {"initialize": streamed(lambda n: [event(answer(WELL, 77)), event(answer(WELL, n))])}),
    "id-a-fraction": (False, {"initialize": body(lambda n: answer(WELL, n + 0.5))}),
    "id-null": (False, {"initialize": body(lambda n: answer(WELL, None))}),
    "no-jsonrpc": (False, {"initialize": body(lambda n: {"id": n, "result": WELL})}),
    "jsonrpc-1": (False, {"initialize": body(lambda n: {**answer(WELL, n), "jsonrpc": "1.0"})}),
    "error": (False, {"initialize": body(error)}),
    "error-without-id": (False, {"initialize": body(lambda n: error(None))}),
    "error-in-event": (False, {"initialize": streamed(lambda n: [event(error(n))])}),
    "a-request": (False, {"initialize": body(lambda n: {"jsonrpc": "2.0", "id": n, "method": "ping"})}),
    "a-notice": (False, {"initialize": body(lambda n: NOTICE)}),
    "not-json": (False, {"initialize": body(lambda n: b"{")}),
    "empty": (False, {"initialize": body(lambda n: b"")}),
    "not-utf-8": (
        False,
        {"initialize": body(lambda n: json.dumps(answer(WELL, n)).encode().replace(b"wire", b"w\xffre"))},
    ),
    "utf-16": (False, {"initialize": body(lambda n: json.dumps(answer(WELL, n)).encode("utf-16"))}),
    "byte-order-mark": (False, {"initialize": body(lambda n: b"\xef\xbb\xbf" + json.dumps(answer(WELL, n)).encode())}),
    "lone-surrogate": (
        False,
        {"initialize": body(lambda n: answer(init(serverInfo={"name": "\ud800", "version": "1"}), n))},
    ),
    "not-zstd": (False, {"initialize": packed(lambda data: data, "zstd")}),
    "not-gzip": (False, {"initialize": packed(lambda data: data, "gzip")}),
    "html": (False, {"initialize": body(lambda n: b"<form>", kind="text/html")}),
    "no-content-type": (
        False,
        {"initialize": lambda call: raw(200, json.dumps(answer(WELL, call.request_id)).encode())},
    ),
    "202": (False, {"initialize": raw(202)}),
    "204": (False, {"initialize": raw(204)}),
    **{
        str(status): (False, {"initialize": raw(status, b"no")})
        for status in (400, 401, 403, 404, 406, 410, 429, 500, 503)
    },
    "304": (False, {"initialize": raw(304)}),
    "302": (False, {"initialize": redirect("{path}?{next}", status=302)}),
    "303": (False, {"initialize": redirect("{path}?{next}", status=303)}),
    "redirected-to-another-port": (False, {"initialize": raw(307, b"", "Location: http://127.0.0.1:1/")}),
    "redirected-to-no-name": (False, {"initialize": raw(307, b"", "Location: http://xn--/")}),
    "redirected-with-a-password": (False, {"initialize": raw(307, b"", "Location: http://u:p@127.0.0.1/")}),
    "redirected-for-ever": (False, {"initialize": redirect(*["{path}?{next}"] * 40)}),
    "redirected-nowhere": (False, {"initialize": raw(307)}),
    "session-not-ascii": (False, {"initialize": result(WELL, "Mcp-Session-Id: caf\xe9")}),
    "events-end": (False, {"initialize": streamed(lambda n: [event(NOTICE)])}),
    "events-end-and-are-not-resumed": (False, primed(resumes=False)),
    "events-without-end": (False, {"initialize": hangs}),
    "cut": (False, {"initialize": b""}),
    "cut-in-the-body": (
        False,
        {"initialize": b"HTTP/1.1 200 -\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"},
    ),
    "event-id-not-ascii": (False, primed(name="caf\u00e9")),
    "event-id-with-a-control": (True, primed(name="a\x01b")),
    "event-id-in-spaces": (False, primed(name=" e1 ")),
    # HTTP as few servers write it
    "http-1.0": (True, {"initialize": written("HTTP/1.0 200 OK\r\n")}),
    "no-reason": (True, {"initialize": written("HTTP/1.1 200\r\nContent-Length: {length}\r\n")}),
    "to-the-end": (True, {"initialize": written("HTTP/1.1 200 OK\r\n")}),
    "bare-line-feeds": (True, {"initialize": written("HTTP/1.1 200 OK\nContent-Length: {length}\n")}),
    "folded-header": (True, {"initialize": written("HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: {length}\r\n")}),
    "odd-header-names": (True, {"initialize": written("HTTP/1.1 200 OK\r\nx_.~: a\r\nContent-Length: {length}\r\n")}),
    "header-not-ascii": (True, {"initialize": written("HTTP/1.1 200 \xe9\r\nX: \xff\r\nContent-Length: {length}\r\n")}),
    "space-after-a-name": (False, {"initialize": written("HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: {length}\r\n")}),
    "no-colon": (False, {"initialize": written("HTTP/1.1 200 OK\r\nX\r\nContent-Length: {length}\r\n")}),
    "early-hints": (
        True,
        {
            "initialize": written(
                "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: {length}\r\n"
            )
        },
    ),
    "length-twice": (
        True,
        {"initialize": written("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nContent-Length: {length}\r\n")},
    ),
    "two-lengths": (
        False,
        {"initialize": written("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nContent-Length: 1\r\n")},
    ),
    "chunks": (True, {"initialize": written(CHUNKED, chunks)}),
    "chunks-with-zeros": (True, {"initialize": written(CHUNKED, lambda sent: chunks(sent, size="010x"))}),
    "chunks-with-extensions": (True, {"initialize": written(CHUNKED, lambda sent: chunks(sent, ";a=b"))}),
    "chunks-with-trailers": (True, {"initialize": written(CHUNKED, lambda sent: chunks(sent, end="X: a\r\n"))}),
    "chunks-without-end": (False, {"initialize": written(CHUNKED, lambda sent: chunks(sent)[:-5])}),
    "chunks-of-no-number": (False, {"initialize": written(CHUNKED, lambda sent: b"x" + chunks(sent))}),
    "chunks-beside-a-length": (True, {"initialize": written(CHUNKED + "Content-Length: 3\r\n", chunks)}),
    "coding-in-capitals": (True, {"initialize": written(CHUNKED.replace("chunked", "Chunked"), chunks)}),
    "coding-unknown": (False, {"initialize": written(CHUNKED.replace("chunked", "gzip, chunked"), chunks)}),
    "http-2": (False, {"initialize": written("HTTP/2 200 OK\r\nContent-Length: {length}\r\n")}),
    "tls-in-clear": (False, {"initialize": b"\x15\x03\x01\x00\x02\x02\x46"}),
    "ping-first-and-no-answer-taken": (False, {"initialize": asks_first, "reply": raw(500)}),
    # Lists of tools
    "no-tools": (True, {"tools/list": tools()}),
    "many-tools": (True, {"tools/list": tools(*({"name": f"tool_{n}", "inputSchema": {}} for n in range(3_000)))}),
    "odd-names": (
        True,
        {
            "tools/list": tools(
                *({**TOOL, "name": name} for name in ("zz ", "", "a\u202eb", "x" * 300, "(unreadable) a"))
            )
        },
    ),
    "long-cursor": (True, {"tools/list": lambda call: pages(call, "x" * 5_000)}),
    "three-pages": (True, {"tools/list": pages}),
    "empty-cursor": (True, {"tools/list": tools(TOOL, nextCursor="")}),
    "list-as-event": (True, {"tools/list": streamed(lambda n: [event(answer({"tools": [TOOL]}, n))])}),
    "tool-without-description": (True, {"tools/list": tools({"name": "a", "inputSchema": {}})}),
    "output-schema-null": (True, {"tools/list": tools({**TOOL, "outputSchema": None})}),
    "output-schema-a-list": (False, {"tools/list": tools({**TOOL, "outputSchema": []})}),
    "annotations-a-list": (False, {"tools/list": tools({**TOOL, "annotations": []})}),
    "tool-without-schema": (False, {"tools/list": tools({"name": "a"})}),
    "tool-name-a-number": (False, {"tools/list": tools({**TOOL, "name": 7})}),
    "tool-description-a-number": (False, {"tools/list": tools({**TOOL, "description": 7})}),
    "tool-a-text": (False, {"tools/list": tools("a")}),
    "tools-an-object": (False, {"tools/list": result({"tools": {}})}),
    "tools-missing": (False, {"tools/list": result({})}),
    "cursor-a-number": (False, {"tools/list": tools(TOOL, nextCursor=7)}),
    "same-cursor": (False, {"tools/list": tools(TOOL, nextCursor="again")}),
    "tools-too-deep-to-read": (False, {"tools/list": tools(nested(400))}),
    "list-refused": (False, {"tools/list": body(lambda n: error(n, -32601))}),
    "list-500": (False, {"tools/list": raw(500)}),
    "list-404": (False, {"tools/list": raw(404)}),
    "list-html": (False, {"tools/list": body(lambda n: b"<form>", kind="text/html")}),
    "list-batch": (False, {"tools/list": body(lambda n: [answer({"tools": []}, n)])}),
    "list-wrong-id": (False, {"tools/list": body(lambda n: answer({"tools": []}, 78))}),
}


def _well(call: Call) -> bytes:
    method = (call.message or {}).get("method")
    if method == "initialize":
        return text(json.dumps(answer(WELL, call.request_id)).encode(), "Mcp-Session-Id: s")
    if method == "tools/list":
        return text(json.dumps(answer({"tools": [TOOL]}, call.request_id)).encode())
    if call.verb == "GET":
        return raw(405)
    return raw(200 if call.verb == "DELETE" else 202)


class WireServer:
    """Serves ROWS, and what a test adds to `rows`, at ``/{who}/{row}`` on a free port of 127.0.0.1."""

    def __init__(self) -> None:
        self.rows = dict(ROWS)
        self.port = 0
        self.connections: Counter[str] = Counter()
        self._memos: dict[str, dict[str, Any]] = defaultdict(dict)

    def url(self, who: str, row: str) -> str:
        return f"http://127.0.0.1:{self.port}/{who}/{row}"

    @contextlib.contextmanager
    def running(self) -> Iterator[WireServer]:
        with listening(self._serve) as self.port:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        counted: set[str] = set()
        try:
            while await self._answer(reader, writer, counted):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other side hung up, or the test is over
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counted: set[str]) -> bool:
        """Answer one request; say whether the connection is kept for another."""
        head = await reader.readuntil(b"\r\n\r\n")
        verb, target, *_ = head.decode("latin-1").split(" ")
        headers = {
            name.lower(): value for name, value in re.findall(r"^([\w-]+): *(.*?)\r$", head.decode("latin-1"), re.M)
        }
        content = await reader.readexactly(int(headers.get("content-length", 0)))
        path, _, headers["query"] = target.partition("?")
        if path not in counted:
            counted.add(path)
            self.connections[path] += 1
        message = json.loads(content) if content else None
        call = Call(path, verb, headers, message, writer, self._memos[path])
        row = self.rows.get(path.rpartition("/")[2], (True, {}))[1]
        reply = row.get(_named(verb, message), _well)
        sent = reply if isinstance(reply, bytes) else reply(call)
        sent = sent if isinstance(sent, bytes) else await sent
        if sent.endswith(HUNG_UP):
            # The answer and the end of the connection leave together: a client that reads the answer alone uses the
            # connection again, and fails.
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        writer.write(sent)
        await writer.drain()
        return KEPT in sent and not sent.endswith(HUNG_UP)


def _named(verb: str, message: Message | None) -> str:
    """Return the kind of a request: the method of JSON-RPC, "reply" for an answer, else the method of HTTP."""
    return verb if message is None else message.get("method", "reply")
