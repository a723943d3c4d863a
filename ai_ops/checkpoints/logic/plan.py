"""The plan of deletions, made from the keys of threads and their `Facts`.

This module has no input or output. Times are seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ai_ops.checkpoints.logic.deletion import NEEDED, UNKNOWN_SIZE, WAITING, Deletion, Guard, OverLimit, Reason
from ai_ops.checkpoints.logic.keys import VALKEY_LIST, Family
from ai_ops.checkpoints.logic.lookups import INTERRUPT_SUFFIX, Facts, Lineage, kept_ids, keys_of
from ai_ops.checkpoints.logic.orphans import is_past_grace
from ai_ops.checkpoints.logic.retention import RetentionPolicy
from ai_ops.checkpoints.logic.threads import Namespace, Satellite, Thread


@dataclass(frozen=True)
class CleanupPlan:
    """The deletions from a group of threads.

    Attributes:
        deletions: The deletions.
        kept_threads: Number of threads that stay.
        unfixable: Keys without a readable time, which stay.
        ownerless_blobs: Blobs of threads without a checkpoint, by thread. They have no time, and may be deleted if a
            second scan finds no checkpoint either.
        over_limits: Threads that still exceed a limit of the policy.
    """

    deletions: tuple[Deletion, ...]
    kept_threads: int
    unfixable: tuple[bytes, ...]
    ownerless_blobs: Mapping[bytes, tuple[bytes, ...]] = field(default_factory=dict)
    over_limits: tuple[OverLimit, ...] = ()


def make_plan(threads: Iterable[Thread], facts: Facts, policy: RetentionPolicy, now: float) -> CleanupPlan:
    """Decide the deletions from `threads`, which all have this policy."""
    deletions: list[Deletion] = []
    unfixable: list[bytes] = []
    ownerless: dict[bytes, tuple[bytes, ...]] = {}
    over: list[OverLimit] = []
    kept = 0
    for thread in threads:
        unfixable += _unfixable(thread, facts)
        has_documents = any(thread.documents())
        active = thread.last_activity()
        if not policy.covers(thread.names) or (has_documents and active is None):
            # A checkpoint of unknown age may be the newest, so that no age of the thread is known.
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
        waiting = waits_for_answer(thread, facts)
        if active < now - (policy.pending_retention if waiting else policy.retention):
            deletions.append(_whole_thread(thread, active, policy.name))
            continue
        kept += 1
        if policy.may_trim_some and not waiting:
            narrowed = narrowed_to_size(thread, facts, policy, now)
            deletions += _trim(thread, facts, narrowed, now, active)
        if policy.has_limits:
            over += _over_limits(thread, facts, policy, now, waiting)
    return CleanupPlan(tuple(deletions), kept, tuple(unfixable), ownerless, tuple(over))


def waits_for_answer(thread: Thread, facts: Facts) -> bool:
    """Return whether a thread waits for a user's answer to an interrupt."""
    return any(
        write.endswith(INTERRUPT_SUFFIX) or write in facts.interrupts
        for namespace, head in thread.heads()
        for write in namespace.writes_of(head.checkpoint_id)
    )


def narrowed_to_size(thread: Thread, facts: Facts, policy: RetentionPolicy, now: float) -> RetentionPolicy:
    """Return the policy with a retention that reduces this thread to its memory limit.

    If no retention is short enough, return the shortest. Checkpoints that the thread needs to continue always stay.
    """
    limit = policy.max_bytes
    if limit is None or facts.sizes is None:
        return policy.fitting
    plain = policy.fitting
    if _bytes_left(thread, facts, plain, now) <= limit:
        return plain
    times = sorted({document.time or now for document in thread.documents()}, reverse=True)
    fits, too_many = 0, len(times)
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if _bytes_left(thread, facts, _narrower(plain, times[middle], now), now) <= limit:
            fits = middle
        else:
            too_many = middle
    return _narrower(plain, times[fits], now)


def _narrower(policy: RetentionPolicy, time: float, now: float) -> RetentionPolicy:
    """Return the policy that deletes all optional checkpoints older than `time`, and those that `policy` deletes."""
    oldest = max(time, now - policy.retention) if policy.trim_live_threads else time
    return policy.since(oldest, now)


