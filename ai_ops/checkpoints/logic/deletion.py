"""Deletions: their keys, reasons and conditions. Times are seconds since 1970."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from ai_ops.checkpoints.logic.keys import Family
from ai_ops.checkpoints.logic.threads import Document


class Reason(Enum):
    """Reasons for deletions."""

    EXPIRED = "expired"
    TRIMMED = "trimmed"
    ORPHANED = "orphaned"


class Guard(NamedTuple):
    """A pointer that must still have the value from which the plan was made.

    Attributes:
        key: The pointer, or ValkeySaver's list.
        documents: The documents that it may name, the most likely first. It is deleted with them.
    """

    key: bytes
    documents: tuple[Document, ...]


class Deletion(NamedTuple):
    """Keys that are deleted together, and the conditions of their deletion.

    Attributes:
        thread: The thread they belong to.
        reason: Reason of the deletion.
        guards: Pointers that are compared and deleted in one step, before the other keys. If one of them has changed,
            nothing is deleted.
        owners: Documents that must still be missing.
        list_entries: Entries to remove from ValkeySaver's lists, as (list, checkpoint id).
        keys: The other keys by family, in the order of deletion.
        namespaces: Number of their namespaces.
        last_activity: Time of the thread's newest checkpoint, seconds since 1970; None for orphans.
        policy: The name of the thread's policy; empty for none.
    """

    thread: bytes
    reason: Reason
    guards: tuple[Guard, ...]
    owners: tuple[bytes, ...]
    list_entries: tuple[tuple[bytes, bytes], ...]
    keys: Mapping[int, tuple[bytes, ...]]
    namespaces: int
    last_activity: float | None
    policy: str = ""

    @property
    def size(self) -> int:
        """Return the number of deleted keys, including pointers."""
        return len(self.guards) + sum(map(len, self.keys.values()))

    def some_keys(self, number: int) -> list[bytes]:
        """Return up to this many of the keys, from all families."""
        keys = [*(guard.key for guard in self.guards), *(key for some in self.keys.values() for key in some)]
        return keys[:: -(-len(keys) // number)] if keys else []

    @property
    def checkpoints(self) -> int:
        """Return the number of deleted checkpoints."""
        return len(self.keys.get(Family.DOCUMENT, ()))


class OverLimit(NamedTuple):
    """A thread that stays over a limit of its policy, because it needs more to continue.

    Attributes:
        thread: Its id.
        policy: The name of the policy.
        limit: The name of the limit, ``max_checkpoints`` or ``max_thread_mb``.
        has: Number of checkpoints that its largest namespace keeps, or of bytes that the thread keeps.
        why: The reason, as a clause.
    """

    thread: bytes
    policy: str
    limit: str
    has: int
    why: str


# Reasons why a thread stays over a limit.
NEEDED = "the last checkpoint of each namespace and those it is read from stay"
WAITING = "it waits for an answer"
UNKNOWN_SIZE = "its size is not known: grant +memory|usage to the Redis user"


class Outcome(NamedTuple):
    """The result of a deletion.

    Attributes:
        deleted: Number of deleted keys, or of keys to delete in a dry run.
        changed: Whether the deletion was cancelled because the thread has continued.
        wrong_type: Keys with a type that no saver writes; they stay.
        trimmed: Number of checkpoints deleted from a key that stays.
        namespaces: Number of their namespaces, if the deletion did not have it.
    """

    deleted: int
    changed: bool = False
    wrong_type: tuple[bytes, ...] = ()
    trimmed: int = 0
    namespaces: int = 0


def blob_deletion(thread: bytes, blobs: tuple[bytes, ...]) -> Deletion:
    """Return the deletion of blobs that two scans have found without a checkpoint."""
    return Deletion(thread, Reason.ORPHANED, (), (), (), {Family.BLOB: blobs}, 1, None)
