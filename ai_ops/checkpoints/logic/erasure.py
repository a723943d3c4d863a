"""Erasure of whole threads: the requested threads, their keys, and late writes to them.

This module has no input or output. Times are seconds since 1970.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ai_ops.checkpoints.logic.deletion import Deletion, Reason
from ai_ops.checkpoints.logic.keys import CheckpointKey, Family, readings, stem_of
from ai_ops.checkpoints.logic.lookups import Lineage
from ai_ops.checkpoints.logic.threads import Namespace, Thread
from ai_ops.logic.concealment import CONCEALED, is_concealed
from ai_ops.logic.globs import compiled

FAMILIES = {
    Family.POINTER: "pointers",
    Family.DOCUMENT: "checkpoints",
    Family.WRITE: "writes",
    Family.REGISTRY: "registries",
    Family.BLOB: "blobs",
}
COMPACT_FAMILY, STORE_FAMILY = "compact threads", "store items"

# The arguments of an erasure that contain names.
NAMING = ("thread_ids", "thread_pattern", "store_namespaces")


@dataclass(frozen=True)
class Targets:
    """The threads to erase.

    Attributes:
        ids: Their ids.
        pattern: A glob for the ids of further threads; None for no others.
        hashes: SHA-256 of the ids of further threads, in hexadecimal digits.
    """

    ids: frozenset[bytes] = frozenset()
    pattern: str | None = None
    hashes: frozenset[str] = frozenset()

    def has(self, name: bytes) -> bool:
        """Return whether the thread with this id is requested."""
        if name in self.ids:
            return True
        if self.pattern is not None and compiled(self.pattern).match(name.decode(errors="surrogateescape")):
            return True
        return bool(self.hashes) and hashed(name) in self.hashes

    def may_have(self, key: CheckpointKey) -> bool:
        """Return whether a key may belong to a requested thread in any interpretation."""
        names = {key.thread, key.thread.strip(b"{}"), *(name for name, _ in readings(stem_of(key)))}
        return any(map(self.has, names))


def hashed(name: bytes) -> str:
    """Return the SHA-256 of a thread's id, in hexadecimal digits."""
    return hashlib.sha256(name).hexdigest()


