"""The retention of a run. Times are seconds since 1970."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from ai_ops.checkpoints.logic.keys import KeyPrefixes
from ai_ops.checkpoints.logic.pins import Pins
from ai_ops.checkpoints.logic.threads import Document, Namespace, Thread
from ai_ops.logic.globs import compiled
from ai_ops.logic.policies import DAY as DAY
from ai_ops.logic.policies import NO_POLICY, PolicyIndex


@dataclass(frozen=True)
class RetentionPolicy:
    """The retention of a run.

    Attributes:
        retention: Seconds after which a checkpoint may be deleted.
        pending_retention: Seconds after which a thread that waits for a user's answer may be deleted.
        trim_live_threads: Whether old checkpoints of live threads are deleted.
        keep_last: Minimum number of checkpoints that each namespace of a live thread keeps, at least 1.
        thread_pattern: A glob for thread ids; other threads stay. None for all threads.
        pinned: Ids of threads that stay, with all keys that may belong to them.
        prefixes: The prefixes of RedisSaver's keys.
        undated_blobs: Whether blobs of threads without a checkpoint may be deleted. They have no time.
        pinned_globs: Globs for the ids of pinned threads.
        max_checkpoints: Maximum number of checkpoints in each namespace of a live thread; None for no limit.
        max_bytes: Maximum memory of a live thread in bytes; None for no limit, or for threads known to be within it
            (see `fitting`).
        name: The name of the applied policy; empty for the run's own options.
        classes: The policies of other threads; None if there are none.
    """

    retention: float
    pending_retention: float
    trim_live_threads: bool = True
    keep_last: int = 1
    thread_pattern: str | None = None
    pinned: frozenset[str] = frozenset()
    prefixes: KeyPrefixes = field(default_factory=KeyPrefixes)
    undated_blobs: bool = True
    pinned_globs: frozenset[str] = frozenset()
    max_checkpoints: int | None = None
    max_bytes: int | None = None
    name: str = ""
    classes: PolicyIndex | None = None

    @property
    def has_limits(self) -> bool:
        """Return whether checkpoints may be deleted regardless of their age."""
        return self.max_checkpoints is not None or self.max_bytes is not None

    @property
    def may_trim_some(self) -> bool:
        """Return whether checkpoints of a live thread may be deleted."""
        return self.trim_live_threads or self.has_limits

    def with_pins(self, pins: Pins) -> RetentionPolicy:
        """Return this policy with other pins."""
        if (pins.ids, pins.globs) == (self.pinned, self.pinned_globs):
            return self
        return replace(self, pinned=pins.ids, pinned_globs=pins.globs)

    def of(self, names: Iterable[bytes]) -> RetentionPolicy:
        """Return the policy for the thread with this id; the same object for all threads of one policy.

        Args:
            names: All possible names of the thread, the most likely first. If they have several policies, the most
                lenient rule of each kind applies.
        """
        if self.classes is None:
            return self
        return self._held(self.classes.ranks_of(names))

    def by_rank(self, rank: int) -> RetentionPolicy:
        """Return the policy with a rank in `classes`; NO_POLICY means the run's own options."""
        return self._held((rank,))

    def _held(self, ranks: tuple[int, ...]) -> RetentionPolicy:
        if (found := self._by_ranks.get(ranks)) is None:
            each = [self if rank == NO_POLICY else self._applied(rank) for rank in ranks]
            found = self._by_ranks[ranks] = each[0] if len(each) == 1 else _most_lenient(each)
        return found

    @cached_property
    def _by_ranks(self) -> dict[tuple[int, ...], RetentionPolicy]:
        return {}

    def _applied(self, rank: int) -> RetentionPolicy:
        """Return the policy with a rank, with its empty values taken from this policy."""
        assert self.classes is not None  # noqa: S101
        given = self.classes.policies[rank]
        retention = self.retention if given.retention is None else given.retention
        pending = given.pending_retention
        if pending is None:
            pending = self.pending_retention
            if given.retention is not None:
                # If both are the same, the run has no separate value. A thread that waits for an answer must not be
                # deleted earlier than without waiting.
                pending = retention if pending == self.retention else max(pending, retention)
        return replace(
            self,
            retention=retention,
            pending_retention=pending,
            trim_live_threads=self.trim_live_threads if given.trim_live_threads is None else given.trim_live_threads,
            keep_last=self.keep_last if given.keep_last is None else given.keep_last,
            max_checkpoints=given.max_checkpoints,
            max_bytes=given.max_bytes,
            name=given.name,
        )

    def group_by_policy(self, threads: Iterable[Thread]) -> list[tuple[RetentionPolicy, list[Thread]]]:
        """Group the threads by the policy that applies to each."""
        if self.classes is None:
            return [(self, list(threads))]
        found: dict[int, tuple[RetentionPolicy, list[Thread]]] = {}
        for thread in threads:
            policy = self.of(thread.names)
            found.setdefault(id(policy), (policy, []))[1].append(thread)
        return list(found.values())

    @cached_property
    def fitting(self) -> RetentionPolicy:
        """Return the policy for threads known to be within their memory limit."""
        return self if self.max_bytes is None else replace(self, max_bytes=None)

    def since(self, time: float, now: float) -> RetentionPolicy:
        """Return the policy that deletes all optional checkpoints older than `time`."""
        return replace(
            self,
            retention=now - time,
            pending_retention=now - time,
            trim_live_threads=True,
            keep_last=1,
            max_bytes=None,
        )

    @property
    def shortest(self) -> float:
        """Return the shorter of the two retentions, in seconds."""
        return min(self.retention, self.pending_retention)

    @property
    def covers_all(self) -> bool:
        """Return whether no pin and no pattern excludes a thread."""
        return self.thread_pattern is None and not self.pinned and not self.pinned_globs

    def covers(self, names: Iterable[bytes]) -> bool:
        """Return whether a thread with any of these names is subject to the policy."""
        if self.covers_all:
            return True
        texts = list(map(_text, names))
        if Pins(self.pinned, self.pinned_globs).match(texts):
            return False
        return self.thread_pattern is None or all(compiled(self.thread_pattern).match(text) for text in texts)

    def may_trim(self, namespace: Namespace, now: float) -> bool:
        """Return whether a namespace of a live thread has checkpoints that may be deleted."""
        count = len(namespace.documents)
        if not self.may_trim_some or namespace.is_shallow or count <= 1:
            return False
        if self.max_bytes is not None or (self.max_checkpoints is not None and count > self.max_checkpoints):
            return True
        if not self.trim_live_threads or count <= self.keep_last:
            return False
        return any((document.time or now) < now - self.retention for document in namespace.documents.values())

    def kept_count(self, ordered: Sequence[Document], now: float) -> int:
        """Return the number of a namespace's newest checkpoints that are always kept."""
        return self.kept_of(len(ordered), sum((document.time or now) >= now - self.retention for document in ordered))

    def kept_of(self, count: int, recent: int) -> int:
        """Return the number of kept checkpoints among `count`, of which `recent` are within the retention."""
        kept = max(recent, self.keep_last, 1) if self.trim_live_threads else count
        if self.max_checkpoints is not None:
            kept = min(kept, self.max_checkpoints)
        return min(count, kept)


def _most_lenient(policies: Sequence[RetentionPolicy]) -> RetentionPolicy:
    """Return the most lenient combination of policies that may apply to a thread, under the first one's name."""
    counts = [each.max_checkpoints for each in policies]
    sizes = [each.max_bytes for each in policies]
    return replace(
        policies[0],
        retention=max(each.retention for each in policies),
        pending_retention=max(each.pending_retention for each in policies),
        trim_live_threads=all(each.trim_live_threads for each in policies),
        keep_last=max(each.keep_last for each in policies),
        max_checkpoints=None if None in counts else max(filter(None, counts)),
        max_bytes=None if None in sizes else max(filter(None, sizes)),
    )


def _text(name: bytes) -> str:
    return name.decode(errors="surrogateescape")