def _bytes_left(thread: Thread, facts: Facts, policy: RetentionPolicy, now: float) -> int:
    """Return the memory of a live thread after trimming by `policy`."""
    sizes = facts.sizes or {}
    gone: set[bytes] = set()
    for deletion in _trim(thread, facts, policy, now, now):
        gone.update(key for keys in deletion.keys.values() for key in keys)
    return sum(sizes.get(key, 0) for key in keys_of(thread) if key not in gone)


def _over_limits(
    thread: Thread, facts: Facts, policy: RetentionPolicy, now: float, waiting: bool
) -> Iterator[OverLimit]:
    """Yield the limits of its policy that a live thread still exceeds, with the reasons."""
    name, why = thread.names[0], WAITING if waiting else NEEDED
    narrowed = narrowed_to_size(thread, facts, policy, now)
    if policy.max_checkpoints is not None:
        spaces = thread.namespaces.values()
        left = [len(space.documents) if waiting else len(_left(space, facts, narrowed, now)) for space in spaces]
        if max(left, default=0) > policy.max_checkpoints:
            yield OverLimit(name, policy.name, "max_checkpoints", max(left), why)
    if policy.max_bytes is not None:
        if facts.sizes is None:
            yield OverLimit(name, policy.name, "max_thread_mb", 0, UNKNOWN_SIZE)
            return
        sizes = facts.sizes
        left_bytes = (
            sum(sizes.get(key, 0) for key in keys_of(thread)) if waiting else _bytes_left(thread, facts, narrowed, now)
        )
        if left_bytes > policy.max_bytes:
            yield OverLimit(name, policy.name, "max_thread_mb", left_bytes, why)


def _left(namespace: Namespace, facts: Facts, policy: RetentionPolicy, now: float) -> set[bytes]:
    """Return the ids of the checkpoints of a live namespace after trimming."""
    if not policy.may_trim(namespace, now):
        return set(namespace.documents)
    return needed_ids(namespace, facts, policy, now) & namespace.documents.keys()


def _whole_thread(thread: Thread, active: float, policy: str) -> Deletion:
    # The root's pointer first, since a conversation continues there.
    namespaces = sorted(thread.namespaces.values(), key=lambda namespace: not namespace.is_root)
    guards: list[Guard] = []
    documents: list[bytes] = []
    satellites: list[Satellite] = []
    for namespace in namespaces:
        ordered = namespace.newest_first()
        # A key that points to none of these documents does not belong to this thread.
        guards += [Guard(pointer, tuple(ordered)) for pointer in sorted(set(namespace.pointers)) if ordered]
        overwritten = {each.key: each for each in ordered if each.is_shallow}
        overwritten |= {each.key: each for each in ordered[:1] if each.bears_parents_id}
        guards += [Guard(key, (document,)) for key, document in overwritten.items()]
        documents += [document.key for document in ordered if document.key not in overwritten]
        shallow = namespace.is_shallow
        # A key without one of these documents is deleted as an orphan, if no other document owns it.
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
        policy=policy,
    )


def _trim(thread: Thread, facts: Facts, policy: RetentionPolicy, now: float, active: float) -> Iterator[Deletion]:
    documents: list[bytes] = []
    satellites: list[Satellite] = []
    entries: list[tuple[bytes, bytes]] = []
    blobs: list[bytes] = []
    namespaces = 0
    for namespace in thread.namespaces.values():
        if not policy.may_trim(namespace, now):
            continue
        needed = needed_ids(namespace, facts, policy, now)
        gone = namespace.documents.keys() - needed
        namespaces += bool(gone)
        documents += [namespace.documents[checkpoint_id].key for checkpoint_id in gone]
        satellites += [satellite for satellite in namespace.satellites if satellite.checkpoint_id in gone]
        blobs += _superseded_blobs(namespace, needed, facts)
        lists = [pointer for pointer in namespace.pointers if pointer.startswith(VALKEY_LIST)]
        entries += [(each, checkpoint_id) for each in set(lists) for checkpoint_id in gone]
    if documents:
        keys = {Family.SUPERSEDED_BLOB: tuple(blobs), **_by_family(documents, satellites, [])}
        yield Deletion(thread.names[0], Reason.TRIMMED, (), (), tuple(entries), keys, namespaces, active, policy.name)


