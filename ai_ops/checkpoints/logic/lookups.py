"""Facts that are only in values, and the keys to read for them.

The target of a pointer, the ancestors of a DeltaChannel and the interrupts among ValkeySaver's writes are `Facts`.
Functions here name the keys to read for them. This module has no input or output. Times are seconds since 1970.
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
    """The ancestors named by a document.

    Attributes:
        parent_id: The id of its parent; empty for the first checkpoint.
        open_channels: The DeltaChannels without a value in it, which are read from the nearest ancestor with a value.
        is_known: Whether the document could be read. If not, any other document may be its ancestor.
    """

    parent_id: bytes
    open_channels: frozenset[str]
    is_known: bool = True


@dataclass(frozen=True)
class Facts:
    """Facts from values in Redis.

    Attributes:
        heads: The newest document of a namespace according to its pointer or list, by the pointer's key.
        lineage: The ancestors of documents, by key.
        interrupts: Keys of writes that are interrupts, if this is not in the key.
        versions: The channel versions in documents of the blob layout, by key.
        unseen: Keys of existing documents that the scan has missed.
        sizes: Memory of keys in bytes, if the policy limits it; None if unknown.
    """

    heads: Mapping[bytes, Document] = field(default_factory=dict)
    lineage: Mapping[bytes, Lineage] = field(default_factory=dict)
    interrupts: frozenset[bytes] = frozenset()
    versions: Mapping[bytes, Mapping[bytes, bytes]] = field(default_factory=dict)
    unseen: frozenset[bytes] = frozenset()
    sizes: Mapping[bytes, int] | None = field(default_factory=dict)


def threads_to_examine(threads: Iterable[Thread], policy: RetentionPolicy, now: float) -> list[Thread]:
    """Return the threads with checkpoints past the retention, except threads with only orphans."""
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
    """Return the writes on the heads of threads whose values must be read to recognise interrupts.

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


def kept_documents(
    namespaces: Iterable[Namespace], heads: Mapping[bytes, Document], policy: RetentionPolicy, now: float
) -> dict[bytes, Namespace]:
    """Return the documents that are kept regardless of ancestors, by key. Each may have a DeltaChannel.

    All of them are needed, because forks, replays and edits make branches.
    """
    found: dict[bytes, Namespace] = {}
    for namespace in namespaces:
        if namespace.pointers or namespace.satellites:
            for checkpoint_id in kept_ids(namespace, heads, policy, now) & namespace.documents.keys():
                found[namespace.documents[checkpoint_id].key] = namespace
    return found


def ambiguous_writes(threads: Iterable[Thread]) -> list[bytes]:
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
    """Return the keys of ancestors of a DeltaChannel that the scan has missed.

    A scan may miss keys that are written during it, so the newest checkpoint may have been found without its parent.

    Args:
        lineage: The ancestors of documents, by key.
        documents: All documents of their namespaces, by key.
    """
    found: dict[bytes, None] = {}
    for key, links in lineage.items():
        document = documents.get(key)
        if document is not None and links.open_channels and links.parent_id and key.endswith(document.checkpoint_id):
            parent = key[: len(key) - len(document.checkpoint_id)] + links.parent_id
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
    """Return the ids of the checkpoints that are kept in a live namespace regardless of ancestors."""
    ordered = namespace.newest_first()
    kept = {document.checkpoint_id for document in ordered[: policy.kept_count(ordered, now)]}
    return kept | {heads[pointer].checkpoint_id for pointer in namespace.pointers if pointer in heads}


def documents_with_blobs(namespaces: Iterable[Namespace], policy: RetentionPolicy, now: float) -> list[bytes]:
    """Return the kept documents, which name the blobs to keep."""
    found: list[bytes] = []
    for namespace in namespaces:
        if namespace.blobs:
            ordered = namespace.newest_first()
            found += [document.key for document in ordered[: policy.kept_count(ordered, now)]]
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