def concealed(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of an erasure with names as SHA-256; a text keeps one name per line."""
    found = dict(arguments)
    for argument in NAMING:
        value = found.get(argument)
        if isinstance(value, str):
            found[argument] = "\n".join(_concealed(line) for line in value.splitlines() if line.strip())
        elif isinstance(value, Sequence):
            found[argument] = [_concealed(str(each)) for each in value]
    return found


def _concealed(name: str) -> str:
    return name if is_concealed(name) else CONCEALED + hashed(name.encode(errors="surrogateescape"))


@dataclass
class Erased:
    """The findings and deletions of a scan.

    Attributes:
        threads: Ids of the threads with keys.
        by_family: Number of deleted keys, or of keys to delete in a dry run, by family.
        pinned: Ids of pinned threads, which stay.
        uncertain: Keys that may belong to these threads or to others; they stay.
        foreign: Keys with such names and a type that no saver writes; they stay.
    """

    threads: set[bytes] = field(default_factory=set)
    by_family: Counter[str] = field(default_factory=Counter)
    pinned: set[bytes] = field(default_factory=set)
    uncertain: int = 0
    foreign: int = 0

    @property
    def keys(self) -> int:
        """Return the number of keys."""
        return self.by_family.total()


@dataclass(frozen=True)
class ErasureReport:
    """The report of an erasure, or of its dry run.

    Attributes:
        error: The reason why keys are left, as a sentence; None if no key is left.
        dryrun: Whether nothing was deleted.
        verified: Whether a final scan found no key left.
        deleted_count: Number of deleted keys.
        deleted_by_family: Number of deleted keys by family.
        thread_count: Number of threads with deleted keys.
        threads: The first of their ids.
        pinned_threads: The first of the pinned threads, which stay.
        uncertain_keys: Number of keys that stay because they may belong to another thread.
        rounds: Number of scans.
        seconds: Duration of the erasure.
        erasure: The id of the record.
    """

    error: str | None = None
    dryrun: bool = False
    verified: bool = False
    deleted_count: int = 0
    deleted_by_family: dict[str, int] = field(default_factory=dict)
    thread_count: int = 0
    threads: tuple[str, ...] = ()
    pinned_threads: tuple[str, ...] = ()
    uncertain_keys: int = 0
    rounds: int = 0
    seconds: float = 0.0
    erasure: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the result of `erase_threads`: `success`, and every attribute by its name, in a form for JSON."""
        lists = {"threads": list(self.threads), "pinned_threads": list(self.pinned_threads)}
        return {"success": self.error is None, **asdict(self), **lists}


def erasing(thread: Thread) -> Deletion:
    """Return the deletion of all keys of a thread in any state."""
    spaces = sorted(thread.namespaces.values(), key=lambda space: not space.is_root)
    return _deletion(thread, spaces, {id(space): set(space.documents) for space in spaces}, everything=True)


def late_deletion(
    thread: Thread,
    lineage: Mapping[bytes, Lineage],
    erased_at: float,
    time_of: Mapping[bytes, float | None],
) -> Deletion | None:
    """Return the deletion of late writes to an erased thread; None if there are none.

    Late writes are keys with a time before the erasure, and checkpoints that descend from one of them: the turn of a
    writer that had read the thread before its erasure. A new conversation has a first checkpoint without a parent.

    Args:
        thread: A thread with the name of an erased thread.
        lineage: The parents of its documents, by key.
        erased_at: The time of the erasure.
        time_of: The times of ids, by id.
    """
    to_delete = {id(space): _tainted(space, lineage, erased_at, time_of) for space in thread.namespaces.values()}
    spaces = list(thread.namespaces.values())
    # A subgraph's first checkpoint has no parent. The graph's own namespace shows its origin.
    telling = [space for space in spaces if space.is_root and space.documents] or [s for s in spaces if s.documents]
    everything = bool(telling) and all(len(to_delete[id(space)]) == len(space.documents) for space in telling)
    if everything:
        to_delete = {id(space): set(space.documents) for space in spaces}
    found = _deletion(thread, spaces, to_delete, everything=everything, erased_at=erased_at)
    return found if found.size or found.list_entries else None


def _tainted(
    space: Namespace, lineage: Mapping[bytes, Lineage], erased_at: float, time_of: Mapping[bytes, float | None]
) -> set[bytes]:
    """Return the ids of a namespace's checkpoints that continue an erased thread."""
    found: set[bytes] = set()
    for document in reversed(space.newest_first()):
        links = lineage.get(document.key)
        parent = links.parent_id if links else b""
        made = time_of.get(parent)
        if (
            (document.time is not None and document.time < erased_at)
            or parent in found
            or (parent and parent not in space.documents and made is not None and made < erased_at)
        ):
            found.add(document.checkpoint_id)
    return found


def _deletion(
    thread: Thread,
    spaces: Sequence[Namespace],
    to_delete: Mapping[int, set[bytes]],
    *,
    everything: bool,
    erased_at: float = 0.0,
) -> Deletion:
    keys: dict[int, dict[bytes, None]] = {family: {} for family in FAMILIES}
    entries: list[tuple[bytes, bytes]] = []
    for space in spaces:
        ids = to_delete[id(space)]
        whole = everything or (bool(ids) and len(ids) == len(space.documents))
        keys[Family.DOCUMENT].update((space.documents[each].key, None) for each in ids)
        if whole:
            keys[Family.POINTER].update(dict.fromkeys(space.pointers))
            keys[Family.BLOB].update(dict.fromkeys(space.blobs))
        else:
            entries += [(pointer, each) for pointer in set(space.pointers) for each in ids]
        for satellite in space.satellites:
            is_late = satellite.time is not None and satellite.time < erased_at
            if whole or satellite.checkpoint_id in ids or (satellite.checkpoint_id not in space.documents and is_late):
                keys[satellite.family][satellite.key] = None
    by_family = {family: tuple(some) for family, some in keys.items() if some}
    return Deletion(thread.names[0], Reason.EXPIRED, (), (), tuple(entries), by_family, len(spaces), None)


def counted(deletions: Iterable[Deletion]) -> Counter[str]:
    """Return the number of deleted keys by family."""
    found: Counter[str] = Counter()
    for deletion in deletions:
        found.update({FAMILIES[family]: len(keys) for family, keys in deletion.keys.items()})
    return found
