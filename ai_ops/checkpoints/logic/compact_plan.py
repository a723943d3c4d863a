"""Deletions from threads of CompactRedisSaver, decided from a short reply of Redis about each thread.

This module has no input or output. Times are seconds since 1970. Functions with a policy take threads of this policy
only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ai_ops.checkpoints.logic.compact_keys import Thread
from ai_ops.checkpoints.logic.deletion import Reason
from ai_ops.checkpoints.logic.keys import KeyParser
from ai_ops.checkpoints.logic.retention import RetentionPolicy
from ai_ops.checkpoints.logic.times import UUID_EPOCH

# The newest supported format of the saver's documents: langgraph_checkpoint_compact.scripts.FORMAT.
FORMAT = 1
# A seal has this instead of a namespace if the thread has several.
_SEVERAL = b"*"

# The kinds of ids that sort by time: UUIDs of version 6 and 7, and ULIDs.
_SORTED_VERSIONS = (b"6", b"7")
_UUID_LENGTH, _ULID_LENGTH = 36, 26


class State:
    """States of a thread's two keys. The scripts return these numbers, except WHOLE, instead of the newest id."""

    WHOLE = 0
    FOREIGN = 1  # data that the saver never writes: other types, or an invalid newest id
    HALF = 2  # only one of the keys, or no record of the newest checkpoint
    GONE = 3


class Look(NamedTuple):
    """The reply of Redis about a thread.

    Attributes:
        thread: The thread.
        state: One of `State`.
        newest: The id of its newest checkpoint, if it is WHOLE.
        writings: Number of its writes, as text.
        checkpoints: Number of its checkpoints, over all namespaces.
        first: The first of their names, ``<namespace>|<id>``; empty if not requested.
        last: The last of their names; empty if not requested.
        sealed: The namespace of its valid seal, ``*`` for several; None without a valid seal.
    """

    thread: Thread
    state: int
    newest: bytes = b""
    writings: bytes = b""
    checkpoints: int = 0
    first: bytes = b""
    last: bytes = b""
    sealed: bytes | None = None

    @classmethod
    def of(
        cls,
        thread: Thread,
        newest: bytes | int,
        writings: bytes | None,
        seal: bytes | None,
        checkpoints: int,
        fields: int,
        first: bytes,
        last: bytes,
    ) -> Look:
        """Parse the words of Redis: the state or the newest id, the writes, the seal, two numbers and two names."""
        if isinstance(newest, int):
            return cls(thread, newest)
        sealed = _namespace_of_seal(seal, newest, writings, checkpoints, fields) if seal else None
        return cls(thread, State.WHOLE, newest, writings or b"", checkpoints, first, last, sealed)

    @property
    def has_several(self) -> bool:
        """Return whether its seal names several namespaces."""
        return self.sealed == _SEVERAL


def _namespace_of_seal(
    seal: bytes, newest: bytes, writings: bytes | None, checkpoints: int, fields: int
) -> bytes | None:
    """Return the namespace of a valid seal, ``<format> <writings> <fields> <checkpoints> <namespace>|<newest id>``.

    It is valid if its numbers are those of the thread, and its format is supported. Then all documents have supported
    formats, and all ids are in the order of their times, as guaranteed by the saver's scripts.
    """
    parts = seal.split(b" ", 4)
    if len(parts) < 5 or parts[1:4] != [writings, b"%d" % fields, b"%d" % checkpoints]:
        return None
    namespace, _, named = parts[4].partition(b"|")
    if named != newest or not parts[0].isdigit() or not 0 < int(parts[0]) <= FORMAT:
        return None
    return namespace


