"""A scan for the keys of certain threads of every layout, by ids or globs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from ai_ops.checkpoints.logic.compact_keys import CompactKeys, sort_out
from ai_ops.checkpoints.logic.compact_keys import Thread as CompactThread
from ai_ops.checkpoints.logic.fast_path import QuickKeys
from ai_ops.checkpoints.logic.keys import CheckpointKey, KeyParser
from ai_ops.checkpoints.redis.client import SCAN_COUNT
from ai_ops.checkpoints.redis.key_spool import KeySpool
from ai_ops.checkpoints.redis.store import CheckpointStore

# The prefixes of items and their vectors in langgraph.store.redis (STORE_PREFIX and STORE_VECTOR_PREFIX).
STORE_HEADS = (b"store:", b"store_vectors:")


class Wanted(Protocol):
    """The threads to search for."""

    def has(self, name: bytes) -> bool:
        """Return whether the thread with this id is one of them."""

    def may_have(self, key: CheckpointKey) -> bool:
        """Return whether a key may belong to one of them in any interpretation."""


@dataclass
class Scanned:
    """The result of a scan.

    Attributes:
        compact: Threads of CompactRedisSaver that were found, by their ids.
        items: Keys that look like those of LangGraph's store.
        looked_at: Approximate number of scanned keys.
        found: Number of scanned keys that may belong to the threads.
        complete: Whether all keys were scanned.
    """

    compact: dict[bytes, CompactThread] = field(default_factory=dict)
    items: list[bytes] = field(default_factory=list)
    looked_at: int = 0
    found: int = 0
    complete: bool = True

    def clear(self) -> None:
        """Drop the result before the scan restarts."""
        self.compact.clear()
        self.items.clear()
        self.looked_at = self.found = 0


class ThreadScan:
    """Scans a database for the keys of some threads.

    Args:
        store: The database.
        parser: Parses keys.
        compact: The names of the keys of CompactRedisSaver.
        confirm: Called between batches; raises an error if the run may not continue.
    """

    def __init__(
        self,
        store: CheckpointStore,
        parser: KeyParser,
        compact: CompactKeys,
        confirm: Callable[[], object] = lambda: None,
    ) -> None:
        self._store = store
        self._parser = parser
        self._compact = compact
        self._confirm = confirm
        self._quick = QuickKeys(parser)

    def spool(self) -> KeySpool:
        """Return an empty spool for the keys, for use as a context manager."""
        return KeySpool(self._store.size(), self._quick.threads_of)

    def run(
        self,
        wanted: Wanted,
        spool: KeySpool,
        *,
        with_items: bool = False,
        text: str = "",
        enough: Callable[[Scanned], bool] = lambda scanned: False,
    ) -> Scanned:
        """Fill the spool with the keys of the threads; return the other results of the scan.

        Args:
            wanted: The threads.
            spool: Takes the keys, completed from their values.
            with_items: Whether to note the keys of LangGraph's store.
            text: A text without special characters of globs that is in the names of all these keys: Redis omits other
                keys. Empty for no such text.
            enough: Called with the results so far; returns whether to stop the scan.
        """
        found = Scanned()

        def restarted() -> None:
            spool.clear()
            found.clear()

        has_enough = False
        for keys in self._store.scan(restarted, f"*{text}*".encode() if text else None):
            if has_enough:
                found.complete = False
                break
            self._confirm()
            found.looked_at += SCAN_COUNT if text else len(keys)
            others = self._compact_set_aside(keys, wanted, found)
            found.items += [key for key in others if key.startswith(STORE_HEADS)] if with_items else []
            own = [key for key in self._store.complete(self._parsed(others)) if wanted.may_have(key)]
            spool.add(own)
            found.found += len(own)
            has_enough = enough(found)
        return found

    def keys_in(self, spool: KeySpool) -> Iterator[list[CheckpointKey]]:
        """Yield the keys, all keys of some threads at a time."""
        for part in spool:
            yield [*part.keys, *self._parsed(part.text.split(b"\n"))]

    def _compact_set_aside(self, keys: list[bytes], wanted: Wanted, found: Scanned) -> list[bytes]:
        """Note the wanted threads of CompactRedisSaver; return the other keys that may belong to wanted threads."""
        known = self._quick.threads_of(keys)
        likely = [key for key, name in zip(keys, known, strict=True) if name and _may_be(name, wanted)]
        others = sort_out([key for key, name in zip(keys, known, strict=True) if not name], self._compact)
        for thread in self._compact.threads_in(others[True]):
            if wanted.has(thread.name):
                found.compact[thread.name] = thread
                found.found += 1
        return [*likely, *others[False]]

    def _parsed(self, keys: Iterable[bytes]) -> Iterator[CheckpointKey]:
        return filter(None, map(self._parser.parse, filter(None, keys)))


def _may_be(name: bytes, wanted: Wanted) -> bool:
    return wanted.has(name) or wanted.has(b"{" + name + b"}")
