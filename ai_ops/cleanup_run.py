"""One run of the checkpoint cleanup: scan, decide thread by thread, delete in batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ai_ops.adapters.checkpoint_store import CheckpointStore, Outcome, batches
from ai_ops.adapters.key_spool import KeySpool
from ai_ops.core.checkpoint_keys import CheckpointKey, KeyParser
from ai_ops.core.reports import CleanupReport
from ai_ops.core.retention import (
    Deletion,
    Facts,
    Reason,
    RetentionPolicy,
    group_threads,
    lone_pointers,
    make_plan,
    possible_stubs,
    set_stubs_aside,
    trimmable,
    undated_documents,
)

DELETIONS_PER_BATCH = 100
NAMED_KEYS = 5  # of those that could not be dated, so many are named in the log
SHOWN_KEY_BYTES = 120


@dataclass
class Tally:
    """What a run has done so far."""

    processed: int = 0
    deleted: int = 0
    threads_deleted: int = 0
    threads_kept: int = 0
    trimmed: int = 0
    orphans: int = 0
    changed: int = 0
    unfixable: int = 0
    unfixable_names: list[str] = field(default_factory=list)

    def add_unfixable(self, keys: Sequence[bytes]) -> None:
        """Count keys that stay because nothing tells their age or their kind."""
        self.unfixable += len(keys)
        room = NAMED_KEYS - len(self.unfixable_names)
        self.unfixable_names += [repr(key[:SHOWN_KEY_BYTES])[1:] for key in keys[:room]]

    def add_outcome(self, deletion: Deletion, outcome: Outcome) -> None:
        """Count what became of a deletion."""
        self.deleted += outcome.deleted
        self.add_unfixable(outcome.wrong_type)
        if outcome.changed:
            self.changed += 1
            self.threads_kept += deletion.reason is Reason.EXPIRED
        elif deletion.reason is Reason.EXPIRED:
            self.threads_deleted += 1
        elif deletion.reason is Reason.TRIMMED:
            self.trimmed += deletion.checkpoints
        else:
            self.orphans += outcome.deleted


class CleanupRun:
    """Applies a retention policy to a store, once.

    Args:
        store: Where the checkpoints are.
        parser: Takes keys apart.
        policy: What may go.
        now: The moment ages are counted from, seconds since 1970.
        dryrun: Whether to find out what would go instead of deleting it.
    """

    def __init__(
        self, store: CheckpointStore, parser: KeyParser, policy: RetentionPolicy, now: float, *, dryrun: bool
    ) -> None:
        self.tally = Tally()
        self._store = store
        self._parser = parser
        self._policy = policy
        self._now = now
        self._dryrun = dryrun
        self._clock: Callable[[], float] = time.monotonic
        self._started = self._clock()

    def execute(self) -> None:
        """Run; after an exception the tally says what was done until then.

        Raises:
            CheckpointStoreError: Redis failed for longer than it was waited for.
        """
        with KeySpool(self._store.size()) as spool:
            self._scan(spool)
            for keys in spool:
                for batch in batches(self._decide(keys), DELETIONS_PER_BATCH):
                    self._delete(batch)

    def report(self, retention_days: object, error: str | None = None) -> CleanupReport:
        """What was done until now."""
        tally = self.tally
        return CleanupReport(
            processed_count=tally.processed,
            deleted_count=tally.deleted,
            retention_days=retention_days,
            error=error,
            dryrun=self._dryrun,
            threads_deleted=tally.threads_deleted,
            threads_kept=tally.threads_kept,
            checkpoints_trimmed=tally.trimmed,
            orphan_count=tally.orphans,
            unfixable_count=tally.unfixable,
            changed_count=tally.changed,
            seconds=round(self._clock() - self._started, 3),
        )

    def _scan(self, spool: KeySpool) -> None:
        parse = self._parser.parse
        for keys in self._store.scan():
            self.tally.processed += len(keys)
            for key in keys:
                if parsed := parse(key):
                    spool.add(parsed)

    def _decide(self, keys: list[CheckpointKey]) -> Iterator[Deletion]:
        threads = group_threads(keys)
        set_stubs_aside(threads, self._store.stubs(possible_stubs(threads, self._now)))
        dated = Facts(times=self._store.times(undated_documents(threads)))
        to_trim = trimmable(threads, dated, self._policy, self._now)
        pointers = [pointer for namespace in to_trim for pointer in namespace.pointers]
        facts = Facts(
            times=dated.times,
            heads=self._store.heads([*pointers, *lone_pointers(threads)]),
            lineage=self._store.lineage(to_trim),
        )
        plan = make_plan(threads, facts, self._policy, self._now)
        self.tally.threads_kept += plan.kept_threads
        self.tally.add_unfixable(plan.unfixable)
        yield from plan.deletions

    def _delete(self, deletions: list[Deletion]) -> None:
        for deletion, outcome in zip(deletions, self._store.apply(deletions, dryrun=self._dryrun), strict=True):
            self.tally.add_outcome(deletion, outcome)
