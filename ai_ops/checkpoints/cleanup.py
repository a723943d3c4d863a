"""A run of the checkpoint cleanup: scan the keys, decide about each thread, and delete in batches."""

from __future__ import annotations

import gc
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from ai_ops.checkpoints.callbacks import Callbacks
from ai_ops.checkpoints.compact_cleanup import CompactRun, threads_of_keys
from ai_ops.checkpoints.logic.compact_keys import CompactKeys
from ai_ops.checkpoints.logic.compact_plan import CompactDeletion
from ai_ops.checkpoints.logic.deletion import Deletion, Outcome, OverLimit, Reason, blob_deletion
from ai_ops.checkpoints.logic.fast_path import QuickKeys
from ai_ops.checkpoints.logic.keys import CheckpointKey, Family, KeyParser
from ai_ops.checkpoints.logic.lookups import (
    Facts,
    documents_with_blobs,
    kept_documents,
    keys_of,
    lone_pointers,
    threads_to_examine,
    trimmable,
    unread_writes,
    unseen_parents,
)
from ai_ops.checkpoints.logic.pins import Pins
from ai_ops.checkpoints.logic.plan import make_plan
from ai_ops.checkpoints.logic.reports import CleanupReport, ThreadReport, text_of
from ai_ops.checkpoints.logic.retention import DAY, RetentionPolicy
from ai_ops.checkpoints.logic.tally import Tally
from ai_ops.checkpoints.logic.threads import (
    Thread,
    group_threads,
    possible_stubs,
    possibly_misnamed,
    set_own_ids,
    set_stubs_aside,
)
from ai_ops.checkpoints.logic.whole_threads import WholeOutcomes, WholeThreads
from ai_ops.checkpoints.redis.compact_store import CompactStore
from ai_ops.checkpoints.redis.key_spool import KeySpool, Part
from ai_ops.checkpoints.redis.store import CheckpointStore
from ai_ops.exceptions import CheckpointStoreError, LeaseLostError
from ai_ops.logic.batches import batches
from ai_ops.logic.globs import matches_any
from ai_ops.runs.time_limit import defer_time_limit
from ai_ops.runs.tracing import phase

DELETIONS_PER_BATCH = 500  # while Redis deletes them, the next deletions are decided
# Batches of deletions that are not counted yet. Of the last batch, only the deletion of pointers was sent. Redis still
# deletes the previous one.
BATCHES_UNDER_WAY = 2
# A dry run measures the memory of this number of threads, each by this number of keys. Twenty thousand commands take a
# third of a second.
MEASURED_THREADS = 1000
MEASURED_KEYS = 20
# The number of new objects after which the garbage collector runs: a few megabytes.
UNCOLLECTED_OBJECTS = 20_000
AnyDeletion = Deletion | CompactDeletion
NO_CALLBACKS = Callbacks()

# A second, in days. A number closer to a whole number of days differs only by rounding.
WHOLE_DAYS = 1e-5

PROGRESS_SECONDS = 1.0  # seconds between two lines, so that a large database does not flood the Job's log


