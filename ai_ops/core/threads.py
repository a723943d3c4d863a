"""Threads, built from the keys of their checkpoints.

Nothing here reads or writes. Times are seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ai_ops.core.checkpoint_keys import ORPHAN_GRACE, ROOT_NAMESPACE, VALKEY_LIST, CheckpointKey, Family


class Document(NamedTuple):
    """A checkpoint itself.

    Attributes:
        key: Its key in Redis.
        checkpoint_id: Its id, from the key, or from the value where the key has none or another's.
        time: When it was made; None where neither key nor value says.
        bears_parents_id: Whether the key has the id of the checkpoint it was made from. The next turn overwrites
            the newest such document, so that a key of long ago may hold the checkpoint of a moment ago.
    """

    key: bytes
    checkpoint_id: bytes
    time: float | None
    bears_parents_id: bool = False

    @property
    def is_shallow(self) -> bool:
        """Whether the key has no id: each turn overwrites the document."""
        if self.bears_parents_id:
            return False
        return not self.key.endswith(b":" + self.checkpoint_id) or not self.checkpoint_id


class Satellite(NamedTuple):
    """A key that belongs to a checkpoint: a write, a registry of writes, a stub in the checkpoint's place."""

    family: int
    key: bytes
    checkpoint_id: bytes
    time: float | None


@dataclass(slots=True)
class Namespace:
    """All that one namespace of a thread has in Redis.

    `certain` is False while only the shape of the keys says that it is one of its thread's.
    """

    name: bytes
    documents: dict[bytes, Document] = field(default_factory=dict)
    pointers: list[bytes] = field(default_factory=list)
    satellites: list[Satellite] = field(default_factory=list)
    blobs: list[bytes] = field(default_factory=list)
    certain: bool = True

    @property
    def is_shallow(self) -> bool:
        """Whether a shallow saver wrote it: one document, which each turn overwrites."""
        return any(document.is_shallow for document in self.documents.values())

    @property
    def is_root(self) -> bool:
        """Whether this is the graph's own namespace rather than a subgraph's."""
        return self.name in (ROOT_NAMESPACE, b"")

    def newest_first(self) -> list[Document]:
        """Its checkpoints, of which all must be dated."""
        return sorted(
            self.documents.values(), key=lambda document: (document.time or 0.0, document.checkpoint_id), reverse=True
        )

    def writes_of(self, checkpoint_id: bytes) -> list[bytes]:
        """The keys of the writes that a checkpoint has."""
        return [
            satellite.key
            for satellite in self.satellites
            if satellite.family == Family.WRITE and satellite.checkpoint_id == checkpoint_id
        ]


@dataclass(slots=True)
class Thread:
    """A conversation: its namespaces, and the names it may have.

    A key does not always tell where the thread's id ends. `names` holds every possibility; the first is
    the likeliest.
    """

    names: tuple[bytes, ...]
    namespaces: dict[bytes, Namespace] = field(default_factory=dict)

    def documents(self) -> Iterator[Document]:
        """The checkpoints of all namespaces."""
        for namespace in self.namespaces.values():
            yield from namespace.documents.values()

    def possible_names(self) -> Iterator[bytes]:
        """Every thread id that one of its keys may be of: a plain key of ``a:b`` looks like namespace b of ``a``."""
        yield from self.names
        for namespace in self.namespaces.values():
            if not namespace.certain:
                yield self.names[0] + b":" + namespace.name

    def last_activity(self) -> float | None:
        """When its newest checkpoint was made; None without checkpoints, or when one of them is undated."""
        times = [document.time for document in self.documents()]
        known = [time for time in times if time is not None]
        return max(known) if known and len(known) == len(times) else None

    def heads(self) -> list[tuple[Namespace, Document]]:
        """The newest checkpoint, and the root's newest: the places where an interrupt waits for its answer.

        An interrupt inside a subgraph is on the subgraph's newest checkpoint and on the root's.
        """
        newest = [(space, space.newest_first()[0]) for space in self.namespaces.values() if space.documents]
        last = max(newest, key=lambda head: head[1].time or 0.0, default=None)
        return [head for head in newest if head[0].is_root or head is last]