class CompactDeletion(NamedTuple):
    """The deletion of a whole thread, of some of its checkpoints, or of a leftover half.

    It has the interface of `ai_ops.checkpoints.logic.deletion.Deletion`.

    Attributes:
        thread: The thread's id.
        reason: Reason of the deletion.
        keys: The keys to delete, or to delete from.
        checkpoints: Number of checkpoints to delete.
        last_activity: Time of the newest checkpoint; None for halves.
        look: The facts of the decision, which must not have changed.
        trim: The adapter's data of a live thread, with the checkpoints to delete.
        namespaces: Number of their namespaces, if known.
        policy: The name of the thread's policy; empty for none.
    """

    thread: bytes
    reason: Reason
    keys: tuple[bytes, ...]
    checkpoints: int
    last_activity: float | None
    look: Look
    trim: Any = None
    namespaces: int = 1
    policy: str = ""

    @property
    def size(self) -> int:
        """Return its share of the limit: a key, or a checkpoint of a live thread."""
        return self.checkpoints if self.reason is Reason.TRIMMED else len(self.keys)

    def some_keys(self, number: int) -> list[bytes]:
        """Return up to this many of the keys."""
        return list(self.keys[:number])


@dataclass
class Sorted:
    """Threads grouped by the required action.

    Attributes:
        expired: Threads to delete whole.
        unsure: Threads for which an answer that they wait for decides; with their time.
        trimmable: Live threads that may have old checkpoints.
        halves: Threads with only a part of their keys.
        kept: Number of unchanged threads.
        unfixable: Keys of unknown age or kind.
    """

    expired: list[CompactDeletion] = field(default_factory=list)
    unsure: list[tuple[Look, float]] = field(default_factory=list)
    trimmable: list[tuple[Look, float]] = field(default_factory=list)
    halves: list[Look] = field(default_factory=list)
    kept: int = 0
    unfixable: list[bytes] = field(default_factory=list)


def time_of_id(checkpoint_id: bytes, parser: KeyParser) -> float | None:
    """Return the creation time of the checkpoint with this id; None if the id has no time, or does not sort by time."""
    if len(checkpoint_id) == _ULID_LENGTH or (
        len(checkpoint_id) == _UUID_LENGTH and checkpoint_id[14:15] in _SORTED_VERSIONS
    ):
        return parser.time_of(checkpoint_id)
    return None


def begin_of_id(time: float) -> bytes:
    """Return the first eight digits of a UUID of version 6 of a time; they change every seven minutes."""
    return f"{max(0, int(time * 1e7) + UUID_EPOCH):015x}"[:8].encode()


def sort_threads(looks: Iterable[Look], policy: RetentionPolicy, now: float, parser: KeyParser) -> Sorted:
    """Sort threads by their age, if the age decides."""
    found = Sorted()
    longest = now - max(policy.retention, policy.pending_retention)
    shortest = now - policy.shortest
    least, covers_all = _least_kept(policy), policy.covers_all
    for look in looks:
        if look.state == State.GONE:
            continue
        active = time_of_id(look.newest, parser) if look.state == State.WHOLE else None
        if not covers_all and not policy.covers((look.thread.name,)):
            found.kept += look.state == State.WHOLE
        elif look.state == State.HALF:
            found.halves.append(look)
        elif active is None:
            found.unfixable.append(look.thread.key)
            found.kept += look.state == State.WHOLE
        elif active < longest:
            found.expired.append(expired_thread(look, active, policy.name))
        elif active < shortest:
            found.unsure.append((look, active))
        else:
            _keep(found, look, active, least)
    return found


def settle_unsure(
    found: Sorted, waiting: Mapping[Look, bool | None], policy: RetentionPolicy, now: float
) -> list[CompactDeletion]:
    """Decide about the unsure threads by whether each waits for an answer.

    None in `waiting` means unknown: then the thread stays.
    """
    expired, least = [], _least_kept(policy)
    for look, active in found.unsure:
        waits = waiting[look]
        if waits is None:
            found.unfixable.append(look.thread.key)
            found.kept += 1
        elif active < now - (policy.pending_retention if waits else policy.retention):
            expired.append(expired_thread(look, active, policy.name))
        elif waits:
            found.kept += 1
        else:
            _keep(found, look, active, least)
    found.unsure.clear()
    return expired


