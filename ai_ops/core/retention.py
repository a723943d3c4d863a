"""Which checkpoints go: threads built from keys, and a plan made from threads.

Nothing here reads or writes. What the keys do not say (the time of a document with an opaque id, where a
pointer points, what a DeltaChannel still needs) arrives as `Facts`, asked for by the functions that name
the documents in question. Times are seconds since 1970.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from ai_ops.core.checkpoint_keys import (
    INTERRUPT_INDEX,
    ORPHAN_GRACE,
    ROOT_NAMESPACE,
    CheckpointKey,
    Family,
    KeyPrefixes,
)

DAY = 86_400.0


@dataclass(frozen=True)
class RetentionPolicy:
    """What may go, as one run applies it.

    Attributes:
        retention: Seconds past which a checkpoint may go.
        pending_retention: Seconds past which a thread that waits for a person's answer may go.
        trim_live_threads: Whether old checkpoints of live threads go.
        keep_last: Checkpoints that each namespace of a live thread keeps, at least 1.
        thread_pattern: A glob over thread ids; other threads are left alone. None for all threads.
        pinned: Thread ids that are left alone.
        prefixes: What RedisSaver's keys begin with.
    """

    retention: float
    pending_retention: float
    trim_live_threads: bool = True
    keep_last: int = 1
    thread_pattern: str | None = None
    pinned: frozenset[str] = frozenset()
    prefixes: KeyPrefixes = field(default_factory=KeyPrefixes)

    def covers(self, names: Iterable[bytes]) -> bool:
        """Whether a thread that may have any of these names is subject to the policy at all."""
        texts = [name.decode(errors="surrogateescape") for name in names]
        if not self.pinned.isdisjoint(texts):
            return False
        if self.thread_pattern is None:
            return True
        matches = re.compile(fnmatch.translate(self.thread_pattern)).match
        return all(matches(text) for text in texts)


class Document(NamedTuple):
    """A checkpoint itself.

    Attributes:
        key: Its key in Redis.
        checkpoint_id: Its id; empty for a shallow saver's, whose key has none.
        time: When it was made; None where the key does not say.
    """

    key: bytes
    checkpoint_id: bytes
    time: float | None


class Satellite(NamedTuple):
    """A key that belongs to a checkpoint: a write, a registry of writes, a stub in the checkpoint's place."""

    family: Family
    key: bytes
    checkpoint_id: bytes
    time: float | None


@dataclass(slots=True)
class Namespace:
    """All that one namespace of a thread has in Redis."""

    name: bytes
    documents: dict[bytes, Document] = field(default_factory=dict)
    pointers: list[bytes] = field(default_factory=list)
    satellites: list[Satellite] = field(default_factory=list)
    blobs: list[bytes] = field(default_factory=list)

    @property
    def is_root(self) -> bool:
        """Whether this is the graph's own namespace rather than a subgraph's."""
        return self.name in (ROOT_NAMESPACE, b"")

    def waits_for_answer(self, checkpoint_id: bytes) -> bool:
        """Whether the keys show an interrupt on that checkpoint."""
        return any(
            satellite.family is Family.WRITE
            and satellite.checkpoint_id == checkpoint_id
            and satellite.key.endswith(b":" + INTERRUPT_INDEX)
            for satellite in self.satellites
        )


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


class Lineage(NamedTuple):
    """What a document says of its ancestors.

    Attributes:
        parent_id: The id of the checkpoint it was made from; empty for the first.
        depth: How many ancestors its DeltaChannels are read from; 0 without any.
    """

    parent_id: bytes
    depth: int


@dataclass(frozen=True)
class Facts:
    """What only the values in Redis say.

    Attributes:
        times: Times of undated documents by key; None where the document has none either.
        heads: The document that a pointer or list names as its namespace's newest, by the pointer's key.
        lineage: What documents say of their ancestors, by key.
        waiting: Keys of documents on which an interrupt waits, where only the value says so.
    """

    times: Mapping[bytes, float | None] = field(default_factory=dict)
    heads: Mapping[bytes, Document] = field(default_factory=dict)
    lineage: Mapping[bytes, Lineage] = field(default_factory=dict)
    waiting: frozenset[bytes] = frozenset()

    def time(self, document: Document) -> float | None:
        """When the document was made, from its key or from its value."""
        return document.time if document.time is not None else self.times.get(document.key)


class Reason(Enum):
    """Why keys go."""

    EXPIRED = "expired"
    TRIMMED = "trimmed"
    ORPHANED = "orphaned"


