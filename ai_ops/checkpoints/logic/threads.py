"""Construction of threads from the keys of their checkpoints.

This module has no input or output. Times are seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ai_ops.checkpoints.logic.keys import (
    ROOT_NAMESPACE,
    SHALLOW_ID,
    VALKEY_LIST,
    VALKEY_WRITES,
    CheckpointKey,
    Family,
    readings,
    split_braces,
    stem_of,
)
from ai_ops.checkpoints.logic.orphans import is_past_grace


class Document(NamedTuple):
    """The document of a checkpoint.

    Attributes:
        key: Its key in Redis.
        checkpoint_id: Its id, from the key, or from the value if the key has none or that of another checkpoint.
        time: Time of its creation; None if it is neither in the key nor in the value.
        bears_parents_id: Whether the key has the id of its parent. The next turn overwrites the newest such document,
            so that an old key may contain a new checkpoint.
    """

    key: bytes
    checkpoint_id: bytes
    time: float | None
    bears_parents_id: bool = False

    @property
    def is_shallow(self) -> bool:
        """Return whether the key has no id: each turn overwrites the document."""
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
    """All keys of a namespace of a thread."""

    name: bytes
    documents: dict[bytes, Document] = field(default_factory=dict)
    pointers: list[bytes] = field(default_factory=list)
    satellites: list[Satellite] = field(default_factory=list)
    blobs: list[bytes] = field(default_factory=list)

    @property
    def is_shallow(self) -> bool:
        """Return whether a shallow saver wrote it: a single document, which each turn overwrites."""
        return any(document.is_shallow for document in self.documents.values())

    @property
    def is_root(self) -> bool:
        """Return whether this is the graph's own namespace rather than a subgraph's."""
        return self.name in (ROOT_NAMESPACE, b"")

    def newest_first(self) -> list[Document]:
        """Return its checkpoints, which all must have times."""
        return sorted(
            self.documents.values(), key=lambda document: (document.time or 0.0, document.checkpoint_id), reverse=True
        )

    def writes_of(self, checkpoint_id: bytes) -> list[bytes]:
        """Return the keys of a checkpoint's writes."""
        return [
            satellite.key
            for satellite in self.satellites
            if satellite.family == Family.WRITE and satellite.checkpoint_id == checkpoint_id
        ]


@dataclass(slots=True)
class Thread:
    """A conversation: its namespaces, and the names it may have.

    Attributes:
        names: The thread's id; all possibilities if it is uncertain, the most likely first.
        namespaces: Its namespaces by name.
        kin: Threads that may be the same thread, because the owner of its documents is uncertain.
    """

    names: tuple[bytes, ...]
    namespaces: dict[bytes, Namespace] = field(default_factory=dict)
    kin: list[Thread] = field(default_factory=list)

    def documents(self) -> Iterator[Document]:
        """Return the checkpoints of all namespaces."""
        for namespace in self.namespaces.values():
            yield from namespace.documents.values()

    def last_activity(self) -> float | None:
        """Return the time of its newest checkpoint; None without checkpoints, or if one has no time."""
        times = [document.time for document in self.documents()]
        times += [document.time for other in self.kin if times for document in other.documents()]
        known = [time for time in times if time is not None]
        return max(known) if known and len(known) == len(times) else None

    def heads(self) -> list[tuple[Namespace, Document]]:
        """Return the newest checkpoint, and the root's newest, where an interrupt waits for its answer.

        An interrupt inside a subgraph is on the subgraph's newest checkpoint and on the root's.
        """
        newest = [(space, space.newest_first()[0]) for space in self.namespaces.values() if space.documents]
        last = max(newest, key=lambda head: head[1].time or 0.0, default=None)
        return [head for head in newest if head[0].is_root or head is last]


def group_threads(keys: Iterable[CheckpointKey]) -> list[Thread]:
    """Build threads from keys in any order; keys may repeat.

    Documents come first: most name their thread, and their other keys follow them. A document without names follows a
    pointer, a list or one of its writes; without these it forms a separate thread with all possible names.
    """
    grouping = _Grouping()
    documents: list[CheckpointKey] = []
    others: list[CheckpointKey] = []
    for key in keys:
        (documents if key.family == Family.DOCUMENT else others).append(key)
    for key in documents:
        if key.certain:
            grouping.file(key, (key.thread,), key.namespace)
    unsure = [key for key in documents if not key.certain]
    if unsure:
        grouping.file_unsure(unsure, others)
    for key in others:
        grouping.file_with_its_document(key)
    return list(grouping.threads.values())


