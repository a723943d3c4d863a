"""Threads of CompactRedisSaver in a run of the cleanup, collected during the scan and decided afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ai_ops.checkpoints.logic.compact_keys import IDS, CompactKeys, sort_out
from ai_ops.checkpoints.logic.compact_plan import (
    CompactDeletion,
    Look,
    Sorted,
    may_have_old,
    settle_unsure,
    sort_threads,
)
from ai_ops.checkpoints.logic.deletion import NEEDED, UNKNOWN_SIZE, WAITING, OverLimit
from ai_ops.checkpoints.logic.keys import KeyParser
from ai_ops.checkpoints.logic.retention import RetentionPolicy
from ai_ops.checkpoints.logic.tally import Tally
from ai_ops.checkpoints.redis.compact_scripts import CHECKED_AT_ONCE, LOOKED_AT_ONCE
from ai_ops.checkpoints.redis.compact_store import CompactStore, Trimmed
from ai_ops.checkpoints.redis.key_spool import KeySpool
from ai_ops.logic.batches import batches

# Threads in a batch of decisions: the answers of a few calls.
THREADS_AT_ONCE = 6 * LOOKED_AT_ONCE
# Whole threads in a batch of deletions: all decided ones. While Redis deletes them, the next threads are decided.
DELETIONS_AT_ONCE = THREADS_AT_ONCE
# Threads in a batch of looks with all documents, because they may have checkpoints to trim.
TRIMMED_AT_ONCE = 20
# Maximum number of rounds of trimming and measuring a thread. Each round at least halves the excess.
SHRINKS = 8

Deletions = list[CompactDeletion]


def threads_of_keys(keys: Sequence[bytes]) -> list[bytes]:
    """Return the common part of the two keys of each thread."""
    return [key.removesuffix(IDS) for key in keys]


class CompactRun:
    """Finds the deletions from threads of CompactRedisSaver.

    Args:
        store: The Redis with the threads.
        keys: The parser of their keys.
        parser: The parser of times.
        now: The time from which ages are counted, seconds since 1970.
        tally: Counts the threads that stay.
        on_threads: Called with threads before they are decided.
    """

    def __init__(
        self,
        store: CompactStore,
        keys: CompactKeys,
        parser: KeyParser,
        now: float,
        tally: Tally,
        on_threads: Callable[[Sequence[Look]], object] | None = None,
    ) -> None:
        self.store = store
        self._keys = keys
        self._parser = parser
        self._now = now
        self._tally = tally
        self._on_threads = on_threads
        self._spool: KeySpool | None = None

    def begin(self, spool: KeySpool) -> None:
        """Collect keys in `spool` from now on."""
        self._spool = spool

    def take(self, keys: Sequence[bytes]) -> list[bytes]:
        """Collect the keys of the saver's threads; return the other keys."""
        found = sort_out(keys, self._keys)
        if (own := found[True]) and self._spool is not None:
            self._spool.add_text(own, threads_of_keys(own))
        return found[False]

    def clear(self) -> None:
        """Drop the collected keys before the scan restarts."""
        if self._spool is not None:
            self._spool.clear()

    def deletions(self, policy: Callable[[], RetentionPolicy], *, decide: bool) -> Iterator[Deletions]:
        """Yield the deletions in batches; each batch is found after the deletion of the previous one.

        Args:
            policy: Returns the policy with the current pins.
            decide: Whether to decide deletions; if not, only `on_threads` is called.
        """
        for looks in self._looks(self._now - policy().shortest):
            if self._on_threads is not None:
                self._on_threads(looks)
            if decide:
                # The pins may have changed since the request to Redis.
                yield from self.decided(looks, policy())

    def _looks(self, young: float) -> Iterator[list[Look]]:
        """Yield all threads in batches, each part of the spool after Redis has examined the next one.

        Redis needs 10 to 25 percent less processor time than with alternating looks and deletions. It has work while
        the caller decides.
        """
        before: list[Callable[[], list[Look]]] = []
        for part in self._spool or ():
            threads = self._keys.threads_in(part.text.split(b"\n")) if part.text else ()
            asked = [self.store.look_ahead(some, young) for some in batches(threads, THREADS_AT_ONCE)]
            for looks in before:
                yield looks()
            before = asked
        for looks in before:
            yield looks()

    def decided(self, looks: Sequence[Look], policy: RetentionPolicy) -> Iterator[Deletions]:
        """Yield the deletions from some threads in batches."""
        groups = [(held, sort_threads(some, held, self._now, self._parser)) for held, some in _by_policy(looks, policy)]
        waiting = self.store.waiting([look for _, found in groups for look, _ in found.unsure])
        for held, found in groups:
            found.expired += settle_unsure(found, waiting, held, self._now)
            with self._tally.of_compact():
                self._tally.keep({held.name: found.kept + len(found.trimmable)})
                self._tally.add_unfixable(found.unfixable)
        yield from batches([each for _, found in groups for each in found.expired], DELETIONS_AT_ONCE)
        yield from self._halves([look for _, found in groups for look in found.halves])
        for held, found in groups:
            yield from self._trims(found, held)
            if held.max_bytes is not None:
                yield from self._shrinks([look for look, _ in found.trimmable], held, held.max_bytes)

    def _halves(self, looks: Sequence[Look]) -> Iterator[Deletions]:
        for some in batches(looks, DELETIONS_AT_ONCE):
            found = [self.store.half(look) for look in some]
            self._add_unfixable([each for each in found if isinstance(each, Look)])
            yield [each for each in found if isinstance(each, CompactDeletion)]

    def _trims(self, found: Sorted, policy: RetentionPolicy) -> Iterator[Deletions]:
        chosen = [each for each in found.trimmable if may_have_old(each[0], policy, self._now, self._parser)]
        small, large = [], []
        for each in chosen:
            (large if each[0].checkpoints > CHECKED_AT_ONCE else small).append(each)
        for some in [*batches(small, TRIMMED_AT_ONCE), *([each] for each in large)]:
            trimmed = list(self.store.trimmed(some, policy, self._now))
            self._add_unfixable([each.look for each in trimmed if not each.is_readable])
            self._add_over_limits(trimmed, policy)
            yield [each.deletion for each in trimmed if each.deletion is not None]

    def _shrinks(self, looks: Sequence[Look], policy: RetentionPolicy, limit: int) -> Iterator[Deletions]:
        """Yield the deletions from threads over their memory limit, until they fit or no more may be deleted."""
        sizes = self.store.sizes(looks)
        for look, size in zip(looks, sizes, strict=True):
            if size is None:
                self._count_over_memory(look, policy, 0, UNKNOWN_SIZE)
            elif size > limit:
                yield from self._shrink(look, size, policy, limit)

    def _shrink(self, look: Look, size: int, policy: RetentionPolicy, limit: int) -> Iterator[Deletions]:
        before = -1
        for _ in range(SHRINKS):
            # Conversations grow, so old checkpoints are smaller than average. The estimate deletes too few rather than
            # too many.
            newest = max(1, min(look.checkpoints - 1, int(look.checkpoints * limit / size)))
            (trimmed,) = self.store.trimmed([(look, self._now)], policy, self._now, newest)
            if trimmed.deletion is None or look.checkpoints == before:
                break
            yield [trimmed.deletion]
            before = look.checkpoints
            (look,) = self.store.look([look.thread], 0.0)
            size = self.store.sizes([look])[0] or 0
            if size <= limit:
                return
            if look.checkpoints == before:
                # In a dry run nothing was deleted.
                return
        waits = self.store.waiting([look])[look]
        self._count_over_memory(look, policy, size, WAITING if waits else NEEDED)

    def _count_over_memory(self, look: Look, policy: RetentionPolicy, size: int, why: str) -> None:
        self._tally.add_over_limits([OverLimit(look.thread.name, policy.name, "max_thread_mb", size, why)])

    def _add_over_limits(self, trimmed: Sequence[Trimmed], policy: RetentionPolicy) -> None:
        limit = policy.max_checkpoints
        above = [each for each in trimmed if limit is not None and each.left > limit]
        waiting = self.store.waiting([each.look for each in above]) if above else {}
        self._tally.add_over_limits(
            [
                OverLimit(
                    each.look.thread.name,
                    policy.name,
                    "max_checkpoints",
                    each.left,
                    WAITING if waiting[each.look] else NEEDED,
                )
                for each in above
            ]
        )

    def _add_unfixable(self, found: Sequence[Look]) -> None:
        with self._tally.of_compact():
            self._tally.add_unfixable([each.thread.key for each in found])


def _by_policy(looks: Sequence[Look], policy: RetentionPolicy) -> list[tuple[RetentionPolicy, list[Look]]]:
    """Group the threads by the policy that applies to each."""
    if policy.classes is None:
        return [(policy, list(looks))]
    found: dict[int, tuple[RetentionPolicy, list[Look]]] = {}
    for look in looks:
        held = policy.of((look.thread.name,))
        found.setdefault(id(held), (held, []))[1].append(look)
    return list(found.values())
