"""The encodings of text in which servers may answer."""

from __future__ import annotations

import codecs
from functools import lru_cache

import httpx

# Their time grows with the square of the length of a text, during which the event loop is blocked; or they decode
# nothing.
_NEVER_DECODED = frozenset({"idna", "punycode", "undefined"})


@lru_cache(maxsize=16)
def encoding_of(content_type: str) -> str | None:
    """Return the encoding that httpx uses for a content type; None if it is not an encoding for text."""
    encoding = httpx.Response(200, headers={"Content-Type": content_type}).encoding or "utf-8"
    codec = codecs.lookup(encoding)
    is_for_text = codec._is_text_encoding and codec.incrementaldecoder
    return encoding if is_for_text and codec.name not in _NEVER_DECODED else None
