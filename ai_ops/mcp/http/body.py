"""The body of an HTTP answer, which is never longer than it may be."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, AsyncIterator

import httpx
from httpx_sse import EventSource, ServerSentEvent

from ai_ops.mcp.http.connections import CURIOUS_SECONDS, Answer
from ai_ops.mcp.http.failures import BodyError

# A health page fits many times; a longer body is none.
MAX_BODY_BYTES = 1024 * 1024

_PACKED = frozenset({"gzip", "x-gzip", "deflate"})


def body_of(answer: Answer) -> AsyncGenerator[bytes, None]:
    """The body piece by piece.

    Raises:
        BodyError: It is longer than MAX_BODY_BYTES, as sent or unpacked, or does not unpack.
    """
    pieces = _bounded(answer)
    # Named in the order in which they were applied.
    for coding in reversed(answer.headers.get("content-encoding", "").lower().split(",")):
        if coding.strip() in _PACKED:
            pieces = _bounded(_unpacked(pieces))
    return pieces


async def beginning_of(answer: Answer) -> bytes:
    """The body of an error, where it comes soon: the status has said already what counts."""
    try:
        async with asyncio.timeout(CURIOUS_SECONDS):
            return await whole_body_of(answer)
    except (TimeoutError, httpx.HTTPError, BodyError):
        return b""


async def whole_body_of(answer: Answer) -> bytes:
    """All of the body; raises as `body_of` does."""
    return b"".join([piece async for piece in body_of(answer)])


def events_of(answer: Answer) -> AsyncGenerator[ServerSentEvent, None]:
    """The events of a stream, as the agents' client reads them; raises as `body_of` does."""
    kind = answer.headers.get("content-type", "")
    # Without what the body is packed in: it is unpacked already.
    response = httpx.Response(answer.status, headers={"Content-Type": kind}, stream=_Body(answer))
    if "charset" not in kind.lower():
        # As httpx would find out, for a fiftieth of the probe.
        response.encoding = "utf-8"
    return EventSource(response).aiter_sse()


class _Body(httpx.AsyncByteStream):
    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def __aiter__(self) -> AsyncIterator[bytes]:
        return body_of(self._answer)


async def _bounded(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise BodyError(f"sent more than {MAX_BODY_BYTES // 1024} KiB and was cut off")
        yield chunk


async def _unpacked(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Unpack gzip, zlib or bare deflate data, never more than one body's limit at a time: a bomb stays small.

    What follows the end of the packed data is left out, as the agents' client does, and is not collected.
    """
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
    begun = False
    async for chunk in chunks:
        packed = chunk
        while packed and not unpacker.eof:
            try:
                unpacked = unpacker.decompress(packed, MAX_BODY_BYTES + 1)
            except zlib.error:
                if begun:
                    raise BodyError("sent a body that is not packed as its Content-Encoding says") from None
                unpacker, begun = zlib.decompressobj(-zlib.MAX_WBITS), True
                continue
            begun = True
            packed = unpacker.unconsumed_tail
            yield unpacked