class CleanupRun:
    """Applies a retention policy to a store, once.

    Args:
        store: The Redis with the checkpoints.
        parser: Parses keys.
        policy: The retention policy.
        now: The time from which ages are counted, seconds since 1970.
        dryrun: Whether to count deletions instead of deleting.
        max_deletions: Maximum number of keys to delete; None for no limit.
        pinned: Returns the threads that are pinned now; called repeatedly during the run.
        compact: The names of the keys of CompactRedisSaver.
        callbacks: Callbacks with which the caller observes and stops the run.
    """

    def __init__(
        self,
        store: CheckpointStore,
        parser: KeyParser,
        policy: RetentionPolicy,
        now: float,
        *,
        dryrun: bool,
        max_deletions: int | None = None,
        pinned: Callable[[], Pins] | None = None,
        compact: CompactKeys | None = None,
        callbacks: Callbacks = NO_CALLBACKS,
    ) -> None:
        self.tally = Tally()
        self.limit_reached = False
        self.complete = True
        self._smallest_left: int | None = None
        self._store = store
        self._parser = parser
        self._quick = QuickKeys(parser)
        self._policy = policy
        self._now = now
        self._dryrun = dryrun
        self._max_deletions = max_deletions
        self._callbacks = callbacks
        self._pinned = pinned or (lambda: Pins(policy.pinned, policy.pinned_globs))
        compact = compact or CompactKeys()
        self._compact = CompactRun(
            CompactStore(store.redis, compact, parser), compact, parser, now, self.tally, callbacks.on_compact
        )
        self._ownerless_blobs: dict[bytes, tuple[bytes, ...]] = {}
        self._under_way: deque[tuple[Sequence[AnyDeletion], Callable[[], Sequence[Outcome]]]] = deque()
        self._started = self._last_line = time.monotonic()
        self._memory: list[int | None] = []

    def execute(self) -> None:
        """Run the cleanup; after an exception the tally has the work done before it.

        Raises:
            CheckpointStoreError: Redis failed for longer than the run retries.
        """
        # A run creates millions of short-lived tuples without references. Searching them for cycles would take a sixth
        # of its time.
        collects = gc.isenabled()
        gc.disable()
        try:
            self._execute()
            self._store.release()
        except Exception:
            # Redis may still execute the last batches, which must be counted. A second error would add no information.
            self._store.stop_retrying()
            with suppress(CheckpointStoreError, LeaseLostError):
                self._count()
                self._store.release()
            raise
        finally:
            if collects:
                gc.enable()

    def _execute(self) -> None:
        self._memory.append(self._store.memory())
        expected = self._store.size()
        with KeySpool(expected, self._quick.threads_of) as spool, KeySpool(expected, threads_of_keys) as compact_spool:
            self._compact.begin(compact_spool)
            self._scan(spool, expected)
            gc.collect(1)
            for number, part in enumerate(spool, 1):
                for batch in self._decide(part):
                    self._delete(batch)
                    self._report_progress(
                        "Deleting: part %s of %s, %s keys so far", number, spool.partitions, self.tally.deleted
                    )
                    if self._is_limit_used_up():
                        return
                # Before reading the next part, so that two parts are never in memory.
                del part
                # The client leaves reference cycles with each command. The rest of the process is not searched.
                if gc.get_count()[0] > UNCOLLECTED_OBJECTS:
                    gc.collect(1)
            self._clean_compact_threads()
        self._count()
        self._delete_ownerless_blobs()
        # Return the connection of the deletions first, so that the next command uses it.
        self._store.settle()
        self._memory.append(self._store.memory())

    @phase("compact threads")
    def _clean_compact_threads(self) -> None:
        for deletions in self._compact.deletions(self._update_policy, decide=self.complete):
            self._delete(deletions, self._compact.store.apply)
            self._report_progress("Deleting: compact threads, %s keys so far", self.tally.deleted)
            if self._is_limit_used_up():
                return

    def _update_policy(self) -> RetentionPolicy:
        """Add the current pins to the policy, and return it."""
        self._policy = self._policy.with_pins(self._pinned())
        return self._policy

    def report(self, retention_days: object, policy: str, error: str | None = None) -> CleanupReport:
        """Return the work done so far, under a policy that the sentence `policy` describes."""
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
            limit_reached=self.limit_reached,
            applied_retention_days=days_of(self._policy.retention),
            policy=policy,
            memory_before_bytes=self._memory[0] if self._memory else None,
            memory_after_bytes=self._memory[-1] if len(self._memory) > 1 else None,
            layouts=tally.layouts(),
            largest_threads=tuple(thread.as_dict() for _, _, thread in tally.largest),
            policies=tally.policies(("", *classes.names)) if (classes := self._policy.classes) else {},
            over_limit_count=tally.over_limit_count,
            over_limits=tuple(map(_over_limit_report, tally.over_limits)),
            seconds=round(time.monotonic() - self._started, 3),
        )

    def _report_progress(self, line: str, *numbers: int) -> None:
        """Report progress, unless a line was reported a moment ago."""
        now = time.monotonic()
        if (progress := self._callbacks.progress) is not None and now - self._last_line >= PROGRESS_SECONDS:
            self._last_line = now
            progress(line % tuple(f"{number:,}" for number in numbers) if numbers else line)

    @phase("scan")
    def _scan(self, spool: KeySpool, expected: int) -> None:
        parse = self._parser.parse

        def restarted() -> None:
            spool.clear()
            self._compact.clear()
            self.tally.processed = 0

        for keys in self._store.scan(restarted):
            self._callbacks.confirm()
            self.tally.processed += len(keys)
            threads = self._quick.threads_of(keys)
            spool.add_text(keys, threads)
            if not all(threads):
                others = self._compact.take([key for key, thread in zip(keys, threads, strict=True) if not thread])
                spool.add(self._store.complete(filter(None, map(parse, others))))
            self._report_progress("Scanning: %s of about %s keys", self.tally.processed, expected)
            if self._callbacks.enough(self.tally.processed):
                self.complete = False
                break

    def _decide(self, part: Part) -> Iterator[Sequence[Deletion]]:
        """Decide on the threads of a part; yield the deletions in batches.

        Each batch is decided after the previous one was sent to Redis.
        """
        if self._callbacks.on_keys is not None:
            self._callbacks.on_keys([*part.keys, *self._parsed(part.text.split(b"\n"))])
        if not self.complete:
            return
        self._update_policy()
        with_other_keys = {key.thread.strip(b"{}") for key in part.keys}
        self._store.proceed()
        quick = self._quick.decide(part.text, with_other_keys, self._policy, self._now, self._store.proceed)
        self.tally.keep(quick.kept_threads)
        for threads in quick.expired:
            yield from threads.parts(DELETIONS_PER_BATCH)
        if part.keys or quick.rest:
            yield from batches(self._planned(part, quick.rest), DELETIONS_PER_BATCH)

    def _planned(self, part: Part, rest: Sequence[bytes]) -> Iterator[Deletion]:
        """Decide on the threads of a part that `QuickKeys` did not decide."""
        keys = [*part.keys, *self._store.complete(self._parsed(rest))]
        groups = self._policy.group_by_policy(threads_of(keys, self._store, self._now))
        facts, groups = facts_of(groups, self._store, self._now)
        for policy, threads in groups:
            plan = make_plan(threads, facts, policy, self._now)
            self.tally.keep({policy.name: plan.kept_threads})
            self.tally.add_unfixable(plan.unfixable)
            self.tally.add_over_limits(plan.over_limits)
            self._ownerless_blobs.update(plan.ownerless_blobs)
            yield from plan.deletions

    def _parsed(self, keys: Sequence[bytes]) -> Iterator[CheckpointKey]:
        return filter(None, map(self._parser.parse, keys))

    @phase("ownerless blobs")
    def _delete_ownerless_blobs(self) -> None:
        """Search again for checkpoints of the threads that seemed to have none; delete the blobs of those without.

        A blob has no time. It is written together with its checkpoint, so a blob that two consecutive scans find alone
        is an orphan.
        """
        blobs = self._ownerless_blobs
        if not blobs:
            return
        for keys in self._store.scan(lambda: None):
            for key in filter(None, map(self._parser.parse, keys)):
                if key.family != Family.BLOB and key.thread in blobs:
                    del blobs[key.thread]
        for batch in batches(list(blobs.items()), DELETIONS_PER_BATCH):
            self._delete([blob_deletion(thread, keys) for thread, keys in batch])
        self._count()

    @phase("deletion")
    def _delete(
        self, deletions: Sequence[AnyDeletion], apply: Callable[..., Callable[[], Sequence[Outcome]]] | None = None
    ) -> None:
        if self._is_watched:
            # A callback may pin threads that are not deleted yet.
            self._count()
        carry_out: Callable[..., Callable[[], Sequence[Outcome]]] = apply or self._store.apply
        left = self._still_unpinned(deletions)
        while left:
            chosen, left = self._within_limit(left)
            if not chosen:
                self.limit_reached = True
                sizes = [deletion.size for deletion in left]
                self._smallest_left = min([*sizes, self._smallest_left or sizes[0]])
                return
            self._callbacks.confirm()
            with defer_time_limit():
                self._under_way.append((chosen, carry_out(chosen, dryrun=self._dryrun)))
            # Redis executes this batch while the previous one is counted. With a limit, each batch is counted at once:
            # if a deletion is refused, one that was skipped may fit.
            self._count(under_way=BATCHES_UNDER_WAY if self._max_deletions is None else 0)

    @property
    def _is_watched(self) -> bool:
        """Return whether a callback observes each deletion or each thread."""
        return self._callbacks.on_deletion is not None or self._callbacks.on_thread is not None

    def _count(self, under_way: int = 0) -> None:
        """Wait for all batches except the last `under_way`, and count their outcomes."""
        with defer_time_limit():
            while len(self._under_way) > under_way:
                deletions, outcomes = self._under_way[0]
                found = outcomes()
                self._under_way.popleft()
                if isinstance(found, WholeOutcomes) and not found.exceptions and not self._is_watched:
                    self._count_whole(found.threads)
                else:
                    self._count_each(deletions, found)

    def _count_whole(self, threads: WholeThreads) -> None:
        """Count whole threads of which all keys were deleted."""
        self.tally.add_whole(threads)
        if self.tally.is_large(max(threads.sizes)):
            for number, size in enumerate(threads.sizes):
                if self.tally.is_large(size):
                    self._report_thread(threads[number], Outcome(size), None)

    def _count_each(self, deletions: Sequence[AnyDeletion], outcomes: Sequence[Outcome]) -> None:
        sizes = self._measured(deletions)
        with self.tally.of_layout_of(deletions):
            for deletion, outcome in zip(deletions, outcomes, strict=True):
                self.tally.add_outcome(deletion, outcome)
                if self._callbacks.on_deletion is not None:
                    self._callbacks.on_deletion(deletion, outcome)
                if deletion.reason is Reason.EXPIRED and outcome.deleted:
                    self._report_thread(deletion, outcome, sizes.get(deletion.thread))

    def _measured(self, deletions: Sequence[AnyDeletion]) -> dict[bytes, int]:
        """Estimate the memory of threads from some keys of each; return the bytes by thread.

        Only the first threads of a dry run with a list are measured. A command for each key would double the time of a
        run with deletions.
        """
        room = MEASURED_THREADS - self.tally.threads_deleted
        if not self._dryrun or self._callbacks.on_thread is None or room <= 0:
            return {}
        expired = [each for each in deletions if each.reason is Reason.EXPIRED][:room]
        samples = {each.thread: each.some_keys(MEASURED_KEYS) for each in expired}
        sizes = self._store.sizes([key for keys in samples.values() for key in keys])
        found: dict[bytes, int] = {}
        for each in expired:
            if known := [sizes[key] for key in samples[each.thread] if key in sizes]:
                found[each.thread] = round(sum(known) / len(known) * each.size)
        return found

    def _report_thread(self, deletion: AnyDeletion, outcome: Outcome, size: int | None) -> None:
        is_large = self.tally.is_large(outcome.deleted)
        if not is_large and self._callbacks.on_thread is None:
            return
        thread = _thread_report(deletion, outcome, size)
        if is_large:
            self.tally.add_thread(thread)
        if self._callbacks.on_thread is not None:
            self._callbacks.on_thread(thread)

    def _still_unpinned(self, deletions: Sequence[AnyDeletion]) -> Sequence[AnyDeletion]:
        """Return the deletions without those of threads that were pinned since the decision."""
        pins = self._pinned()
        late = [pin.encode(errors="surrogateescape") for pin in pins.ids - self._policy.pinned]
        globs = tuple(pins.globs - self._policy.pinned_globs)
        if not late and not globs:
            return deletions
        remaining: list[AnyDeletion] = []
        for deletion in deletions:
            if any(_may_be(deletion.thread, pin) for pin in late) or may_match(deletion.thread, globs):
                self.tally.keep({deletion.policy: 1} if deletion.reason is Reason.EXPIRED else {})
            else:
                remaining.append(deletion)
        return remaining

    def _is_limit_used_up(self) -> bool:
        """Return whether not even a deletion of a single key fits."""
        return self.limit_reached and self._max_deletions is not None and self.tally.spent >= self._max_deletions

    def _within_limit(self, deletions: Sequence[AnyDeletion]) -> tuple[Sequence[AnyDeletion], Sequence[AnyDeletion]]:
        """Return the deletions that fit within the limit, and the others.

        Deletions are never split, so that no thread is left incomplete. A deletion that does not fit is skipped in
        favour of later ones. Otherwise a thread larger than the limit would stop every run at the same place.
        """
        if self._max_deletions is None:
            return deletions, ()
        room = self._max_deletions - self.tally.spent
        chosen, left = [], []
        for deletion in deletions:
            if (size := deletion.size) <= room:
                room -= size
                chosen.append(deletion)
            else:
                left.append(deletion)
        return chosen, left

    @property
    def smallest_left(self) -> int | None:
        """Return the number of keys of the smallest deletion beyond the limit, if nothing was deleted."""
        return None if self.tally.deleted else self._smallest_left