@dataclass(frozen=True)
class Guard:
    """A pointer that must still say what the plan was made from.

    Attributes:
        key: The pointer, or ValkeySaver's list.
        documents: Any of these documents it may name; the likeliest is first. It goes with them.
    """

    key: bytes
    documents: tuple[Document, ...]


@dataclass(frozen=True)
class Deletion:
    """Keys that go together, and the conditions under which they do.

    Attributes:
        thread: The thread they belong to.
        reason: Why they go.
        guards: Pointers compared and deleted in one step, before anything else; one changed keeps all.
        owners: Documents that must still be missing.
        keys: The other keys by family, in the order of deletion.
        namespaces: How many namespaces they are from.
        last_activity: The thread's newest checkpoint, seconds since 1970; None for orphans.
    """

    thread: bytes
    reason: Reason
    guards: tuple[Guard, ...]
    owners: tuple[bytes, ...]
    keys: Mapping[Family, tuple[bytes, ...]]
    namespaces: int
    last_activity: float | None

    @property
    def size(self) -> int:
        """How many keys it deletes, pointers included."""
        return len(self.guards) + sum(map(len, self.keys.values()))

    @property
    def checkpoints(self) -> int:
        """How many checkpoints it deletes."""
        return len(self.keys.get(Family.DOCUMENT, ()))


@dataclass(frozen=True)
class CleanupPlan:
    """What a group of threads has to give.

    Attributes:
        deletions: What goes.
        kept_threads: How many threads stay.
        unfixable: Keys without a readable time, which stay.
    """

    deletions: tuple[Deletion, ...]
    kept_threads: int
    unfixable: tuple[bytes, ...]


def group_threads(keys: Iterable[CheckpointKey]) -> list[Thread]:
    """Build threads from keys in any order, doubles allowed."""
    uncertain: list[CheckpointKey] = []
    threads: dict[bytes, Thread] = {}
    for key in keys:
        if key.certain:
            _file(threads, key, key.thread, key.namespace, (key.thread,))
        else:
            uncertain.append(key)
    known = frozenset(threads)
    for key in uncertain:
        if key.thread in known:
            _file(threads, key, key.thread, key.namespace, (key.thread,))
        else:
            whole = key.thread + b":" + key.namespace
            _file(threads, key, whole, b"", (whole, key.thread))
    return list(threads.values())


def undated_documents(threads: Iterable[Thread]) -> list[Document]:
    """The documents whose keys tell no time."""
    return [document for thread in threads for document in thread.documents() if document.time is None]


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
            found += [each for each in documents if each.checkpoint_id in written and _is_past_grace(each.time, now)]
    return found


def set_stubs_aside(threads: Iterable[Thread], stubs: frozenset[bytes]) -> None:
    """Count stubs among the satellites: they are no checkpoints of `threads`."""
    for thread in threads if stubs else ():
        for namespace in thread.namespaces.values():
            for document in [each for each in namespace.documents.values() if each.key in stubs]:
                del namespace.documents[document.checkpoint_id]
                namespace.satellites.append(Satellite(Family.DOCUMENT, *document))


def trimmable(threads: Iterable[Thread], facts: Facts, policy: RetentionPolicy, now: float) -> list[Namespace]:
    """The namespaces of live threads that have checkpoints past the retention beside newer ones."""
    if not policy.trim_live_threads:
        return []
    found: list[Namespace] = []
    for thread in threads:
        times = [facts.time(document) for document in thread.documents()]
        if not times or None in times or not policy.covers(thread.names):
            continue
        if max(time for time in times if time is not None) < now - policy.retention:
            continue
        found += [
            namespace
            for namespace in thread.namespaces.values()
            if len(namespace.documents) > policy.keep_last
            and any((facts.time(each) or now) < now - policy.retention for each in namespace.documents.values())
        ]
    return found


def lone_pointers(threads: Iterable[Thread]) -> list[bytes]:
    """The pointers of namespaces that have no checkpoint."""
    return [
        pointer
        for thread in threads
        for namespace in thread.namespaces.values()
        if not namespace.documents
        for pointer in namespace.pointers
    ]


