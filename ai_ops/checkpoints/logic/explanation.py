"""Explanations: the rules by which checkpoints stay or are deleted, in words.

This module has no input or output. Times are seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from ai_ops.checkpoints.logic.compact_plan import CompactDeletion
from ai_ops.checkpoints.logic.deletion import Deletion, Reason
from ai_ops.checkpoints.logic.lookups import Facts
from ai_ops.checkpoints.logic.plan import narrowed_to_size, waits_for_answer
from ai_ops.checkpoints.logic.reports import text_of
from ai_ops.checkpoints.logic.retention import RetentionPolicy
from ai_ops.checkpoints.logic.threads import Thread
from ai_ops.logic.policies import duration_text

PINNED = "the thread is pinned"
UNDATED = "a checkpoint of the thread has no readable time"
WAITS = "the thread waits for an answer"
NEWEST = "the newest of its namespace"
POINTED = "the pointer of its namespace names it"
ANCESTOR = "a kept checkpoint is read from it"
UNTRIMMED = "live threads are not trimmed"
PART = "a part of the thread is missing, or other software has changed it"


@dataclass(frozen=True)
class CheckpointVerdict:
    """The next cleanup's decision on a checkpoint.

    Attributes:
        checkpoint_id: Its id.
        time: Time of its creation, ISO 8601 in UTC; None if unknown.
        bytes: Its memory in Redis; None if unknown.
        goes: Whether the next cleanup deletes it.
        rule: The reason, as a clause.
    """

    checkpoint_id: str
    time: str | None
    bytes: int | None
    goes: bool
    rule: str


@dataclass(frozen=True)
class NamespaceVerdict:
    """A namespace of a thread: its name, empty for the graph's own, and its checkpoints, newest first."""

    name: str
    checkpoints: tuple[CheckpointVerdict, ...]


