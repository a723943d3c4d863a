"""The key names of the saver of `langgraph_checkpoint_compact`.

A thread has two keys, ``<prefix>:{<thread>}`` and the same with ``:ids`` at its end, with a percent-escaped id. The
package has the same code in its module `names`. It is not imported here, because it imports LangGraph, which a cleanup
without such keys does not need. A test compares both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple
from urllib.parse import quote, unquote

from ai_ops.logic.savers import DEFAULT_PREFIX

IDS = b":ids"
_SAFE = ":/@,+=~"
# Ids that need no escaping, as most. Quoting them would take as long as all other work on a key.
_PLAIN = re.compile(rb"[A-Za-z0-9_.\-~:/@,+=]+").fullmatch
_EMPTY = "%"  # the thread whose id is the empty text
# No saver's keys are longer: see MAX_KEY_BYTES of the other layouts.
_MAX_NAME = 8_192


@dataclass(frozen=True)
class CompactKeys:
    """Parses keys.

    Args:
        prefix: The prefix of all keys.
    """

    prefix: str = DEFAULT_PREFIX

    @cached_property
    def start(self) -> bytes:
        """Return the common beginning of all keys."""
        return f"{self.prefix}:{{".encode()

    def is_hash(self, key: bytes) -> bool:
        """Return whether `key` has the name of a thread's first key."""
        return key.startswith(self.start) and key.endswith(b"}") and self.thread_of(key) is not None

    def key_of(self, thread: bytes) -> bytes:
        """Return the name of the first key of the thread with this id, in UTF-8."""
        text = thread.decode("utf-8", "surrogateescape")
        return self.start + (quote(text, safe=_SAFE, errors="surrogatepass") or _EMPTY).encode() + b"}"

    def thread_of(self, key: bytes) -> bytes | None:
        """Return the id of the thread whose first key has this name, in UTF-8; None for any other key."""
        name = key[len(self.start) : -1]
        if len(key) > _MAX_NAME or not key.isascii():
            return None
        if _PLAIN(name):
            return name
        escaped = name.decode()
        thread = "" if escaped == _EMPTY else unquote(escaped, errors="surrogatepass")
        # The saver would not find an id in another spelling.
        if (quote(thread, safe=_SAFE, errors="surrogatepass") or _EMPTY) != escaped:
            return None
        return thread.encode("utf-8", "surrogatepass")

    def threads_in(self, keys: Iterable[bytes]) -> Iterator[Thread]:
        """Return the threads of the keys, without other keys."""
        hashes: dict[bytes, None] = {}
        of_ids: dict[bytes, None] = {}
        for key in keys:
            if key.endswith(IDS):
                of_ids[key[: -len(IDS)]] = None
            else:
                hashes[key] = None
        for key in hashes | of_ids:
            if (name := self.thread_of(key)) is not None:
                yield Thread(name, key, key in hashes, key in of_ids)


class Thread(NamedTuple):
    """A thread, with its keys seen so far.

    Attributes:
        name: Its id, in UTF-8.
        key: The name of the hash; the sorted set has the same name with `IDS`.
        has_hash: Whether the hash was found.
        has_ids: Whether the sorted set was found.
    """

    name: bytes
    key: bytes
    has_hash: bool
    has_ids: bool

    @property
    def keys(self) -> tuple[bytes, bytes]:
        """Return both keys."""
        return self.key, self.key + IDS


def sort_out(keys: Iterable[bytes], compact: CompactKeys) -> Mapping[bool, list[bytes]]:
    """Group keys by whether they look like those of a compact saver."""
    start, ends = compact.start, (b"}", b"}" + IDS)
    own: list[bytes] = []
    others: list[bytes] = []
    for key in keys:
        (own if key.startswith(start) and key.endswith(ends) and b"\n" not in key else others).append(key)
    return {True: own, False: others}
