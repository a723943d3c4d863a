"""Which checkpoints go: threads built from keys, and a plan made from threads.

Nothing here reads or writes. What the keys do not say (where a pointer points, what a DeltaChannel still needs,
which of ValkeySaver's writes is an interrupt) arrives as `Facts`, asked for by the functions that name the
keys in question. Times are seconds since 1970.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from ai_ops.core.checkpoint_keys import (
    INTERRUPT_INDEX,
    ORPHAN_GRACE,
    ROOT_NAMESPACE,
    VALKEY_LIST,
    CheckpointKey,
    Family,
    KeyPrefixes,
)

DAY = 86_400.0
INTERRUPT_SUFFIX = b":" + INTERRUPT_INDEX


@dataclass(frozen=True)
class RetentionPolicy:
    """What may go, as one run applies it.

    Attributes:
        retention: Seconds past which a checkpoint may go.
        pending_retention: Seconds past which a thread that waits for a person's answer may go.
        trim_live_threads: Whether old checkpoints of live threads go.
        keep_last: Checkpoints that each namespace of a live thread keeps, at least 1.
        thread_pattern: A glob over thread ids; other threads are left alone. None for all threads.
        pinned: Thread ids that are left alone, as `may_be_pinned` has it.
        prefixes: What RedisSaver's keys begin with.
        undated_blobs: Whether blobs of threads without a checkpoint may go. They carry no time.
    """

    retention: float
    pending_retention: float
    trim_live_threads: bool = True
    keep_last: int = 1
    thread_pattern: str | None = None
    pinned: frozenset[str] = frozenset()
    prefixes: KeyPrefixes = field(default_factory=KeyPrefixes)
    undated_blobs: bool = True

    @property
    def shortest(self) -> float:
        """The shorter of the two retentions, in seconds."""
        return min(self.retention, self.pending_retention)

    def covers(self, names: Iterable[bytes]) -> bool:
        """Whether a thread that may have any of these names is subject to the policy at all."""
        if self.thread_pattern is None and not self.pinned:
            return True
        texts = list(map(_text, names))
        if not self.pinned.isdisjoint(texts):
            return False
        return self.thread_pattern is None or all(_compiled(self.thread_pattern).match(text) for text in texts)

    def may_be_pinned(self, thread: Thread) -> bool:
        """Whether a thread is pinned, or has something that may be a pinned thread's."""
        return bool(self.pinned) and not self.pinned.isdisjoint(map(_text, thread.possible_names()))


def _text(name: bytes) -> str:
    return name.decode(errors="surrogateescape")