def _superseded_blobs(namespace: Namespace, needed: set[bytes], facts: Facts) -> Iterator[bytes]:
    """Return the blobs older than the oldest version of their channel in a kept checkpoint.

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


def needed_ids(namespace: Namespace, facts: Facts, policy: RetentionPolicy, now: float) -> set[bytes]:
    """Return the ids of the checkpoints that a live namespace keeps.

    A DeltaChannel is searched from parent to parent, as in LangGraph, until one has its value.
    """
    kept = kept_ids(namespace, facts.heads, policy, now)
    # The searched channels by checkpoint, so that joining branches are followed once.
    searched: dict[bytes, frozenset[str]] = {}
    for checkpoint_id in list(kept):
        lineage = _lineage(namespace, facts, checkpoint_id)
        channels, at = lineage.open_channels if lineage else frozenset(), checkpoint_id
        while lineage is not None and lineage.is_known and channels - searched.get(at, frozenset()):
            searched[at] = searched.get(at, frozenset()) | channels
            at = lineage.parent_id
            kept.add(at)
            lineage = _lineage(namespace, facts, at)
            channels &= lineage.open_channels if lineage else frozenset()
        if (lineage is not None and not lineage.is_known) or _is_unseen(namespace, facts, at):
            return set(namespace.documents)
    return kept


def _is_unseen(namespace: Namespace, facts: Facts, checkpoint_id: bytes) -> bool:
    """Return whether the scan has missed an existing ancestor, whose own ancestors are then unknown."""
    if not facts.unseen or checkpoint_id in namespace.documents:
        return False
    stems = {each.key[: len(each.key) - len(each.checkpoint_id)] for each in namespace.documents.values()}
    return any(stem + checkpoint_id in facts.unseen for stem in stems)


def _lineage(namespace: Namespace, facts: Facts, checkpoint_id: bytes) -> Lineage | None:
    document = namespace.documents.get(checkpoint_id)
    return facts.lineage.get(document.key) if document else None


def _orphans(thread: Thread, facts: Facts, policy: RetentionPolicy, now: float) -> Iterator[Deletion]:
    """Return the keys whose checkpoints are gone, an hour after their own times."""
    name = thread.names[0]
    for namespace in thread.namespaces.values():
        if namespace.is_shallow:
            # A shallow saver's writes belong to the current state of its only document.
            continue
        if not namespace.documents:
            for pointer in namespace.pointers:
                named = facts.heads.get(pointer)
                if named is not None and is_past_grace(named.time, now):
                    guards = (Guard(pointer, (named,)),)
                    yield Deletion(name, Reason.ORPHANED, guards, (named.key,), (), {}, 1, None, policy.name)
        by_owner: dict[bytes, list[Satellite]] = {}
        for satellite in namespace.satellites:
            if satellite.checkpoint_id not in namespace.documents and is_past_grace(satellite.time, now):
                by_owner.setdefault(satellite.checkpoint_id, []).append(satellite)
        # If documents have their parents' ids, the owner's key belongs to another checkpoint.
        misnamed = any(document.bears_parents_id for document in namespace.documents.values())
        for satellites in by_owner.values():
            owners = () if misnamed else _owners(satellites, policy)
            yield Deletion(name, Reason.ORPHANED, (), owners, (), _by_family([], satellites, []), 1, None, policy.name)


def _owners(satellites: Iterable[Satellite], policy: RetentionPolicy) -> tuple[bytes, ...]:
    """Return the documents that must be missing for these to be orphans; a stub replaces its owner."""
    satellites = list(satellites)
    if any(satellite.family == Family.DOCUMENT for satellite in satellites):
        return ()
    owners: set[bytes] = set()
    for satellite in satellites:
        owners |= policy.prefixes.owners_of(satellite.key, satellite.checkpoint_id)
    return tuple(owners)


def _unfixable(thread: Thread, facts: Facts) -> Iterator[bytes]:
    """Return the keys of a thread whose age can never be known."""
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
