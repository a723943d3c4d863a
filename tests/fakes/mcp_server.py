"""An HTTP server on loopback that is well, or ill in one way per path.

`FakeMCPServer` answers ``/health`` with its `health_status`, which a test may change while it runs, ``/mcp``
with MCP's handshake, and every path in `FAULTS` and `MCP_FAULTS` with that fault. It speaks bytes, not HTTP:
most faults can't be had from a web framework.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import cache

from tests.fakes.threaded import listening
from tests.fakes.tool_lists import TOOL_LISTS, as_tool

Fault = Callable[[asyncio.StreamWriter], Awaitable[None]]

LENGTH = re.compile(rb"^content-length: *(\d+)", re.IGNORECASE | re.MULTILINE)
AUTHORIZATION = re.compile(rb"^authorization: *(.*?)\r$", re.IGNORECASE | re.MULTILINE)


@dataclass
class FakeMCPServer:
    """A running server; `port` 0 lets the system choose one.

    Attributes:
        health_status: Status code with which ``/health`` answers.
        script: Status codes for the next requests to ``/health``, used up before `health_status` is.
        delay: Seconds ``/health`` takes.
        tools: The tools that ``/mcp`` lists: names, or whole definitions.
        as_events: Whether ``/mcp`` lists them in an event, as the SDK's servers do, and not as JSON.
        token: What ``/mcp`` wants as a bearer token, if anything; faults want none.
        requests: (monotonic time, path) of each request, and its raw head in `heads`.
        messages: (path, method of JSON-RPC or of HTTP) of each request below ``/mcp``.
        request_id: The id of the latest of them.
        sessions: How many MCP sessions are open.
    """

    health_status: int = 200
    script: list[int] = field(default_factory=list)
    delay: float = 0.0
    tools: list[str | dict[str, object]] = field(default_factory=list)
    as_events: bool = False
    token: str = ""
    tls: ssl.SSLContext | None = None
    port: int = 0
    requests: list[tuple[float, str]] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    messages: list[tuple[str, str]] = field(default_factory=list)
    request_id: object = None
    sessions: int = 0
    open_now: int = 0
    open_most: int = 0

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @contextlib.contextmanager
    def running(self) -> Iterator[FakeMCPServer]:
        """Serve in a thread with a loop of its own until the block ends; then the port refuses."""
        with listening(self._serve, self.port, self.tls) as self.port:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_now += 1
        self.open_most = max(self.open_most, self.open_now)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1].partition(b"?")[0].decode()
            self.requests.append((time.monotonic(), path))
            self.heads.append(head)
            length = LENGTH.search(head)
            body = await reader.readexactly(int(length[1])) if length else b""
            if path.startswith("/mcp"):
                await self._speak_mcp(writer, head, path, body)
            else:
                await (FAULTS[path](writer) if path in FAULTS else self._answer(writer, path))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other side hung up, or the test is over
        finally:
            self.open_now -= 1
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, path: str) -> None:
        status = 404
        if path == "/health":
            status = self.script.pop(0) if self.script else self.health_status
            await asyncio.sleep(self.delay)
        writer.write(answer(status, b"ok"))

    async def _speak_mcp(self, writer: asyncio.StreamWriter, head: bytes, path: str, body: bytes) -> None:
        message = json.loads(body) if body else {"method": head.partition(b" ")[0].decode()}
        method, request_id = message["method"], message.get("id")
        self.messages.append((path, method))
        self.request_id = request_id
        sent = AUTHORIZATION.search(head)
        if path in MCP_FAULTS and method in MCP_FAULTS[path]:
            await MCP_FAULTS[path][method](writer)
        elif self.token and (sent is None or sent[1] != f"Bearer {self.token}".encode()):
            writer.write(answer(401, b"", "WWW-Authenticate: Bearer"))
        elif method == "initialize":
            self.sessions += 1
            writer.write(json_answer(result(WELL, request_id), "Mcp-Session-Id: the-session"))
        elif method == "tools/list":
            listed = (
                TOOL_LISTS[path](message) if path in TOOL_LISTS else {"tools": [as_tool(each) for each in self.tools]}
            )
            listing = result(listed, request_id)
            writer.write(_SSE + events(listing) if self.as_events else json_answer(listing))
        elif method == "GET":
            writer.write(answer(405))
        elif method == "DELETE":
            self.sessions -= 1
            writer.write(answer(200))
        else:
            writer.write(answer(202))


def answer(status: int, body: bytes = b"", *headers: str) -> bytes:
    """An HTTP answer in bytes."""
    lines = [f"HTTP/1.1 {status} Fake", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def json_answer(message: object, *headers: str, status: int = 200, kind: str = "application/json") -> bytes:
    """A JSON body in an HTTP answer."""
    return answer(status, json.dumps(message).encode(), f"Content-Type: {kind}", *headers)


def result(content: dict[str, object], request_id: object = 1) -> dict[str, object]:
    """A JSON-RPC answer."""
    return {"jsonrpc": "2.0", "id": request_id, "result": content}


def error(code: int, message: str, request_id: object = 1) -> dict[str, object]:
    """A JSON-RPC error."""
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}


WELL: dict[str, object] = {
    "protocolVersion": "2025-06-18",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "fake", "version": "1.2"},
}
INITIALIZED = result(WELL)
DISCOVERED = result(
    {
        "resultType": "complete",
        "supportedVersions": ["2026-07-28"],
        "capabilities": {},
        "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "newer", "version": "2.0"}},
    },
    2,
)


def events(*messages: object) -> bytes:
    """Messages as Server-Sent Events."""
    return b"".join(b"event: message\r\ndata: " + json.dumps(message).encode() + b"\r\n\r\n" for message in messages)


def _fixed(raw: bytes) -> Fault:
    async def fault(writer: asyncio.StreamWriter) -> None:
        writer.write(raw)

    return fault


async def _says_nothing(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


async def _hangs_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def _hangs_up_in_the_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nContent-Type: application/json\r\n\r\nhalf of it")
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.transport.abort()


def _drips(start: bytes, drop: bytes) -> Fault:
    async def fault(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while not writer.is_closing():
            writer.write(drop)
            await writer.drain()
            await asyncio.sleep(0.05)

    return fault


def _floods(start: bytes, chunk: bytes) -> Fault:
    async def fault(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while not writer.is_closing():
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(0)  # drain() alone lets no other task run while there is room

    return fault


@cache
def gzip_bomb() -> bytes:
    """A body of some 60 KB that unpacks to 64 MB; kept, since packing it takes longer than a probe may."""
    packer = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    packed = b"".join(packer.compress(bytes(1024 * 1024)) for _ in range(64))
    return packed + packer.flush()


def _redirect(status: int, location: str) -> Fault:
    return _fixed(answer(status, b"", f"Location: {location}"))


async def _bomb(writer: asyncio.StreamWriter) -> None:
    writer.write(answer(200, gzip_bomb(), "Content-Encoding: gzip"))


async def _bomb_of_json(writer: asyncio.StreamWriter) -> None:
    writer.write(answer(200, gzip_bomb(), "Content-Encoding: gzip", "Content-Type: application/json"))


async def _sends_200_mb(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n")
    for _ in range(3200):
        writer.write(bytes(62500))
        await writer.drain()


_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"

FAULTS: dict[str, Fault] = {
    "/200": _fixed(answer(200, b"ok")),
    "/204": _fixed(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "/no-length": _fixed(_OK + b"\r\nok"),
    "/gzip": _fixed(answer(200, zlib.compress(b"ok"), "Content-Encoding: deflate")),
    "/cookie": _fixed(answer(200, b"ok", "Set-Cookie: session=secret")),
    "/400": _fixed(answer(400)),
    "/401": _fixed(answer(401, b"", 'WWW-Authenticate: Basic realm="x"')),
    "/403": _fixed(answer(403)),
    "/404": _fixed(answer(404)),
    "/405": _fixed(answer(405)),
    "/429": _fixed(answer(429, b"", "Retry-After: 30")),
    "/500": _fixed(answer(500, b"trace")),
    "/503": _fixed(answer(503)),
    "/304": _fixed(b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    "/loop": _redirect(307, "/loop"),
    "/302": _redirect(302, "/200"),
    "/slash": _redirect(307, "/200"),
    "/two-steps": _redirect(308, "/slash"),
    "/three-steps": _redirect(307, "/two-steps"),
    "/https": _redirect(308, "https://127.0.0.1:1/200"),
    "/elsewhere": _redirect(301, "http://user:password@elsewhere.invalid/health?token=secret"),
    "/bad-location": _redirect(302, "http://[::1"),
    "/long-location": _redirect(302, "/" + "x" * 5000),
    "/silent": _says_nothing,
    "/hangs-up": _hangs_up,
    "/half-body": _hangs_up_in_the_body,
    "/drips-headers": _drips(_OK, b"X-More: x\r\n"),
    "/drips-status": _drips(b"HTTP/1.1 ", b"2"),
    "/drips-100s": _drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "/drips-body": _drips(_CHUNKED, b"1\r\nx\r\n"),
    "/drips-500-body": _drips(b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "/sse": _drips(_OK + b"Content-Type: text/event-stream\r\n\r\n", b": keep-alive\n\n"),
    "/200-mb": _sends_200_mb,
    "/floods-body": _floods(_OK + b"\r\n", bytes(65536)),
    "/floods-headers": _floods(_OK, b"X-More: " + b"x" * 4096 + b"\r\n"),
    "/bomb": _bomb,
    "/not-gzip": _fixed(answer(200, b"plain", "Content-Encoding: gzip")),
    "/no-http": _fixed(b"220 mail.example.com ESMTP\r\n"),
    "/bad-length": _fixed(_OK + b"Content-Length: many\r\n\r\n"),
    "/bad-chunk": _fixed(_CHUNKED + b"zz\r\n"),
    "/bad-header": _fixed(_OK + b"X-Bad: a\x00b\r\n\r\n"),
    "/crlf": _fixed(_OK + b"Location: /a\rX-Injected: y\r\n\r\n"),
    "/charset": _fixed(answer(200, "ok".encode("utf-16"), "Content-Type: text/plain; charset=no-such-charset")),
    "/nothing": _fixed(b""),
}

_LOGIN = b"<!doctype html><title>Sign in</title><form method=post><input name=password></form>"
_SSE = _OK + b"Content-Type: text/event-stream\r\nMcp-Session-Id: the-session\r\n\r\n"
_NOTICE = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "hello"}}


async def _event_and_silence(writer: asyncio.StreamWriter) -> None:
    """The answer comes, and the stream stays open: a client that waits for its end waits for ever."""
    writer.write(_SSE + b": welcome\r\n\r\n" + events(_NOTICE, INITIALIZED))
    await writer.drain()
    await asyncio.sleep(3600)


def _initialize(raw: bytes) -> dict[str, Fault]:
    return {"initialize": _fixed(raw)}


def _stateless(code: int, status: int, discovered: bytes) -> dict[str, Fault]:
    refused = json_answer(error(code, "no such thing", None if status == 400 else 1), status=status)
    return {"initialize": _fixed(refused), "server/discover": _fixed(discovered)}


# By path, and within it by the method of JSON-RPC, or of HTTP; what is not named is answered as by a well server.
MCP_FAULTS: dict[str, dict[str, Fault]] = {
    "/mcp/sse": _initialize(_SSE + events(_NOTICE, INITIALIZED)),
    "/mcp/sse-stays-open": {"initialize": _event_and_silence},
    "/mcp/batch": _initialize(json_answer([_NOTICE, INITIALIZED])),
    "/mcp/no-session": _initialize(json_answer(INITIALIZED)),
    "/mcp/delete-refused": {"DELETE": _fixed(answer(405))},
    "/mcp/delete-hangs": {"DELETE": _says_nothing},
    "/mcp/charset-in-name": _initialize(json_answer(INITIALIZED, kind="Application/JSON; charset=utf-8")),
    "/mcp/slash": {"initialize": _redirect(307, "/mcp/slash/")},
    "/mcp/login": _initialize(answer(200, _LOGIN, "Content-Type: text/html")),
    "/mcp/rpc-error": _initialize(json_answer(error(-32603, "database is locked"))),
    "/mcp/wrong-id": _initialize(json_answer(result(WELL, 7))),
    "/mcp/text-id": _initialize(json_answer(result(WELL, "1"))),
    "/mcp/no-jsonrpc": _initialize(json_answer({"id": 1, "result": WELL})),
    "/mcp/no-version": _initialize(json_answer(result({"capabilities": {}, "serverInfo": WELL["serverInfo"]}))),
    "/mcp/no-name": _initialize(json_answer(result({**WELL, "serverInfo": {}}))),
    "/mcp/no-json": _initialize(answer(200, b"{", "Content-Type: application/json")),
    "/mcp/charset": _initialize(
        answer(200, json.dumps(INITIALIZED).encode("utf-16"), "Content-Type: application/json; charset=utf-16")
    ),
    "/mcp/nothing": _initialize(answer(202)),
    "/mcp/future": _initialize(json_answer(result({**WELL, "protocolVersion": "2031-01-01"}))),
    "/mcp/stateless": _stateless(-32601, 404, json_answer(DISCOVERED)),
    "/mcp/stateless-400": _stateless(-32022, 400, json_answer(DISCOVERED)),
    "/mcp/stateless-only-says-so": _stateless(-32022, 400, answer(500)),
    "/mcp/no-method": _stateless(-32601, 200, json_answer(error(-32601, "no such thing", 2))),
    "/mcp/404": _initialize(answer(404)),
    "/mcp/406": _initialize(answer(406)),
    "/mcp/401": _initialize(answer(401, b"", "WWW-Authenticate: Bearer")),
    "/mcp/403": _initialize(answer(403)),
    "/mcp/429": _initialize(answer(429, b"", "Retry-After: 30")),
    "/mcp/500": _initialize(answer(500)),
    "/mcp/notification-refused": {"notifications/initialized": _fixed(answer(400))},
    "/mcp/silent": {"initialize": _says_nothing},
    "/mcp/resets": {"initialize": _hangs_up_in_the_body},
    "/mcp/drips-headers": {"initialize": _drips(_OK, b"X-More: x\r\n")},
    "/mcp/drips-body": {
        "initialize": _drips(
            _CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Type: application/json\r\n\r\n"), b"1\r\n \r\n"
        )
    },
    "/mcp/sse-silent": {"initialize": _drips(_SSE, b"")},
    "/mcp/sse-endless": {"initialize": _drips(_SSE, events(_NOTICE))},
    "/mcp/sse-ends": _initialize(_SSE + events(_NOTICE)),
    "/mcp/sse-long-line": {"initialize": _floods(_SSE + b"data: ", b"x" * 4096)},
    "/mcp/sse-long-event": {"initialize": _floods(_SSE, b"data: " + b"x" * 4096 + b"\n")},
    "/mcp/floods": {"initialize": _floods(_OK + b"Content-Type: application/json\r\n\r\n", b" " * 65536)},
    "/mcp/bomb": {"initialize": _bomb_of_json},
    "/mcp/deep": _initialize(answer(200, b"[" * 500_000, "Content-Type: application/json")),
    "/mcp/long-number": _initialize(answer(200, b"1" * 500_000, "Content-Type: application/json")),
    "/mcp/loop": {"initialize": _redirect(307, "/mcp/loop")},
    "/mcp/303": {"initialize": _redirect(303, "/mcp/")},
    "/mcp/elsewhere": {"initialize": _redirect(308, "http://elsewhere.invalid/mcp")},
    "/mcp/other-port": {"initialize": _redirect(307, "http://127.0.0.1:1/mcp")},
    "/mcp/crlf": _initialize(json_answer(INITIALIZED, "Mcp-Session-Id: a\rX-Injected: y")),
    "/mcp/odd-session": _initialize(json_answer(INITIALIZED, "Mcp-Session-Id: caf\xe9")),
    "/mcp/tools-refused": {"tools/list": _fixed(json_answer(error(-32601, "Method not found", 10)))},
    "/mcp/tools-silent": {"tools/list": _says_nothing},
    "/mcp/tools-resets": {"tools/list": _hangs_up_in_the_body},
    "/mcp/tools-500": {"tools/list": _fixed(answer(500))},
    "/mcp/tools-429": {"tools/list": _fixed(answer(429, b"", "Retry-After: 7200"))},
    "/mcp/tools-login": {"tools/list": _fixed(answer(200, _LOGIN, "Content-Type: text/html"))},
    "/mcp/tools-bomb": {"tools/list": _bomb_of_json},
    "/mcp/tools-floods": {"tools/list": _floods(_OK + b"Content-Type: application/json\r\n\r\n", b" " * 65536)},
    "/mcp/tools-sse-floods": {"tools/list": _floods(_SSE + b"data: ", b"x" * 4096)},
    "/mcp/tools-sse-drips": {"tools/list": _drips(_SSE, events(_NOTICE))},
    "/mcp/tools-brackets": {"tools/list": _fixed(answer(200, b"[" * 500_000, "Content-Type: application/json"))},
}
