"""The body of an HTTP answer, which is never longer than it may be."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator

import httpx

from ai_ops.mcp.http.connections import CURIOUS_SECONDS
from ai_ops.mcp.http.failures import BodyError

# A health page fits many times; a longer body is none.
MAX_BODY_BYTES = 1024 * 1024

_PACKED = frozenset({"gzip", "x-gzip", "deflate"})


async def body_of(response: httpx.Response) -> AsyncIterator[bytes]:
    """The body piece by piece.

    Raises:
        BodyError: It is longer than MAX_BODY_BYTES, as sent or unpacked, or does not unpack.
    """
    chunks = _bounded(response.aiter_raw())
    # Named in the order in which they were applied.
    for coding in reversed(response.headers.get("content-encoding", "").lower().split(",")):
        if coding.strip() in _PACKED:
            chunks = _bounded(_unpacked(chunks))
    async for chunk in chunks:
        yield chunk


async def beginning_of(response: httpx.Response) -> bytes:
    """The body of an error, where it comes soon: the status has said already what counts."""
    try:
        async with asyncio.timeout(CURIOUS_SECONDS):
            return await whole_body_of(response)
    except (TimeoutError, httpx.HTTPError, BodyError):
        return b""


async def whole_body_of(response: httpx.Response) -> bytes:
    """All of the body; raises as `body_of` does."""
    return b"".join([chunk async for chunk in body_of(response)])


def readable(response: httpx.Response) -> httpx.Response:
    """An answer whose text may be read with httpx's own methods, since its body is bounded and unpacked already."""
    headers = httpx.Headers([each for each in response.headers.raw if each[0].lower() != b"content-encoding"])
    return httpx.Response(response.status_code, headers=headers, stream=_Body(response), request=response.request)


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: httpx.Response) -> None:
        self._response = response

    def __aiter__(self) -> AsyncIterator[bytes]:
        return body_of(self._response)


async def _bounded(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise BodyError(f"sent more than {MAX_BODY_BYTES // 1024} KiB and was cut off")
        yield chunk


async def _unpacked(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
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