def _keep(found: Sorted, look: Look, active: float, least: float) -> None:
    if look.checkpoints > least:
        found.trimmable.append((look, active))
    else:
        found.kept += 1


def _least_kept(policy: RetentionPolicy) -> float:
    """Return the number of checkpoints up to which a thread certainly keeps all."""
    if policy.max_bytes is not None:
        return 1
    least = policy.keep_last if policy.trim_live_threads else math.inf
    return least if policy.max_checkpoints is None else min(least, policy.max_checkpoints)


def expired_thread(look: Look, active: float, policy: str = "") -> CompactDeletion:
    """Return the deletion of a whole thread."""
    return CompactDeletion(
        look.thread.name, Reason.EXPIRED, look.thread.keys, look.checkpoints, active, look, policy=policy
    )


def may_have_old(look: Look, policy: RetentionPolicy, now: float, parser: KeyParser) -> bool:
    """Return whether a thread may have checkpoints past the retention or too many of them.

    The first and the last name decide: in a single namespace the first is the oldest. With several namespaces all
    checkpoints are needed.
    """
    if policy.max_checkpoints is not None and look.checkpoints > policy.max_checkpoints:
        return True
    if not policy.trim_live_threads or math.isinf(policy.retention):
        return False
    namespace, _, oldest = look.first.partition(b"|")
    if namespace != look.last.partition(b"|")[0]:
        return True
    time = time_of_id(oldest, parser)
    return time is None or time < now - policy.retention


def kept_members(members: Iterable[bytes], policy: RetentionPolicy, now: float, parser: KeyParser) -> set[bytes] | None:
    """Return the checkpoints, ``<namespace>|<id>``, that stay in a live thread regardless of ancestors.

    None if the time of one is unknown, since any other may be newer.
    """
    namespaces = _by_namespace(members, parser)
    if namespaces is None:
        return None
    kept: set[bytes] = set()
    for each in namespaces.values():
        kept.update(_kept_of_namespace(each, policy, now))
    return kept


def newest_members(members: Iterable[bytes], count: int, parser: KeyParser) -> set[bytes] | None:
    """Return the newest checkpoints of a thread, and the newest of each namespace; None as in `kept_members`."""
    namespaces = _by_namespace(members, parser)
    if namespaces is None:
        return None
    in_time = sorted((each for some in namespaces.values() for each in some), key=lambda each: (each[1], each[0]))
    kept = {max(some)[0] for some in namespaces.values()}
    kept.update(member for member, _ in in_time[len(in_time) - count :])
    return kept


def largest_namespace(members: Iterable[bytes]) -> int:
    """Return the number of checkpoints in the largest namespace."""
    return max(Counter(member.partition(b"|")[0] for member in members).values(), default=0)


def _by_namespace(members: Iterable[bytes], parser: KeyParser) -> dict[bytes, list[tuple[bytes, float]]] | None:
    """Return checkpoints and their times by namespace; None if the times do not order them."""
    namespaces: dict[bytes, list[tuple[bytes, float]]] = {}
    kinds = set()
    for member in members:
        namespace, _, checkpoint_id = member.partition(b"|")
        if (time := time_of_id(checkpoint_id, parser)) is None:
            return None
        kinds.add(checkpoint_id[14:15] if len(checkpoint_id) == _UUID_LENGTH else b"")
        namespaces.setdefault(namespace, []).append((member, time))
    return None if len(kinds) > 1 else namespaces


def _kept_of_namespace(members: Sequence[tuple[bytes, float]], policy: RetentionPolicy, now: float) -> Iterator[bytes]:
    newest_first = sorted(members, reverse=True)
    recent = sum(time >= now - policy.retention for _, time in members)
    yield from (member for member, _ in newest_first[: policy.kept_of(len(members), recent)])