@dataclass(frozen=True)
class Explanation:
    """A cleanup's view of a thread, and its decisions.

    Attributes:
        thread: The thread's id.
        found: Whether it has keys in Redis.
        error: The reason why it could not be read, as a sentence.
        layout: The saver that wrote it; empty if nothing was found.
        complete: Whether these are certainly all of its checkpoints.
        notes: Sentences about parts that were not examined.
        last_activity: Time of its newest checkpoint, ISO 8601 in UTC.
        keys: Number of its keys.
        bytes: Their memory in Redis; None if unknown.
        waits: Whether it waits for an answer; None if unknown.
        pinned: Whether it is pinned.
        policy: The name of its retention policy; empty for the configured options.
        retention: The applied retention, in words.
        decision: The decision of the next cleanup, as a sentence.
        namespaces: Its namespaces.
        over_limits: Limits of the policy that it still exceeds, with reasons.
    """

    thread: str
    found: bool = False
    error: str | None = None
    layout: str = ""
    complete: bool = True
    notes: tuple[str, ...] = ()
    last_activity: str | None = None
    keys: int = 0
    bytes: int | None = None
    waits: bool | None = None
    pinned: bool = False
    policy: str = ""
    retention: str = ""
    decision: str = ""
    namespaces: tuple[NamespaceVerdict, ...] = ()
    over_limits: tuple[dict[str, Any], ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """Return the result of `explain_thread`: `success`, and every attribute by its name, in a form for JSON."""
        lists = {"notes": list(self.notes), "over_limits": list(self.over_limits)}
        spaces = [
            asdict(space) | {"checkpoints": [asdict(each) for each in space.checkpoints]} for space in self.namespaces
        ]
        return {"success": self.error is None, **asdict(self), **lists, "namespaces": spaces}


def retention_text(policy: RetentionPolicy) -> str:
    """Return the rules of a policy in words."""
    parts = [
        f"{duration_text(policy.retention)} for idle threads",
        f"{duration_text(policy.pending_retention)} for threads that wait for an answer",
        f"live threads keep the last {policy.keep_last}" if policy.trim_live_threads else "live threads stay",
    ]
    if policy.max_checkpoints is not None:
        parts.append(f"at most {policy.max_checkpoints} checkpoints in a namespace")
    if policy.max_bytes is not None:
        parts.append(f"at most {policy.max_bytes / 1024 / 1024:g} MiB")
    return "; ".join(parts)


def verdicts(
    thread: Thread,
    facts: Facts,
    policy: RetentionPolicy,
    now: float,
    gone: frozenset[bytes],
    sizes: Mapping[bytes, int],
) -> tuple[NamespaceVerdict, ...]:
    """Return the decision on each checkpoint of a thread, and the rule.

    Args:
        thread: The thread.
        facts: The facts read from its values.
        policy: The applied policy.
        now: The time from which ages are counted.
        gone: The keys that the plan deletes.
        sizes: Memory of keys in bytes.
    """
    rules = _rules_of(thread, facts, policy, now)
    return tuple(
        NamespaceVerdict(
            "" if space.is_root else text_of(space.name),
            tuple(
                CheckpointVerdict(
                    text_of(document.checkpoint_id),
                    iso(document.time),
                    sizes.get(document.key),
                    document.key in gone,
                    rules.of(
                        document.time,
                        place,
                        goes=document.key in gone,
                        pointed=any(facts.heads.get(pointer) == document for pointer in space.pointers),
                    ),
                )
                for place, document in enumerate(space.newest_first())
            ),
        )
        for space in sorted(thread.namespaces.values(), key=lambda space: (not space.is_root, space.name))
        if space.documents
    )


@dataclass(frozen=True)
class Rules:
    """The rules in the order in which a cleanup applies them to the checkpoints of a thread.

    Attributes:
        policy: The applied policy.
        now: The time from which ages are counted.
        active: Time of the newest checkpoint; None if a checkpoint has no readable time.
        pinned: Whether the thread is pinned.
        waits: Whether it waits for an answer.
        narrowed: The policy for its memory limit, if it differs.
    """

    policy: RetentionPolicy
    now: float
    active: float | None
    pinned: bool
    waits: bool
    narrowed: RetentionPolicy | None = None

    def of(self, time: float | None, place: int, *, goes: bool, pointed: bool = False) -> str:
        """Return the rule for one checkpoint.

        Args:
            time: Time of its creation.
            place: Its position in its namespace, 0 for the newest.
            goes: Whether the plan deletes it.
            pointed: Whether the pointer of its namespace names it.
        """
        return self._why_it_is_deleted(time, place) if goes else self._why_it_is_kept(time, place, pointed)

    def _why_it_is_deleted(self, time: float | None, place: int) -> str:
        policy = self.policy
        longest = policy.pending_retention if self.waits else policy.retention
        if self.active is not None and self.active < self.now - longest:
            return f"the thread was last active before its retention of {duration_text(longest)}"
        is_old = (time or self.now) < self.now - policy.retention
        if policy.trim_live_threads and is_old and place >= policy.keep_last:
            return f"older than the retention of {duration_text(policy.retention)}"
        if policy.max_checkpoints is not None and place >= policy.max_checkpoints:
            return f"over the limit of {policy.max_checkpoints} checkpoints"
        return f"over the limit of {(policy.max_bytes or 0) / 1024 / 1024:g} MiB"

    def _why_it_is_kept(self, time: float | None, place: int, pointed: bool) -> str:
        policy = self.narrowed or self.policy
        if self.pinned:
            return PINNED
        if self.active is None:
            return UNDATED
        if self.waits:
            return WAITS
        if place == 0:
            return NEWEST
        if pointed:
            return POINTED
        within = policy.max_checkpoints is None or place < policy.max_checkpoints
        if within and not policy.trim_live_threads:
            return UNTRIMMED
        if within and (time or self.now) >= self.now - policy.retention:
            return f"within the retention of {duration_text(self.policy.retention)}"
        if within and place < policy.keep_last:
            return f"one of the last {policy.keep_last} of its namespace"
        return ANCESTOR


def _rules_of(thread: Thread, facts: Facts, policy: RetentionPolicy, now: float) -> Rules:
    active = thread.last_activity()
    narrowed = narrowed_to_size(thread, facts, policy, now) if active is not None else policy
    return Rules(
        policy,
        now,
        active,
        pinned=not policy.covers(thread.names),
        waits=waits_for_answer(thread, facts),
        narrowed=narrowed if narrowed.retention != policy.retention else None,
    )


def decision(deletions: Iterable[Deletion | CompactDeletion], *, pinned: bool, found: bool) -> str:
    """Return a cleanup's decision on a thread, as a sentence."""
    deletions = list(deletions)
    if not found:
        return "No keys of this thread were found."
    if pinned:
        return "The thread is pinned, so all its keys stay."
    if any(each.reason is Reason.EXPIRED for each in deletions):
        return "The next cleanup deletes the whole thread."
    trimmed = sum(each.checkpoints for each in deletions if each.reason is Reason.TRIMMED)
    if trimmed:
        return f"The thread stays; the next cleanup deletes {trimmed} of its checkpoints."
    return "The thread stays unchanged."


def decision_on_rest(deletions: Iterable[Deletion | CompactDeletion], keys: int, *, pinned: bool) -> str:
    """Return a cleanup's decision on the leftovers of a thread without a checkpoint, as a sentence."""
    goes = sum(each.size for each in deletions)
    if pinned or not goes:
        return f"No checkpoint of this thread is left. The {keys} keys that are left stay for now."
    return f"No checkpoint of this thread is left. The next cleanup deletes {goes} of the {keys} keys that are left."


def joined(one: Explanation, other: Explanation) -> Explanation:
    """Return the explanation of a thread that two savers have written: the cleanup decides on each by itself."""
    return replace(
        one,
        layout=f"{one.layout} and {other.layout}",
        complete=one.complete and other.complete,
        notes=(*one.notes, *other.notes),
        last_activity=max(filter(None, (one.last_activity, other.last_activity)), default=None),
        keys=one.keys + other.keys,
        bytes=None if one.bytes is None or other.bytes is None else one.bytes + other.bytes,
        waits=bool(one.waits or other.waits),
        decision=f"{one.layout}: {one.decision} {other.layout}: {other.decision}",
        namespaces=(*one.namespaces, *other.namespaces),
        over_limits=(*one.over_limits, *other.over_limits),
    )


def iso(time: float | None) -> str | None:
    """Return a time as text, ISO 8601 in UTC."""
    return None if time is None else datetime.fromtimestamp(time, tz=UTC).isoformat(timespec="seconds")