Groups = list[tuple[RetentionPolicy, list[Thread]]]


def facts_of(groups: Groups, store: CheckpointStore, now: float) -> tuple[Facts, Groups]:
    """Read the facts that the plan needs in addition to the keys; most threads need none.

    Args:
        groups: Threads by the policies that apply to them.
        store: The Redis with the threads.
        now: The time from which ages are counted.

    Returns:
        The facts, and the groups. Threads known to be within their memory limit form a group of their own.
    """
    sizes, groups = _sizes_of(groups, store, now)
    affected = [(policy, threads_to_examine(threads, policy, now)) for policy, threads in groups]
    spaces = [(policy, trimmable(threads, policy, now)) for policy, threads in affected]
    pointers = [pointer for _, some in spaces for space in some for pointer in space.pointers]
    heads = store.heads([*pointers, *(pointer for _, threads in groups for pointer in lone_pointers(threads))])
    kept = {}
    for policy, some in spaces:
        kept |= kept_documents(some, heads, policy, now)
    lineage = store.lineage(kept)
    with_deltas = {id(kept[key]): kept[key] for key, links in lineage.items() if links.open_channels}
    documents = {document.key: document for space in with_deltas.values() for document in space.documents.values()}
    lineage |= store.lineage(documents.keys() - lineage.keys())
    unseen = store.lineage(unseen_parents(lineage, documents)) if documents else {}
    facts = Facts(
        heads=heads,
        lineage=lineage,
        interrupts=store.interrupts([each for policy, some in affected for each in unread_writes(some, policy, now)]),
        versions=store.versions([each for policy, some in spaces for each in documents_with_blobs(some, policy, now)]),
        unseen=frozenset(unseen),
        sizes=sizes,
    )
    return facts, groups


