"""A pass of an erasure: find threads by a scan, and delete them regardless of their age."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ai_ops.checkpoints.logic.compact_keys import CompactKeys
from ai_ops.checkpoints.logic.compact_keys import Thread as CompactThread
from ai_ops.checkpoints.logic.deletion import Deletion
from ai_ops.checkpoints.logic.erasure import (
    COMPACT_FAMILY,
    STORE_FAMILY,
    Erased,
    Targets,
    counted,
    erasing,
    late_deletion,
)
from ai_ops.checkpoints.logic.keys import CheckpointKey, KeyParser
from ai_ops.checkpoints.logic.retention import RetentionPolicy
from ai_ops.checkpoints.logic.threads import Thread, group_threads
from ai_ops.checkpoints.logic.values import first_found, json_in
from ai_ops.checkpoints.redis.store import CheckpointStore
from ai_ops.checkpoints.redis.thread_scan import ThreadScan
from ai_ops.logic.batches import batches

if TYPE_CHECKING:
    from ai_ops.checkpoints.redis.compact_trims import Trims

DELETED_AT_ONCE = 100
# LangGraph's store puts a backslash before each character that ends a word in its index.
_ESCAPED = re.compile(r"\\(.)")

# Deletes the two keys of threads, unless they have types that the saver does not write. ARGV: "1" for a dry run.
DROP_COMPACT = """
local found = 0
for index = 1, #KEYS do
  local kind = redis.call('TYPE', KEYS[index]).ok
  if kind == 'hash' or kind == 'zset' then
    found = found + 1
    if ARGV[1] ~= '1' then redis.call('UNLINK', KEYS[index]) end
  end
end
return found
"""
# Deletes items of a store. The type shows whether a key with this name belongs to another program.
DROP_STORE = DROP_COMPACT.replace("kind == 'hash' or kind == 'zset'", "kind == 'ReJSON-RL' or kind == 'hash'")

# Sets a pointer to a new value, if it has not changed. KEYS: the pointer. ARGV: the old and the new value.
REPOINT = """
if redis.call('TYPE', KEYS[1]).ok ~= 'string' or redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""