def group_threads(keys: Iterable[CheckpointKey]) -> list[Thread]:
    """Build threads from keys in any order, doubles allowed."""
    uncertain: list[CheckpointKey] = []
    threads: dict[bytes, Thread] = {}
    for key in keys:
        if key.certain:
            _file(threads, key, (key.thread,), key.namespace)
        else:
            uncertain.append(key)
    lists = {
        (name, space.name)
        for name, thread in threads.items()
        for space in thread.namespaces.values()
        if any(pointer.startswith(VALKEY_LIST) for pointer in space.pointers)
    }
    known = frozenset(threads)
    for key in uncertain:
        braced = b"{" + key.thread + b"}"
        if key.key.endswith(braced + b":" + key.namespace + b":" + key.checkpoint_id):
            is_valkey = (key.thread, key.namespace) in lists or braced not in known
            _file(threads, key, (key.thread if is_valkey else braced,), key.namespace)
        elif key.thread in known:
            _file(threads, key, (key.thread,), key.namespace, certain=False)
        else:
            _file(threads, key, (key.thread + b":" + key.namespace, key.thread), b"", certain=False)
    return list(threads.values())


def _file(
    threads: dict[bytes, Thread], key: CheckpointKey, names: tuple[bytes, ...], space: bytes, *, certain: bool = True
) -> None:
    thread = threads.get(names[0])
    if thread is None:
        thread = threads[names[0]] = Thread(names)
    namespace = thread.namespaces.get(space)
    if namespace is None:
        namespace = thread.namespaces[space] = Namespace(space, certain=certain)
    if key.family == Family.DOCUMENT:
        namespace.documents[key.checkpoint_id] = Document(key.key, key.checkpoint_id, key.time)
    elif key.family == Family.POINTER:
        namespace.pointers.append(key.key)
    elif key.family == Family.BLOB:
        namespace.blobs.append(key.key)
    else:
        namespace.satellites.append(Satellite(key.family, key.key, key.checkpoint_id, key.time))


def possible_stubs(threads: Iterable[Thread], now: float) -> list[Document]:
    """The documents that may be no checkpoints but stubs, which late writes left behind.

    A writer marks the document of its checkpoint; one that is gone becomes one again, with nothing but the
    mark. It has writes, and nothing points into its namespace.
    """
    found: list[Document] = []
    for thread in threads:
        for namespace in thread.namespaces.values():
            if namespace.pointers or not namespace.satellites:
                continue
            written = {satellite.checkpoint_id for satellite in namespace.satellites}
            documents = namespace.documents.values()
            found += [each for each in documents if each.checkpoint_id in written and is_past_grace(each.time, now)]
    return found


def set_stubs_aside(threads: Iterable[Thread], stubs: frozenset[bytes]) -> None:
    """Count stubs among the satellites: they are no checkpoints of `threads`."""
    for thread in threads if stubs else ():
        for namespace in thread.namespaces.values():
            for document in [each for each in namespace.documents.values() if each.key in stubs]:
                del namespace.documents[document.checkpoint_id]
                satellite = Satellite(Family.DOCUMENT, document.key, document.checkpoint_id, document.time)
                namespace.satellites.append(satellite)


def possibly_misnamed(threads: Iterable[Thread]) -> list[bytes]:
    """The keys of documents that may bear the id of the checkpoint before.

    langgraph-checkpoint-redis 0.0.4 to 0.0.8 puts a checkpoint under the id in the configuration it was given, which
    is that of the one before, or a UUID of nothing but zeros. Its blobs tell its threads from those of later versions.
    """
    return [
        document.key
        for thread in threads
        for namespace in thread.namespaces.values()
        if namespace.blobs and not namespace.pointers
        for document in namespace.documents.values()
        if not document.is_shallow
    ]


def set_own_ids(threads: Iterable[Thread], own: Mapping[bytes, Document]) -> None:
    """Give the documents of `threads` the ids and times in `own`, by key: those their values have."""
    for thread in threads if own else ():
        for namespace in thread.namespaces.values():
            documents = [own.get(each.key, each) for each in namespace.documents.values()]
            namespace.documents = {each.checkpoint_id: each for each in documents}


def is_past_grace(time: float | None, now: float) -> bool:
    """Whether what was made at `time` and has no owner was left behind rather than being written."""
    return time is not None and time < now - ORPHAN_GRACE