class _Grouping:
    """The threads under construction."""

    def __init__(self) -> None:
        self.threads: dict[bytes, Thread] = {}
        # The namespace of a document with an uncertain key, by its stem and id.
        self._places: dict[tuple[bytes, bytes], Namespace] = {}

    def file(self, key: CheckpointKey, names: tuple[bytes, ...], space: bytes) -> Namespace:
        """Add a key to a namespace of the thread with these possible names."""
        thread = self.threads.get(names[0])
        if thread is None:
            thread = self.threads[names[0]] = Thread(names)
        elif len(names) > 1:
            thread.names = tuple(dict.fromkeys((*thread.names, *names)))
        namespace = thread.namespaces.get(space)
        if namespace is None:
            namespace = thread.namespaces[space] = Namespace(space)
        _put(namespace, key)
        return namespace

    def file_unsure(self, documents: list[CheckpointKey], others: list[CheckpointKey]) -> None:
        """Add documents that do not name their thread."""
        evidence = _Evidence(others)
        known = dict(self.threads)
        for key in documents:
            stem = stem_of(key)
            possible = evidence.readings_of(stem, key.checkpoint_id)
            # The name of an existing thread is as likely as the first.
            name, space = next((each for each in possible if each[1] == b"" and each[0] in known), possible[0])
            names = tuple(dict.fromkeys((name, *(each for each, _ in possible))))
            self._places[stem, key.checkpoint_id] = self.file(key, names, space)
            thread = self.threads[name]
            for other in (known[each] for each in names if each in known):
                _make_kin(thread, other)

    def file_with_its_document(self, key: CheckpointKey) -> None:
        """Add a key or a pointer to the thread of its document, or to a thread of its own without a document."""
        spaces = self._possible_spaces(key)
        for name, space in spaces:
            namespace = self._namespace(name, space)
            if namespace is not None and _is_owned_by(namespace, key):
                _put(namespace, key)
                return
        place = self._places.get((stem_of(key), key.checkpoint_id))
        if place is not None:
            _put(place, key)
        else:
            self.file(key, (spaces[0][0],), spaces[0][1])

    def _namespace(self, name: bytes, space: bytes) -> Namespace | None:
        thread = self.threads.get(name)
        return None if thread is None else thread.namespaces.get(space)

    def _possible_spaces(self, key: CheckpointKey) -> list[tuple[bytes, bytes]]:
        """Return the possible places of the document, the saver's spelling first."""
        spaces = [(key.thread, key.namespace)]
        if not key.certain and key.key.startswith((VALKEY_LIST, VALKEY_WRITES)):
            if (split := split_braces(stem_of(key))) is not None:
                spaces.insert(0, split)
        elif key.namespace == b"" and key.family != Family.POINTER:
            # RedisSaver before 0.1.3 and Shallow savers before 0.4.1 leave the root's mark out of their registries.
            spaces.append((key.thread, ROOT_NAMESPACE))
        return spaces


class _Evidence:
    """Evidence from pointers, lists and writes on documents that do not name their thread."""

    def __init__(self, others: Iterable[CheckpointKey]) -> None:
        self._lists: set[bytes] = set()
        self._of_redis: set[tuple[bytes, bytes]] = set()
        for key in others:
            if not key.key.startswith((VALKEY_LIST, VALKEY_WRITES)):
                self._of_redis.add((stem_of(key), key.checkpoint_id))
            elif key.family == Family.POINTER:
                self._lists.add(stem_of(key))

    def readings_of(self, stem: bytes, checkpoint_id: bytes) -> list[tuple[bytes, bytes]]:
        """Return the possible (thread, namespace) of a document, the most likely first.

        All of them, because another thread may have the same names, and a pin must protect the intended one.
        """
        possible, split = readings(stem), split_braces(stem)
        if stem in self._lists:
            # ValkeySaver's: before 1.0.4 the braces are the thread's own, and there are none of the saver.
            return sorted(possible, key=lambda each: (each[0] == stem, each != split))
        if (stem, b"") in self._of_redis or (stem, checkpoint_id) in self._of_redis:
            return sorted(possible, key=lambda each: each in (split, (stem, b"")))
        return possible


def _make_kin(one: Thread, other: Thread) -> None:
    if other is not one and all(other is not each for each in one.kin):
        one.kin.append(other)
        other.kin.append(one)


def _is_owned_by(namespace: Namespace, key: CheckpointKey) -> bool:
    """Return whether the document of a key, or one to which it may point, is in a namespace."""
    if key.key.startswith((VALKEY_LIST, VALKEY_WRITES)):
        # ValkeySaver's own document has the same stem, regardless of other keys in the namespace.
        document = namespace.documents.get(key.checkpoint_id)
        own = b"checkpoint:" + stem_of(key) + b":"
        if key.checkpoint_id:
            return document is not None and document.key == own + key.checkpoint_id
        return any(document.key.startswith(own) for document in namespace.documents.values())
    if not namespace.documents:
        return False
    return not key.checkpoint_id or key.checkpoint_id in (SHALLOW_ID, *namespace.documents) or namespace.is_shallow


def _put(namespace: Namespace, key: CheckpointKey) -> None:
    if key.family == Family.DOCUMENT:
        namespace.documents[key.checkpoint_id] = Document(key.key, key.checkpoint_id, key.time)
    elif key.family == Family.POINTER:
        namespace.pointers.append(key.key)
    elif key.family == Family.BLOB:
        namespace.blobs.append(key.key)
    else:
        namespace.satellites.append(Satellite(key.family, key.key, key.checkpoint_id, key.time))


def possible_stubs(threads: Iterable[Thread], now: float) -> list[Document]:
    """Return the documents that may be stubs of late writes instead of checkpoints.

    A writer sets a flag in the document of its checkpoint, which recreates a deleted document with only this flag. A
    stub has writes, and no pointer names its namespace.
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
    """Move stubs to the satellites, because they are not checkpoints of `threads`."""
    for thread in threads if stubs else ():
        for namespace in thread.namespaces.values():
            for document in [each for each in namespace.documents.values() if each.key in stubs]:
                del namespace.documents[document.checkpoint_id]
                satellite = Satellite(Family.DOCUMENT, document.key, document.checkpoint_id, document.time)
                namespace.satellites.append(satellite)


def possibly_misnamed(threads: Iterable[Thread]) -> list[bytes]:
    """Return the keys of documents that may have the id of the previous checkpoint.

    langgraph-checkpoint-redis 0.0.4 to 0.0.8 stores a checkpoint under the id in its configuration, which is that of
    the previous checkpoint, or a UUID of zeros. Its blobs distinguish its threads from those of later versions.
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
    """Set the ids and times of the documents of `threads` to those of their values, in `own` by key."""
    for thread in threads if own else ():
        for namespace in thread.namespaces.values():
            documents = [own.get(each.key, each) for each in namespace.documents.values()]
            namespace.documents = {each.checkpoint_id: each for each in documents}