def _sizes_of(groups: Groups, store: CheckpointStore, now: float) -> tuple[dict[bytes, int] | None, Groups]:
    """Measure the live threads with a memory limit, and separate those within the limit."""
    found: dict[bytes, int] = {}
    grouped: Groups = []
    asked = False
    for policy, threads in groups:
        if policy.max_bytes is None:
            grouped.append((policy, threads))
            continue
        live = [each for each in threads if (each.last_activity() or -math.inf) >= now - policy.shortest]
        sizes = store.sizes([key for thread in live for key in keys_of(thread)])
        asked |= bool(live)
        # A thread that Redis did not measure may have any size.
        above = [each for each in live if not sizes or _bytes_of(each, sizes) > policy.max_bytes]
        found |= {key: sizes[key] for thread in above for key in keys_of(thread) if key in sizes}
        known = set(map(id, above))
        grouped += [(policy, above), (policy.fitting, [each for each in threads if id(each) not in known])]
    return (None if asked and not found and any(p.max_bytes and some for p, some in grouped) else found), grouped


def _bytes_of(thread: Thread, sizes: Mapping[bytes, int]) -> int:
    return sum(sizes.get(key, 0) for key in keys_of(thread))


def days_of(seconds: float) -> float:
    """Return a retention in days, as a whole number if it differs only by rounding."""
    days = seconds / DAY
    return round(days) if abs(days - round(days)) < WHOLE_DAYS else days


