"""Facts that only values hold, and the keys to read for them.

Where a pointer points, what a DeltaChannel still needs, which of ValkeySaver's writes is an interrupt: that arrives as
`Facts`, asked for by the functions that name the keys in question. Nothing here reads. Times are seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ai_ops.checkpoints.logic.keys import INTERRUPT_INDEX
from ai_ops.checkpoints.logic.retention import RetentionPolicy
from ai_ops.checkpoints.logic.threads import Document, Namespace, Thread

INTERRUPT_SUFFIX = b":" + INTERRUPT_INDEX


class Lineage(NamedTuple):
    """The ancestors of a document, as it names them.

    Attributes:
        parent_id: The id of the checkpoint it was made from; empty for the first.
        open_channels: The DeltaChannels that it holds no value of: they are read from its ancestors, up to the
            nearest that does.
        is_known: Whether the document could be read. If not, any of the others may be its ancestor.
    """

    parent_id: bytes
    open_channels: frozenset[str]
    is_known: bool = True


@dataclass(frozen=True)
class Facts:
    """Facts that only values in Redis hold.

    Attributes:
        heads: The document that a pointer or list names as its namespace's newest, by the pointer's key.
        lineage: What documents say of their ancestors, by key.
        interrupts: Keys of writes that are interrupts, where the key does not say so.
        versions: The versions of its channels that a document of the blob layout names, by its key.
        unseen: Keys of documents that the scan has missed, and that are there.
        sizes: Bytes that keys take, where the policy limits a thread's memory; None where Redis did not say.
    """

    heads: Mapping[bytes, Document] = field(default_factory=dict)
    lineage: Mapping[bytes, Lineage] = field(default_factory=dict)
    interrupts: frozenset[bytes] = frozenset()
    versions: Mapping[bytes, Mapping[bytes, bytes]] = field(default_factory=dict)
    unseen: frozenset[bytes] = frozenset()
    sizes: Mapping[bytes, int] | None = field(default_factory=dict)


def threads_to_examine(threads: Iterable[Thread], policy: RetentionPolicy, now: float) -> list[Thread]:
    """Return the threads with checkpoints past the retention, without those that have only orphans."""
    oldest = now - policy.shortest
    found: list[Thread] = []
    for thread in threads:
        active = thread.last_activity()
        if active is None or not policy.covers(thread.names):
            continue
        if active < oldest or any(policy.may_trim(namespace, now) for namespace in thread.namespaces.values()):
            found.append(thread)
    return found


def trimmable(threads: Iterable[Thread], policy: RetentionPolicy, now: float) -> list[Namespace]:
    """Return the namespaces of live threads with checkpoints past the retention that they do not need."""
    return [
        namespace
        for thread in threads
        if (thread.last_activity() or 0.0) >= now - policy.retention
        for namespace in thread.namespaces.values()
        if policy.may_trim(namespace, now)
    ]


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


def staying_anyway(
    namespaces: Iterable[Namespace], heads: Mapping[bytes, Document], policy: RetentionPolicy, now: float
) -> dict[bytes, Namespace]:
    """The documents that stay whatever their ancestors say, by key: each may have a DeltaChannel.

    Each of them, as forks, replays and edits make branches: what two checkpoints say holds for no third one.
    """
    found: dict[bytes, Namespace] = {}
    for namespace in namespaces:
        if namespace.pointers or namespace.satellites:
            for checkpoint_id in kept_ids(namespace, heads, policy, now) & namespace.documents.keys():
                found[namespace.documents[checkpoint_id].key] = namespace
    return found


def untold_writes(threads: Iterable[Thread]) -> list[bytes]:
    """Return the writes on the heads of threads whose keys do not say whether they are interrupts."""
    return [
        write
        for thread in threads
        for namespace, head in thread.heads()
        if not any(pointer.startswith(b"checkpoint_latest:") for pointer in namespace.pointers)
        for write in namespace.writes_of(head.checkpoint_id)
        if not write.endswith(INTERRUPT_SUFFIX)
    ]


def unseen_parents(lineage: Mapping[bytes, Lineage], documents: Mapping[bytes, Document]) -> list[bytes]:
    """The keys of ancestors that a DeltaChannel is read from and that the scan has not brought.

    A scan need not bring what was written while it went on: the newest checkpoint may be there without its parent.

    Args:
        lineage: What documents say, by key.
        documents: All documents of their namespaces, by key.
    """
    found: dict[bytes, None] = {}
    for key, said in lineage.items():
        document = documents.get(key)
        if document is not None and said.open_channels and said.parent_id and key.endswith(document.checkpoint_id):
            parent = key[: len(key) - len(document.checkpoint_id)] + said.parent_id
            if parent not in documents:
                found[parent] = None
    return list(found)


def keys_of(thread: Thread) -> list[bytes]:
    """Return all keys of a thread."""
    found: dict[bytes, None] = {}
    for namespace in thread.namespaces.values():
        found.update(dict.fromkeys(document.key for document in namespace.documents.values()))
        found.update(dict.fromkeys(namespace.pointers))
        found.update(dict.fromkeys(satellite.key for satellite in namespace.satellites))
        found.update(dict.fromkeys(namespace.blobs))
    return list(found)


def kept_ids(namespace: Namespace, heads: Mapping[bytes, Document], policy: RetentionPolicy, now: float) -> set[bytes]:
    """The ids of the checkpoints that stay in a live namespace whatever their ancestors say."""
    ordered = namespace.newest_first()
    kept = {document.checkpoint_id for document in ordered[: policy.kept_anyway(ordered, now)]}
    return kept | {heads[pointer].checkpoint_id for pointer in namespace.pointers if pointer in heads}


def documents_with_blobs(namespaces: Iterable[Namespace], policy: RetentionPolicy, now: float) -> list[bytes]:
    """The documents, staying anyway, that name the blobs which must stay with them."""
    found: list[bytes] = []
    for namespace in namespaces:
        if namespace.blobs:
            ordered = namespace.newest_first()
            found += [document.key for document in ordered[: policy.kept_anyway(ordered, now)]]
    return found


def lone_pointers(threads: Iterable[Thread]) -> list[bytes]:
    """Return the pointers of namespaces without a checkpoint."""
    return [
        pointer
        for thread in threads
        for namespace in thread.namespaces.values()
        if not namespace.documents
        for pointer in namespace.pointers
    ]
