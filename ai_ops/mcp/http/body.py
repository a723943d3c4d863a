"""The body of an HTTP answer, with a bounded length."""

from __future__ import annotations

import asyncio
import codecs
import zlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import cast

import httpx
from httpx_sse import EventSource, ServerSentEvent

from ai_ops.mcp.http.connections import EXTRA_SECONDS, Answer
from ai_ops.mcp.http.encodings import encoding_of
from ai_ops.mcp.http.failures import BodyError

# Many times the size of a health page.
MAX_BODY_BYTES = 1024 * 1024

# A piece counts as at least this many bytes: its envelope has this size, and reading it takes as long.
PIECE_BYTES = 32

# The codings that zlib decodes, each with the format to try first.
_ZLIB = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}

# The codings that the agents' client also decodes if their packages are installed: zstd and br.
_OTHERS = frozenset(
    httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200)), trust_env=False)
    .headers["accept-encoding"]
    .split(", ")
) - {"identity", *_ZLIB}
_KNOWN = {"identity", *_ZLIB, *_OTHERS}

# No server uses more codings. Each layer is a nested generator, and Python can't nest a thousand.
MAX_CODINGS = 5

# Maximum number of bytes per call of a decoder without its own limit. The output of a bomb for this input fits into
# memory.
_MORSEL_BYTES = 32

_NOT_PACKED = "sent a body that does not match its Content-Encoding"


def body_of(answer: Answer) -> AsyncGenerator[bytes, None]:
    """Yield the body in pieces.

    Raises:
        BodyError: It is longer than MAX_BODY_BYTES, encoded or decoded, can't be decoded, or has too many codings.
    """
    pieces = _bounded(answer, PIECE_BYTES)
    if not (named := answer.headers.get("content-encoding")):
        return pieces
    # In the order of their application. The agents' client skips unknown codings.
    codings = [coding for each in named.lower().split(",") if (coding := each.strip()) in _KNOWN]
    if sum(coding != "identity" for coding in codings) > MAX_CODINGS:
        raise BodyError(f"sent a body with more than {MAX_CODINGS} encodings")
    for coding in reversed(codings):
        if coding in _ZLIB:
            pieces = _bounded(_unpacked(pieces, coding))
        elif coding in _OTHERS:
            pieces = _bounded(_decoded(pieces, coding, alone=len(codings) == 1))
    return pieces


async def beginning_of(answer: Answer) -> bytes:
    """Return the beginning of an error's body if it arrives soon, since the status already decides."""
    try:
        async with asyncio.timeout(EXTRA_SECONDS):
            return await whole_body_of(answer)
    except (TimeoutError, httpx.HTTPError, BodyError):
        return b""


async def whole_body_of(answer: Answer) -> bytes:
    """Return the whole body; raises the errors of `body_of`."""
    return b"".join([piece async for piece in body_of(answer)])


def events_of(answer: Answer) -> AsyncGenerator[ServerSentEvent, None]:
    """Yield the events of a stream as the agents' client reads them; raises the errors of `body_of`."""
    return EventSource(cast(httpx.Response, _Text(answer))).aiter_sse()


class _Text:
    """The part of an httpx response that EventSource uses; a whole response would take longer to create."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.headers = {"content-type": answer.headers.get("content-type", "")}

    async def aiter_text(self) -> AsyncIterator[str]:
        decoder = _decoder(self.headers["content-type"])
        async for piece in body_of(self._answer):
            if text := _decode(decoder, piece):
                yield text
        if text := _decode(decoder, b"", final=True):
            yield text


def _decoder(content_type: str) -> codecs.IncrementalDecoder:
    encoding = encoding_of(content_type)
    if encoding is None:
        raise BodyError("sent events in an encoding that is not for text")
    return codecs.getincrementaldecoder(encoding)(errors="replace")


def _decode(decoder: codecs.IncrementalDecoder, piece: bytes, *, final: bool = False) -> str:
    try:
        return decoder.decode(piece, final)
    except UnicodeError:
        # Some encodings have no replacement for invalid bytes.
        raise BodyError("sent events that are not in the encoding of their Content-Type") from None


async def _bounded(chunks: AsyncIterator[bytes], least: int = 0) -> AsyncGenerator[bytes, None]:
    size = 0
    async for chunk in chunks:
        size += max(len(chunk), least)
        if size > MAX_BODY_BYTES:
            raise BodyError(f"sent more than {MAX_BODY_BYTES // 1024} KiB and was cut off")
        yield chunk


async def _unpacked(chunks: AsyncIterator[bytes], coding: str) -> AsyncGenerator[bytes, None]:
    """Decode gzip, zlib or raw deflate data, at most one body's limit at a time, so that a bomb stays small.

    Data after the end of the encoded data is dropped, as in the agents' client.
    """
    unpacker = zlib.decompressobj(_ZLIB[coding])
    may_be_bare = coding == "deflate"
    async for chunk in chunks:
        packed = chunk
        while packed and not unpacker.eof:
            try:
                unpacked = unpacker.decompress(packed, MAX_BODY_BYTES + 1)
            except zlib.error:
                if not may_be_bare:
                    raise BodyError(_NOT_PACKED) from None
                unpacker, may_be_bare = zlib.decompressobj(-zlib.MAX_WBITS), False
                continue
            may_be_bare = False
            packed = unpacker.unconsumed_tail
            yield unpacked


async def _decoded(chunks: AsyncIterator[bytes], coding: str, *, alone: bool) -> AsyncGenerator[bytes, None]:
    """Decode one coding with httpx, as the agents' client does. It can't finish zstd together with other codings."""
    response = httpx.Response(200, headers={"Content-Encoding": coding}, stream=_Morsels(chunks))
    try:
        async for piece in response.aiter_bytes():
            yield piece
    except httpx.DecodingError:
        raise BodyError(_NOT_PACKED) from None
    if not alone:
        raise BodyError(f"sent a body with {coding} and another encoding")


class _Morsels(httpx.AsyncByteStream):
    """The pieces of a body, cut into smaller pieces."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            for start in range(0, len(chunk), _MORSEL_BYTES):
                yield chunk[start : start + _MORSEL_BYTES]
