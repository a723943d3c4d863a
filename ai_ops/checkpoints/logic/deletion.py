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
        documents: Any of these documents it may name; the likeliest is first. It goes with them.
    """

    key: bytes
    documents: tuple[Document, ...]


class Deletion(NamedTuple):
    """Keys that are deleted together, and the conditions of their deletion.

    Attributes:
        thread: The thread they belong to.
        reason: Why they go.
        guards: Pointers compared and deleted in one step, before anything else; one changed keeps all.
        owners: Documents that must still be missing.
        list_entries: Entries to take out of ValkeySaver's lists, as (list, checkpoint id).
        keys: The other keys by family, in the order of deletion.
        namespaces: How many namespaces they are from.
        last_activity: The thread's newest checkpoint, seconds since 1970; None for orphans.
        policy: The name of the policy that holds for the thread; empty for none.
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
        limit: The provision, ``max_checkpoints`` or ``max_thread_mb``.
        has: Checkpoints of its largest namespace, or bytes, that stay.
        why: Why they stay, as a clause.
    """

    thread: bytes
    policy: str
    limit: str
    has: int
    why: str


# Why a thread stays above a limit.
NEEDED = "the last checkpoint of each namespace and those it is read from stay"
WAITING = "it waits for an answer"
UNKNOWN_SIZE = "its size is not known: grant +memory|usage to the Redis user"


class Outcome(NamedTuple):
    """The result of a deletion.

    Attributes:
        deleted: Keys deleted, or that would be in a dry run.
        changed: Whether the thread went on meanwhile and was left alone.
        wrong_type: Keys that hold something no saver writes there, and stay.
        trimmed: Checkpoints deleted from a key that stays.
        namespaces: How many namespaces they were from, where the deletion did not know.
    """

    deleted: int
    changed: bool = False
    wrong_type: tuple[bytes, ...] = ()
    trimmed: int = 0
    namespaces: int = 0


def blob_deletion(thread: bytes, blobs: tuple[bytes, ...]) -> Deletion:
    """Return the deletion of blobs that two scans have found without a checkpoint."""
    return Deletion(thread, Reason.ORPHANED, (), (), (), {Family.BLOB: blobs}, 1, None)