class Eraser:
    """Finds the keys of threads, and deletes them.

    Args:
        store: The Redis with the threads.
        parser: Parses keys.
        compact: The names of the keys of CompactRedisSaver.
        confirm: Called between batches; raises an error if the run may not continue.
        dryrun: Whether to only find the keys.
    """

    def __init__(
        self,
        store: CheckpointStore,
        parser: KeyParser,
        compact: CompactKeys,
        confirm: Callable[[], object] = lambda: None,
        *,
        dryrun: bool = False,
    ) -> None:
        self._store = store
        self._redis = store.redis
        self._parser = parser
        self._scan = ThreadScan(store, parser, compact, confirm)
        self._compact = compact
        self._confirm = confirm
        self._dryrun = dryrun

    def erase(self, targets: Targets, pins: RetentionPolicy, store_namespaces: Sequence[str] = ()) -> Erased:
        """Delete all keys of the threads, and the items of the store under the namespaces.

        Args:
            targets: The threads.
            pins: A policy that covers the threads that may be erased.
            store_namespaces: Namespaces of LangGraph's store, their parts joined by dots.
        """
        found = Erased()
        with self._scan.spool() as spool:
            scanned = self._scan.run(targets, spool, with_items=bool(store_namespaces))
            for keys in self._scan.keys_in(spool):
                threads = [each for each in group_threads(keys) if self._is_target(each, targets, pins, found)]
                for batch in batches(threads, DELETED_AT_ONCE):
                    self._apply([erasing(thread) for thread in batch], found)
        self._erase_compact(scanned.compact, pins, found)
        self._erase_items(scanned.items, store_namespaces, found)
        return found

    def erase_late(self, guards: Mapping[Targets, float]) -> Erased:
        """Delete keys of erased threads with a time before their erasure, and their descendants.

        Args:
            guards: The erased threads, and the time of each erasure, in seconds since 1970.
        """
        found = Erased()
        every = _AnyOf(guards)
        with self._scan.spool() as spool:
            scanned = self._scan.run(every, spool)
            for keys in self._scan.keys_in(spool):
                threads = [each for each in group_threads(keys) if every.has(each.names[0])]
                lineage = self._store.lineage([doc.key for thread in threads for doc in thread.documents()])
                times = {each.parent_id: self._parser.time_of(each.parent_id) for each in lineage.values()}
                for thread in threads:
                    if deletion := late_deletion(thread, lineage, every.erased_at(thread.names[0]), times):
                        self._repoint(thread, deletion)
                        self._apply([deletion], found)
        for each in scanned.compact.values():
            self._erase_late_compact(each, every.erased_at(each.name), found)
        return found

    def _is_target(self, thread: Thread, targets: Targets, pins: RetentionPolicy, found: Erased) -> bool:
        if not targets.has(thread.names[0]):
            if any(map(targets.has, thread.names)):
                found.uncertain += sum(1 for _ in thread.documents())
            return False
        if not pins.covers(thread.names):
            found.pinned.add(thread.names[0])
            return False
        return True

    def _apply(self, deletions: Sequence[Deletion], found: Erased) -> None:
        self._confirm()
        outcomes = self._store.apply(deletions, dryrun=self._dryrun)()
        found.by_family.update(counted(deletions))
        for deletion, outcome in zip(deletions, outcomes, strict=True):
            found.threads.add(deletion.thread)
            found.foreign += len(outcome.wrong_type)

    def _erase_compact(self, threads: Mapping[bytes, CompactThread], pins: RetentionPolicy, found: Erased) -> None:
        for name, thread in threads.items():
            if not pins.covers((name,)):
                found.pinned.add(name)
            elif count := self._drop(DROP_COMPACT, thread.keys):
                found.threads.add(name)
                found.by_family[COMPACT_FAMILY] += count

    def _drop(self, script: str, keys: Sequence[bytes]) -> int:
        """Delete keys that one script can reach; return their number."""
        self._confirm()
        if not self._dryrun:
            self._redis.claim()
        answer = self._redis.script(script, keys, [b"1" if self._dryrun else b"0"])
        self._redis.settle()
        return int(answer.value or 0)

    def _erase_items(self, keys: Sequence[bytes], namespaces: Sequence[str], found: Erased) -> None:
        """Delete the items of the store under some namespaces, with their vectors."""
        for key, reading in self._redis.read(keys, "$.prefix"):
            text = first_found(json_in(reading.text)) if reading.is_document else None
            prefix = _ESCAPED.sub(r"\1", text) if isinstance(text, str) else None
            if prefix is not None and any(prefix == each or prefix.startswith(f"{each}.") for each in namespaces):
                found.by_family[STORE_FAMILY] += self._drop(DROP_STORE, [key])

    def _repoint(self, thread: Thread, deletion: Deletion) -> None:
        """Set the pointers of a new conversation's namespaces to its newest checkpoints."""
        gone = {key for keys in deletion.keys.values() for key in keys}
        for space in thread.namespaces.values():
            left = [document for document in space.newest_first() if document.key not in gone]
            pointers = [pointer for pointer in set(space.pointers) if pointer not in gone]
            for pointer, head in self._store.heads(pointers).items() if left and not self._dryrun else ():
                if head.key in gone and not pointer.startswith(b"thread:"):
                    self._redis.script(REPOINT, [pointer], [head.key, left[0].key])
        self._redis.settle()

    @property
    def _trims(self) -> Trims:
        # This imports LangGraph, so it is imported only if there is such a thread.
        from ai_ops.checkpoints.redis.compact_trims import Trims

        return Trims(self._redis, self._compact.prefix)

    def _erase_late_compact(self, thread: CompactThread, erased_at: float, found: Erased) -> None:
        def is_old(checkpoint_id: bytes) -> bool:
            made = self._parser.time_of(checkpoint_id)
            return made is not None and made < erased_at

        trim = self._trims.descended(thread.keys, is_old)
        if trim is None or not trim.to_delete:
            return
        if len(trim.to_delete) == len(trim.thread.documents):
            count = self._drop(DROP_COMPACT, thread.keys)
        else:
            self._redis.claim()
            count = len(trim.to_delete) if self._dryrun or self._trims.apply([trim])[0] else 0
        found.by_family[COMPACT_FAMILY] += count
        if count:
            found.threads.add(thread.name)


class _AnyOf:
    """The threads of several erasures."""

    def __init__(self, guards: Mapping[Targets, float]) -> None:
        self._guards = guards

    def has(self, name: bytes) -> bool:
        """Return whether one of the erasures covers a thread with this id."""
        return any(targets.has(name) for targets in self._guards)

    def may_have(self, key: CheckpointKey) -> bool:
        """Return whether a key may belong to such a thread."""
        return any(targets.may_have(key) for targets in self._guards)

    def erased_at(self, name: bytes) -> float:
        """Return the time of the last erasure of this thread."""
        return max(time for targets, time in self._guards.items() if targets.has(name))