def make_plan(threads: Iterable[Thread], facts: Facts, policy: RetentionPolicy, now: float) -> CleanupPlan:
    """Decide what goes of `threads`."""
    deletions: list[Deletion] = []
    unfixable: list[bytes] = []
    kept = 0
    for thread in threads:
        undated = [document.key for document in thread.documents() if facts.time(document) is None]
        unfixable += undated
        unfixable += _undated_satellites(thread)
        if not policy.covers(thread.names):
            kept += 1
            continue
        newest = max((facts.time(document) or now for document in thread.documents()), default=None)
        if newest is None:
            unfixable += [pointer for pointer in lone_pointers([thread]) if _named_time(pointer, facts) is None]
            deletions += _orphans(thread, facts, policy, now)
            continue
        # One checkpoint of unknown age may be the newest: then nothing of the thread is known to be old.
        waiting = not undated and _waits_for_answer(thread, facts)
        retention = policy.pending_retention if waiting else policy.retention
        if not undated and newest < now - retention:
            deletions.append(_whole_thread(thread, facts, newest))
            continue
        kept += 1
        if not undated:
            if policy.trim_live_threads and not waiting:
                deletions += _trim(thread, facts, policy, now, newest)
            deletions += _orphans(thread, facts, policy, now)
    return CleanupPlan(tuple(deletions), kept, tuple(unfixable))


def _file(
    threads: dict[bytes, Thread], key: CheckpointKey, name: bytes, namespace_name: bytes, names: tuple[bytes, ...]
) -> None:
    thread = threads.get(name)
    if thread is None:
        thread = threads[name] = Thread(names)
    namespace = thread.namespaces.get(namespace_name)
    if namespace is None:
        namespace = thread.namespaces[namespace_name] = Namespace(namespace_name)
    if key.family is Family.DOCUMENT:
        namespace.documents[key.checkpoint_id] = Document(key.key, key.checkpoint_id, key.time)
    elif key.family is Family.POINTER:
        namespace.pointers.append(key.key)
    elif key.family is Family.BLOB:
        namespace.blobs.append(key.key)
    else:
        namespace.satellites.append(Satellite(key.family, key.key, key.checkpoint_id, key.time))


def _newest(namespace: Namespace, facts: Facts) -> list[Document]:
    """The checkpoints of a namespace, newest first."""
    return sorted(
        namespace.documents.values(),
        key=lambda document: (facts.time(document) or 0.0, document.checkpoint_id),
        reverse=True,
    )


def _waits_for_answer(thread: Thread, facts: Facts) -> bool:
    """Whether the thread's newest checkpoint, or its root's newest, has an interrupt without an answer.

    An interrupt inside a subgraph is on the subgraph's newest checkpoint and on the root's.
    """
    heads = [
        (namespace, _newest(namespace, facts)[0]) for namespace in thread.namespaces.values() if namespace.documents
    ]
    newest = max(heads, key=lambda head: facts.time(head[1]) or 0.0)
    return any(
        document.key in facts.waiting or namespace.waits_for_answer(document.checkpoint_id)
        for namespace, document in heads
        if namespace.is_root or document is newest[1]
    )


def _whole_thread(thread: Thread, facts: Facts, newest: float) -> Deletion:
    # The root's pointer first: a conversation that goes on goes on there.
    namespaces = sorted(thread.namespaces.values(), key=lambda namespace: not namespace.is_root)
    guards = tuple(
        Guard(pointer, tuple(_newest(namespace, facts)))
        for namespace in namespaces
        for pointer in sorted(set(namespace.pointers))
    )
    satellites = [satellite for namespace in namespaces for satellite in namespace.satellites]
    return Deletion(
        thread=thread.names[0],
        reason=Reason.EXPIRED,
        guards=guards,
        owners=(),
        keys=_by_family(
            [document.key for document in thread.documents()],
            satellites,
            [blob for namespace in namespaces for blob in namespace.blobs],
        ),
        namespaces=len(namespaces),
        last_activity=newest,
    )


def _trim(thread: Thread, facts: Facts, policy: RetentionPolicy, now: float, newest: float) -> Iterator[Deletion]:
    documents: list[bytes] = []
    satellites: list[Satellite] = []
    namespaces = 0
    for namespace in thread.namespaces.values():
        needed = _needed(namespace, facts, policy, now)
        old = [document for document in namespace.documents.values() if document.checkpoint_id not in needed]
        if not old:
            continue
        namespaces += 1
        gone = {document.checkpoint_id for document in old}
        documents += [document.key for document in old]
        satellites += [satellite for satellite in namespace.satellites if satellite.checkpoint_id in gone]
    if documents:
        yield Deletion(
            thread.names[0], Reason.TRIMMED, (), (), _by_family(documents, satellites, []), namespaces, newest
        )


