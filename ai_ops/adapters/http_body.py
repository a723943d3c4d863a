"""The body of an HTTP answer, which is never longer than it may be."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import httpx

from ai_ops.adapters.http_failures import BodyError

# What a server says about its health fits many times; more is not a health page.
MAX_BODY_BYTES = 1024 * 1024


def body_of(response: httpx.Response) -> Iterator[bytes]:
    """The body piece by piece.

    Raises:
        BodyError: It is longer than MAX_BODY_BYTES, as sent or unpacked, or does not unpack.
    """
    chunks: Iterator[bytes] = response.iter_raw()
    if response.headers.get("content-encoding", "").strip().lower() in ("gzip", "x-gzip", "deflate"):
        chunks = _unpacked(chunks)
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise BodyError(f"sent more than {MAX_BODY_BYTES // 1024} KiB and was cut off")
        yield chunk


def _unpacked(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack gzip or zlib data, never more than one body's limit at a time: a bomb stays small."""
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
    for chunk in chunks:
        packed = chunk
        while packed:
            try:
                yield unpacker.decompress(packed, MAX_BODY_BYTES + 1)
            except zlib.error:
                raise BodyError("sent a body that is not packed as its Content-Encoding says") from None
            packed = unpacker.unconsumed_tail