@lru_cache(maxsize=8)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(pattern))


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
        heads: The document that a pointer or list names as its namespace's newest, by the pointer's key.
        lineage: What documents say of their ancestors, by key.
        interrupts: Keys of writes that are interrupts, where the key does not say so.
        foreign: Keys of documents that name another thread than their keys seem to.
        versions: The versions of its channels that a document of the blob layout names, by its key.
    """

    heads: Mapping[bytes, Document] = field(default_factory=dict)
    lineage: Mapping[bytes, Lineage] = field(default_factory=dict)
    interrupts: frozenset[bytes] = frozenset()
    foreign: frozenset[bytes] = frozenset()
    versions: Mapping[bytes, Mapping[bytes, bytes]] = field(default_factory=dict)


class Reason(Enum):
    """Why keys go."""

    EXPIRED = "expired"
    TRIMMED = "trimmed"
    ORPHANED = "orphaned"


class Guard(NamedTuple):
    """A pointer that must still say what the plan was made from.

    Attributes:
        key: The pointer, or ValkeySaver's list.
        documents: Any of these documents it may name; the likeliest is first. It goes with them.
    """

    key: bytes
    documents: tuple[Document, ...]


class Deletion(NamedTuple):
    """Keys that go together, and the conditions under which they do.

    Attributes:
        thread: The thread they belong to.
        reason: Why they go.
        guards: Pointers compared and deleted in one step, before anything else; one changed keeps all.
        owners: Documents that must still be missing.
        list_entries: Entries to take out of ValkeySaver's lists, as (list, checkpoint id).
        keys: The other keys by family, in the order of deletion.
        namespaces: How many namespaces they are from.
        last_activity: The thread's newest checkpoint, seconds since 1970; None for orphans.
    """

    thread: bytes
    reason: Reason
    guards: tuple[Guard, ...]
    owners: tuple[bytes, ...]
    list_entries: tuple[tuple[bytes, bytes], ...]
    keys: Mapping[int, tuple[bytes, ...]]
    namespaces: int
    last_activity: float | None

    @property
    def size(self) -> int:
        """How many keys it deletes, pointers included."""
        return len(self.guards) + sum(map(len, self.keys.values()))

    def some_keys(self, number: int) -> list[bytes]:
        """Up to so many of the keys, from all families."""
        keys = [*(guard.key for guard in self.guards), *(key for some in self.keys.values() for key in some)]
        return keys[:: -(-len(keys) // number)] if keys else []

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
        ownerless_blobs: Blobs of threads without a checkpoint, by thread. They carry no time: they may go
            once a second look has found no checkpoint either.
    """

    deletions: tuple[Deletion, ...]
    kept_threads: int
    unfixable: tuple[bytes, ...]
    ownerless_blobs: Mapping[bytes, tuple[bytes, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Sieved:
    """Keys sorted into those of threads that need thought and those that do not.

    Attributes:
        keys: The keys of the threads that need it.
        kept_threads: How many threads are young in every part, and complete.
        deletions: Threads of nothing but old checkpoints.
    """

    keys: list[CheckpointKey]
    kept_threads: int
    deletions: list[Deletion]


def sieve(keys: Iterable[CheckpointKey], policy: RetentionPolicy, now: float) -> Sieved:
    """Decide on the threads that are young in every part or hold old checkpoints alone, which are most.

    `make_plan` decides the same of them, but builds a thread of their keys first, which takes ten times as
    long. Whatever is not plain to see is left to it.
    """
    groups: dict[bytes, list[CheckpointKey]] = {}
    for key in keys:
        groups.setdefault(key[1], []).append(key)
    oldest, longest = now - policy.shortest, now - max(policy.retention, policy.pending_retention)
    sieved = Sieved([], 0, [])
    kept = 0
    for name, group in groups.items():
        times = [key[4] for key in group if key[0] == Family.DOCUMENT]
        if not times or None in times or name.startswith(b"{") or not all(key[6] for key in group):
            sieved.keys.extend(group)
        elif len(times) == len(group) and max(times) < longest and _ends_in_ids(group) and policy.covers((name,)):  # type: ignore[type-var, operator]
            documents = tuple(dict.fromkeys(key[5] for key in group))
            keys_of = {Family.DOCUMENT: documents}
            sieved.deletions.append(Deletion(name, Reason.EXPIRED, (), (), (), keys_of, 1, max(times)))  # type: ignore[type-var]
        elif min(times) >= oldest and _is_complete(group):  # type: ignore[type-var, operator]
            kept += 1
        else:
            sieved.keys.extend(group)
    return Sieved(sieved.keys, kept, sieved.deletions)


def _ends_in_ids(documents: list[CheckpointKey]) -> bool:
    return all(key[3] and key[5].endswith(key[3]) for key in documents)


def _is_complete(group: list[CheckpointKey]) -> bool:
    """Whether all that a thread has belongs to a checkpoint of it, and nothing can be a stub."""
    families = {key[0] for key in group}
    if families == {Family.DOCUMENT}:
        return True
    owners = {key[3] for key in group if key[0] == Family.DOCUMENT}
    satellites = (Family.WRITE, Family.REGISTRY)
    return (
        Family.POINTER in families
        and Family.BLOB not in families
        and all(key[3] in owners for key in group if key[0] in satellites)
    )


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


def touched(threads: Iterable[Thread], policy: RetentionPolicy, now: float) -> list[Thread]:
    """The threads that something may go of, those with orphans alone excepted."""
    oldest = now - policy.shortest
    found: list[Thread] = []
    for thread in threads:
        active = thread.last_activity()
        if active is None or not policy.covers(thread.names) or policy.may_be_pinned(thread):
            continue
        if active < oldest or any(_is_trimmable(namespace, policy, now) for namespace in thread.namespaces.values()):
            found.append(thread)
    return found


def trimmable(threads: Iterable[Thread], policy: RetentionPolicy, now: float) -> list[Namespace]:
    """The namespaces of live threads that have checkpoints past the retention beside those they need."""
    return [
        namespace
        for thread in threads
        if (thread.last_activity() or 0.0) >= now - policy.retention
        for namespace in thread.namespaces.values()
        if _is_trimmable(namespace, policy, now)
    ]


def unsure_documents(threads: Iterable[Thread]) -> dict[bytes, tuple[bytes, ...]]:
    """One document of each namespace that may be another thread's: its key, and the names that are right."""
    return {
        namespace.newest_first()[0].key: thread.names
        for thread in threads
        for namespace in thread.namespaces.values()
        if namespace.documents and not namespace.certain and (namespace.name or namespace.pointers)
    }


def unread_writes(threads: Iterable[Thread], policy: RetentionPolicy, now: float) -> list[bytes]:
    """The writes on the heads of threads of which only the value says whether they are interrupts.

    RedisSaver puts an interrupt under the index -3; ValkeySaver keeps all writes of a checkpoint in one value,
    the JavaScript saver counts interrupts like other writes.
    """
    return [
        write
        for thread in threads
        if policy.pending_retention != policy.retention or (thread.last_activity() or now) >= now - policy.retention
        for namespace, head in thread.heads()
        if not any(pointer.startswith(b"checkpoint_latest:") for pointer in namespace.pointers)
        for write in namespace.writes_of(head.checkpoint_id)
        if not write.endswith(INTERRUPT_SUFFIX)
    ]


def lineage_samples(namespaces: Iterable[Namespace], policy: RetentionPolicy, now: float) -> dict[bytes, Namespace]:
    """The newest and the oldest checkpoint that each namespace keeps anyway, by key.

    If neither has a DeltaChannel, none between them has.
    """
    samples: dict[bytes, Namespace] = {}
    for namespace in namespaces:
        if namespace.pointers or namespace.satellites:
            ordered = namespace.newest_first()
            samples[ordered[0].key] = namespace
            samples[ordered[_kept_anyway(ordered, policy, now) - 1].key] = namespace
    return samples


def documents_with_blobs(namespaces: Iterable[Namespace], policy: RetentionPolicy, now: float) -> list[bytes]:
    """The documents, staying anyway, that name the blobs which must stay with them."""
    found: list[bytes] = []
    for namespace in namespaces:
        if namespace.blobs:
            ordered = namespace.newest_first()
            found += [document.key for document in ordered[: _kept_anyway(ordered, policy, now)]]
    return found


def blob_deletion(thread: bytes, blobs: tuple[bytes, ...]) -> Deletion:
    """The deletion of blobs that two looks have found without a checkpoint."""
    return Deletion(thread, Reason.ORPHANED, (), (), (), {Family.BLOB: blobs}, 1, None)


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
    ownerless: dict[bytes, tuple[bytes, ...]] = {}
    kept = 0
    for thread in threads:
        unfixable += _unfixable(thread, facts)
        has_documents = any(thread.documents())
        active = thread.last_activity()
        leave = not policy.covers(thread.names) or policy.may_be_pinned(thread)
        leave = leave or any(each.key in facts.foreign for each in thread.documents())
        if leave or (has_documents and active is None):
            # One checkpoint of unknown age may be the newest: then nothing of the thread is known to be old.
            kept += has_documents
            continue
        deletions += _orphans(thread, facts, policy, now)
        if active is None:
            if blobs := tuple(blob for namespace in thread.namespaces.values() for blob in namespace.blobs):
                if policy.undated_blobs:
                    ownerless[thread.names[0]] = blobs
                else:
                    unfixable += blobs
            continue
        waiting = _waits_for_answer(thread, facts)
        if active < now - (policy.pending_retention if waiting else policy.retention):
            deletions.append(_whole_thread(thread, active))
            continue
        kept += 1
        if policy.trim_live_threads and not waiting:
            deletions += _trim(thread, facts, policy, now, active)
    return CleanupPlan(tuple(deletions), kept, tuple(unfixable), ownerless)


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


def _waits_for_answer(thread: Thread, facts: Facts) -> bool:
    return any(
        write.endswith(INTERRUPT_SUFFIX) or write in facts.interrupts
        for namespace, head in thread.heads()
        for write in namespace.writes_of(head.checkpoint_id)
    )


def _kept_anyway(ordered: list[Document], policy: RetentionPolicy, now: float) -> int:
    """How many of a namespace's checkpoints, newest first, stay whatever they say of their ancestors."""
    recent = sum((document.time or now) >= now - policy.retention for document in ordered)
    return min(len(ordered), max(recent, policy.keep_last, 1))


def _is_trimmable(namespace: Namespace, policy: RetentionPolicy, now: float) -> bool:
    if not policy.trim_live_threads or len(namespace.documents) <= policy.keep_last or namespace.is_shallow:
        return False
    return any((document.time or now) < now - policy.retention for document in namespace.documents.values())


def _whole_thread(thread: Thread, active: float) -> Deletion:
    # The root's pointer first: a conversation that goes on goes on there.
    namespaces = sorted(thread.namespaces.values(), key=lambda namespace: not namespace.is_root)
    guards: list[Guard] = []
    documents: list[bytes] = []
    satellites: list[Satellite] = []
    for namespace in namespaces:
        ordered = namespace.newest_first()
        guards += [Guard(pointer, tuple(ordered)) for pointer in sorted(set(namespace.pointers))]
        overwritten = {each.key: each for each in ordered if each.is_shallow}
        overwritten |= {each.key: each for each in ordered[:1] if each.bears_parents_id}
        guards += [Guard(key, (document,)) for key, document in overwritten.items()]
        documents += [document.key for document in ordered if document.key not in overwritten]
        shallow = namespace.is_shallow
        # What belongs to none of these documents goes as an orphan, if nobody else's document owns it.
        satellites += [each for each in namespace.satellites if shallow or each.checkpoint_id in namespace.documents]
    return Deletion(
        thread=thread.names[0],
        reason=Reason.EXPIRED,
        guards=tuple(guards),
        owners=(),
        list_entries=(),
        keys=_by_family(documents, satellites, [blob for namespace in namespaces for blob in namespace.blobs]),
        namespaces=len(namespaces),
        last_activity=active,
    )


def _trim(thread: Thread, facts: Facts, policy: RetentionPolicy, now: float, active: float) -> Iterator[Deletion]:
    documents: list[bytes] = []
    satellites: list[Satellite] = []
    entries: list[tuple[bytes, bytes]] = []
    blobs: list[bytes] = []
    namespaces = 0
    for namespace in thread.namespaces.values():
        if not _is_trimmable(namespace, policy, now):
            continue
        needed = _needed(namespace, facts, policy, now)
        gone = namespace.documents.keys() - needed
        namespaces += bool(gone)
        documents += [namespace.documents[checkpoint_id].key for checkpoint_id in gone]
        satellites += [satellite for satellite in namespace.satellites if satellite.checkpoint_id in gone]
        blobs += _superseded_blobs(namespace, needed, facts)
        lists = [pointer for pointer in namespace.pointers if pointer.startswith(VALKEY_LIST)]
        entries += [(each, checkpoint_id) for each in set(lists) for checkpoint_id in gone]
    if documents:
        keys = {Family.SUPERSEDED_BLOB: tuple(blobs), **_by_family(documents, satellites, [])}
        yield Deletion(thread.names[0], Reason.TRIMMED, (), (), tuple(entries), keys, namespaces, active)


def _superseded_blobs(namespace: Namespace, needed: set[bytes], facts: Facts) -> Iterator[bytes]:
    """The blobs older than the oldest version of their channel that a staying checkpoint names.

    A blob is ``checkpoint_blob:<thread>:<namespace>:<channel>:<version>``, and versions sort as text. Newer
    ones may belong to a checkpoint that is being written.
    """
    oldest: dict[bytes, bytes] = {}
    for checkpoint_id in needed:
        document = namespace.documents.get(checkpoint_id)
        versions = facts.versions.get(document.key) if document else None
        if versions is None:
            return
        for channel, version in versions.items():
            oldest[channel] = min(version, oldest.get(channel, version))
    for blob in set(namespace.blobs):
        stem, _, version = blob.rpartition(b":")
        channels = [channel for channel in oldest if stem.endswith(b":" + channel)]
        if channels and version < oldest[max(channels, key=len)]:
            yield blob


def _needed(namespace: Namespace, facts: Facts, policy: RetentionPolicy, now: float) -> set[bytes]:
    """The ids of the checkpoints that a live namespace keeps."""
    ordered = namespace.newest_first()
    kept = {document.checkpoint_id for document in ordered[: _kept_anyway(ordered, policy, now)]}
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
    name = thread.names[0]
    for namespace in thread.namespaces.values():
        if namespace.is_shallow:
            # A shallow saver's writes belong to whatever its one document is now.
            continue
        if not namespace.documents:
            for pointer in namespace.pointers:
                named = facts.heads.get(pointer)
                if named is not None and _is_past_grace(named.time, now):
                    guards = (Guard(pointer, (named,)),)
                    yield Deletion(name, Reason.ORPHANED, guards, (named.key,), (), {}, 1, None)
        by_owner: dict[bytes, list[Satellite]] = {}
        for satellite in namespace.satellites:
            if satellite.checkpoint_id not in namespace.documents and _is_past_grace(satellite.time, now):
                by_owner.setdefault(satellite.checkpoint_id, []).append(satellite)
        # Where documents bear their parents' ids, the key that would be the owner's is another checkpoint's.
        misnamed = any(document.bears_parents_id for document in namespace.documents.values())
        for satellites in by_owner.values():
            owners = () if misnamed else _owners(satellites, policy)
            yield Deletion(name, Reason.ORPHANED, (), owners, (), _by_family([], satellites, []), 1, None)


def _owners(satellites: Iterable[Satellite], policy: RetentionPolicy) -> tuple[bytes, ...]:
    """The documents that must be missing for these to be orphans; a stub among them is in the owner's place."""
    satellites = list(satellites)
    if any(satellite.family == Family.DOCUMENT for satellite in satellites):
        return ()
    owners: set[bytes] = set()
    for satellite in satellites:
        owners |= policy.prefixes.owners_of(satellite.key, satellite.checkpoint_id)
    return tuple(owners)


def _is_past_grace(time: float | None, now: float) -> bool:
    return time is not None and time < now - ORPHAN_GRACE


def _unfixable(thread: Thread, facts: Facts) -> Iterator[bytes]:
    """The keys of a thread of which nothing will ever tell the age."""
    yield from (document.key for document in thread.documents() if document.time is None)
    if any(thread.documents()):
        return
    for namespace in thread.namespaces.values():
        yield from (satellite.key for satellite in namespace.satellites if satellite.time is None)
        for pointer in namespace.pointers:
            named = facts.heads.get(pointer)
            if named is None or named.time is None:
                yield pointer


def _by_family(
    documents: Iterable[bytes], satellites: Iterable[Satellite], blobs: Iterable[bytes]
) -> Mapping[int, tuple[bytes, ...]]:
    satellites = list(satellites)
    stubs = (each.key for each in satellites if each.family == Family.DOCUMENT)
    return {
        Family.DOCUMENT: (*documents, *stubs),
        Family.WRITE: tuple({each.key for each in satellites if each.family == Family.WRITE}),
        Family.REGISTRY: tuple({each.key for each in satellites if each.family == Family.REGISTRY}),
        Family.BLOB: tuple(set(blobs)),
    }