def _needed(namespace: Namespace, facts: Facts, policy: RetentionPolicy, now: float) -> set[bytes]:
    """The ids of the checkpoints that a live namespace keeps."""
    ordered = _newest(namespace, facts)
    kept = {document.checkpoint_id for document in ordered[: max(policy.keep_last, 1)]}
    kept |= {each.checkpoint_id for each in ordered if (facts.time(each) or now) >= now - policy.retention}
    kept |= {facts.heads[pointer].checkpoint_id for pointer in namespace.pointers if pointer in facts.heads}
    for checkpoint_id in list(kept):
        kept |= _ancestors(namespace, facts, checkpoint_id)
    return kept


def _ancestors(namespace: Namespace, facts: Facts, checkpoint_id: bytes) -> set[bytes]:
    """The ids of the checkpoints from which the DeltaChannels of this one are read."""
    found: set[bytes] = set()
    lineage = _lineage(namespace, facts, checkpoint_id)
    depth = lineage.depth if lineage else 0
    while lineage is not None and depth > 0 and lineage.parent_id and lineage.parent_id not in found:
        found.add(lineage.parent_id)
        lineage = _lineage(namespace, facts, lineage.parent_id)
        depth -= 1
    return found


def _lineage(namespace: Namespace, facts: Facts, checkpoint_id: bytes) -> Lineage | None:
    document = namespace.documents.get(checkpoint_id)
    return facts.lineage.get(document.key) if document else None


def _orphans(thread: Thread, facts: Facts, policy: RetentionPolicy, now: float) -> Iterator[Deletion]:
    """What belongs to checkpoints that are gone, an hour after the time it carries."""
    for namespace in thread.namespaces.values():
        if b"" in namespace.documents:
            # A shallow saver's writes belong to whatever its one document is now.
            continue
        if not namespace.documents:
            yield from _lone_pointers(thread, namespace, facts, now)
        by_owner: dict[bytes, list[Satellite]] = {}
        for satellite in namespace.satellites:
            if satellite.checkpoint_id not in namespace.documents and _is_past_grace(satellite.time, now):
                by_owner.setdefault(satellite.checkpoint_id, []).append(satellite)
        for satellites in by_owner.values():
            yield Deletion(
                thread=thread.names[0],
                reason=Reason.ORPHANED,
                guards=(),
                owners=_owners(satellites, policy),
                keys=_by_family([], satellites, []),
                namespaces=1,
                last_activity=None,
            )


def _owners(satellites: Iterable[Satellite], policy: RetentionPolicy) -> tuple[bytes, ...]:
    """The documents that must be missing for these to be orphans; a stub among them is in the owner's place."""
    satellites = list(satellites)
    if any(satellite.family is Family.DOCUMENT for satellite in satellites):
        return ()
    return tuple({policy.prefixes.owner_of(satellite.key, satellite.checkpoint_id) for satellite in satellites})


def _named_time(pointer: bytes, facts: Facts) -> float | None:
    named = facts.heads.get(pointer)
    return named.time if named else None


def _lone_pointers(thread: Thread, namespace: Namespace, facts: Facts, now: float) -> Iterator[Deletion]:
    for pointer in namespace.pointers:
        named = facts.heads.get(pointer)
        if named is not None and _is_past_grace(named.time, now):
            yield Deletion(
                thread.names[0], Reason.ORPHANED, (Guard(pointer, (named,)),), (named.key,), {}, 1, last_activity=None
            )


def _is_past_grace(time: float | None, now: float) -> bool:
    return time is not None and time < now - ORPHAN_GRACE


def _undated_satellites(thread: Thread) -> list[bytes]:
    """Satellites without a time whose owner is not known either: nothing will ever tell their age."""
    return [
        satellite.key
        for namespace in thread.namespaces.values()
        for satellite in namespace.satellites
        if satellite.time is None and not any(thread.documents())
    ]


def _by_family(
    documents: Iterable[bytes], satellites: Iterable[Satellite], blobs: Iterable[bytes]
) -> Mapping[Family, tuple[bytes, ...]]:
    satellites = list(satellites)
    return {
        Family.DOCUMENT: (*documents, *(each.key for each in satellites if each.family is Family.DOCUMENT)),
        Family.WRITE: tuple({each.key for each in satellites if each.family is Family.WRITE}),
        Family.REGISTRY: tuple({each.key for each in satellites if each.family is Family.REGISTRY}),
        Family.BLOB: tuple(set(blobs)),
    }
