"""An HTTP server on loopback that is well, or ill in one way per path.

`FakeMCPServer` answers ``/health`` with its `health_status`, which a test may change while it runs, and every
path in `FAULTS` with that fault. It speaks bytes, not HTTP: most faults can't be had from a web framework.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import cache

Fault = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class FakeMCPServer:
    """A running server; `port` 0 lets the system choose one.

    Attributes:
        health_status: Status code with which ``/health`` answers.
        script: Status codes for the next requests to ``/health``, used up before `health_status` is.
        delay: Seconds ``/health`` takes.
        requests: (monotonic time, path) of each request, and its raw head in `heads`.
    """

    health_status: int = 200
    script: list[int] = field(default_factory=list)
    delay: float = 0.0
    tls: ssl.SSLContext | None = None
    port: int = 0
    requests: list[tuple[float, str]] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    open_now: int = 0
    open_most: int = 0

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @contextlib.contextmanager
    def running(self) -> Iterator[FakeMCPServer]:
        """Serve in a thread with a loop of its own until the block ends; then the port refuses."""
        loop = asyncio.new_event_loop()
        server = loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls, backlog=512)
        )
        self.port = server.sockets[0].getsockname()[1]
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(_stop(server), loop).result(5)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(5)
            loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_now += 1
        self.open_most = max(self.open_most, self.open_now)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1].partition(b"?")[0].decode()
            self.requests.append((time.monotonic(), path))
            self.heads.append(head)
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


def answer(status: int, body: bytes = b"", *headers: str) -> bytes:
    """An HTTP answer in bytes."""
    lines = [f"HTTP/1.1 {status} Fake", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


async def _stop(server: asyncio.Server) -> None:
    server.close()
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _fixed(raw: bytes) -> Fault:
    async def fault(writer: asyncio.StreamWriter) -> None:
        writer.write(raw)

    return fault


async def _says_nothing(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


async def _hangs_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def _hangs_up_in_the_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of it")
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
            await asyncio.sleep(0)  # drain() alone lets nobody else run while there is room

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
    "/loop": _redirect(302, "/loop"),
    "/slash": _redirect(307, "/slash/"),
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
    "/floods-body": _floods(_OK + b"\r\n", bytes(65536)),
    "/floods-headers": _floods(_OK, b"X-More: " + b"x" * 4096 + b"\r\n"),
    "/bomb": _bomb,
    "/not-gzip": _fixed(answer(200, b"plain", "Content-Encoding: gzip")),
    "/no-http": _fixed(b"220 mail.example.com ESMTP\r\n"),
    "/bad-length": _fixed(_OK + b"Content-Length: many\r\n\r\n"),
    "/bad-chunk": _fixed(_CHUNKED + b"zz\r\n"),
    "/bad-header": _fixed(_OK + b"X-Bad: a\x00b\r\n\r\n"),
    "/nothing": _fixed(b""),
}