def _over_limit_report(thread: OverLimit) -> dict[str, Any]:
    return thread._asdict() | {"thread": text_of(thread.thread)}


def threads_of(keys: list[CheckpointKey], store: CheckpointStore, now: float) -> list[Thread]:
    """Build threads from all their keys, and from values if keys are misleading."""
    threads = group_threads(keys)
    set_stubs_aside(threads, store.stubs(possible_stubs(threads, now)))
    set_own_ids(threads, store.own_ids(possibly_misnamed(threads)))
    return threads


def _thread_report(deletion: AnyDeletion, outcome: Outcome, size: int | None) -> ThreadReport:
    when = datetime.fromtimestamp(deletion.last_activity or 0.0, tz=UTC)
    return ThreadReport(
        thread=text_of(deletion.thread),
        namespaces=outcome.namespaces or deletion.namespaces,
        keys=outcome.deleted,
        bytes=size,
        last_activity=when.isoformat(timespec="seconds"),
        policy=deletion.policy,
    )


def may_match(thread: bytes, globs: Sequence[str]) -> bool:
    """Return whether the keys of `thread` may belong to a thread that matches one of the globs."""
    parts = thread.strip(b"{}").split(b":")
    names = [thread, *(b":".join(parts[:number]) for number in range(1, len(parts) + 1))]
    return bool(globs) and matches_any(globs, [name.decode(errors="surrogateescape") for name in names])


def _may_be(thread: bytes, pin: bytes) -> bool:
    """Return whether the keys of `thread` may belong to `pin`; the end of an id in a key is not always certain."""
    return (thread + b":").startswith(pin + b":") or pin.startswith(thread + b":")
