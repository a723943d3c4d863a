"""A search for threads whose ids match a glob: one scan of key names, bounded in time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ai_ops.checkpoints.cleanup import threads_of
from ai_ops.checkpoints.cleanup_policy import cleanup_policy
from ai_ops.checkpoints.connection import get_redis_connection
from ai_ops.checkpoints.erased_names import erased_names
from ai_ops.checkpoints.fencing import store_of
from ai_ops.checkpoints.key_names import compact_keys, key_parser
from ai_ops.checkpoints.logic.compact_keys import CompactKeys
from ai_ops.checkpoints.logic.compact_plan import Look, State, time_of_id
from ai_ops.checkpoints.logic.erasure import Targets
from ai_ops.checkpoints.logic.explanation import iso
from ai_ops.checkpoints.logic.keys import KeyParser
from ai_ops.checkpoints.logic.lookups import Facts, ambiguous_writes, keys_of
from ai_ops.checkpoints.logic.plan import waits_for_answer
from ai_ops.checkpoints.logic.reports import text_of
from ai_ops.checkpoints.logic.retention import RetentionPolicy
from ai_ops.checkpoints.logic.search import ERASED, SHOWN_THREADS, FoundThread, SearchReport, state_of
from ai_ops.checkpoints.logic.storage import SIZED_KEYS_PER_THREAD, saver_of
from ai_ops.checkpoints.logic.threads import Thread
from ai_ops.checkpoints.pins import read_pins
from ai_ops.checkpoints.policies import read_policies
from ai_ops.checkpoints.redis.compact_store import CompactStore
from ai_ops.checkpoints.redis.store import CheckpointStore
from ai_ops.checkpoints.redis.thread_scan import Scanned, ThreadScan
from ai_ops.exceptions import AiOpsError, ConfigurationError
from ai_ops.logic.batches import batches
from ai_ops.logic.globs import common_text, why_no_glob
from ai_ops.logic.largest import Largest
from ai_ops.runs.hold import Hold
from ai_ops.runs.logs import get_logger
from ai_ops.runs.progress import progress_of
from ai_ops.runs.tracing import phase

logger = get_logger(__name__)

# After this time the search ends with an incomplete report. Redis compares a million names in a second or two.
MAX_SCAN_SECONDS = 60.0
# Maximum number of found keys. A pattern that matches more keys should be narrower.
MAX_FOUND = 200_000
PROGRESS_SECONDS = 1.0  # between two lines
# Number of threads of CompactRedisSaver in one request.
LOOKED_AT_ONCE = 500


class _Search:
    """Finds threads in one Redis.

    Args:
        store: The Redis.
        parser: Parses keys.
        compact: The names of the keys of CompactRedisSaver.
        policy: The configured options, with policies and pins.
        confirm: Called between batches; raises an error if the run may not continue.
        progress: Called with a line about the progress of the search, at most once a second.
    """

    def __init__(
        self,
        store: CheckpointStore,
        parser: KeyParser,
        compact: CompactKeys,
        policy: RetentionPolicy,
        confirm: Callable[[], object],
        progress: Callable[[str], object],
    ) -> None:
        self._store = store
        self._parser = parser
        self._compact = CompactStore(store.redis, compact, parser)
        self._policy = policy
        self._scan = ThreadScan(store, parser, compact, confirm)
        self._progress = progress
        self._now = time.time()
        # Ordered by the time of the last activity, then by a number, because two threads can't be compared.
        self._latest = Largest[tuple[float, int, Thread | Look]](SHOWN_THREADS)
        self._threads = self._keys = 0

    def run(self, pattern: str, max_seconds: float) -> SearchReport:
        """Search for at most this number of seconds."""
        started, size = time.monotonic(), self._store.size()
        last_line = started

        def enough(scanned: Scanned) -> bool:
            nonlocal last_line
            if time.monotonic() - last_line >= PROGRESS_SECONDS:
                last_line = time.monotonic()
                self._progress(f"Searching: about {scanned.looked_at:,} of {size:,} keys")
            return time.monotonic() - started >= max_seconds or scanned.found >= MAX_FOUND

        with self._scan.spool() as spool:
            scanned = self._scan.run(Targets(pattern=pattern), spool, text=common_text(pattern), enough=enough)
            for keys in self._scan.keys_in(spool):
                self._add(threads_of(keys, self._store, self._now), Targets(pattern=pattern))
        for some in batches(scanned.compact.values(), LOOKED_AT_ONCE):
            self._add_compact(self._compact.look(some, 0.0))
        rows = tuple(self._rows())
        return SearchReport(
            pattern,
            looked_at=min(scanned.looked_at, size) if not scanned.complete else size,
            database_keys=size,
            complete=scanned.complete,
            thread_count=self._threads,
            key_count=self._keys,
            threads=(*rows, *_erased(pattern, {row.thread for row in rows})),
            seconds=round(time.monotonic() - started, 3),
        )

    def _add(self, threads: Iterable[Thread], targets: Targets) -> None:
        for thread in threads:
            if targets.has(thread.names[0]):
                self._count(thread, thread.last_activity(), len(keys_of(thread)))

    def _add_compact(self, looks: Iterable[Look]) -> None:
        for look in looks:
            if look.state != State.GONE:
                active = time_of_id(look.newest, self._parser)
                self._count(look, active, look.thread.has_hash + look.thread.has_ids)

    def _count(self, thread: Thread | Look, active: float | None, keys: int) -> None:
        """Count a thread, and keep it if it is one of the newest; a thread of unknown age counts as the oldest."""
        self._threads += 1
        self._keys += keys
        self._latest.add((active or 0.0, -self._threads, thread))

    @phase("sizes")
    def _rows(self) -> Iterator[FoundThread]:
        """Yield the rows of the shown threads."""
        latest = [thread for _, _, thread in self._latest]
        looks = [each for each in latest if isinstance(each, Look)]
        waiting = self._compact.waiting([each for each in looks if each.state == State.WHOLE])
        sizes = dict(zip(looks, self._compact.sizes(looks), strict=True))
        threads = [each for each in latest if isinstance(each, Thread)]
        interrupts = self._store.interrupts(ambiguous_writes(threads))
        for each in latest:
            if isinstance(each, Look):
                yield self._row_of_compact(each, bool(waiting.get(each)), sizes[each])
            else:
                yield self._row_of(each, waits_for_answer(each, Facts(interrupts=interrupts)))

    def _row_of(self, thread: Thread, waits: bool) -> FoundThread:
        policy, keys = self._policy.of(thread.names), keys_of(thread)
        sizes = self._store.sizes(keys[:: -(-len(keys) // SIZED_KEYS_PER_THREAD)])
        return FoundThread(
            text_of(thread.names[0]),
            saver_of(thread),
            iso(thread.last_activity()),
            checkpoints=sum(1 for _ in thread.documents()),
            keys=len(keys),
            bytes=round(sum(sizes.values()) / len(sizes) * len(keys)) if sizes else None,
            state=state_of(pinned=not policy.covers(thread.names), waits=waits),
            policy=policy.name,
        )

    def _row_of_compact(self, look: Look, waits: bool, size: int | None) -> FoundThread:
        policy = self._policy.of((look.thread.name,))
        return FoundThread(
            text_of(look.thread.name),
            "CompactRedisSaver",
            iso(time_of_id(look.newest, self._parser)),
            checkpoints=look.checkpoints,
            keys=look.thread.has_hash + look.thread.has_ids,
            bytes=size,
            state=state_of(pinned=not policy.covers((look.thread.name,)), waits=waits),
            policy=policy.name,
        )


def _erased(pattern: str, found: set[str]) -> Iterator[FoundThread]:
    """Yield matching erased threads of which no key was found."""
    for name in erased_names(pattern)[:SHOWN_THREADS]:
        if name not in found:
            yield FoundThread(name, state=ERASED)


def checked_pattern(pattern: object) -> str:
    """Return a valid glob over thread ids; raise ConfigurationError if it is not one."""
    if not isinstance(pattern, str):
        raise ConfigurationError("pattern must be a glob over thread ids, such as user-42-*.")
    if reason := why_no_glob(pattern):
        raise ConfigurationError(f"pattern is not a valid glob. {reason}")
    return pattern


def search(hold: Hold, pattern: str) -> dict[str, Any]:
    """Search for a checked pattern under the lease of a run; the result is that of `find_threads`."""
    try:
        report = _found(hold, pattern)
    except AiOpsError as error:
        hold.trouble(error)
        logger.error("❌ The search for threads failed: %s", error)
        return SearchReport(pattern, error=str(error)).as_dict()
    logger.info(
        "%d threads match; about %d of %d keys were scanned in %s s",
        report.thread_count,
        report.looked_at,
        report.database_keys,
        report.seconds,
    )
    return report.as_dict()


def _found(hold: Hold, pattern: str) -> SearchReport:
    settings = hold.settings
    parser = key_parser(settings)
    with get_redis_connection() as client:
        store = store_of(hold, client, parser)
        policy, _ = cleanup_policy(store, parser.prefixes, settings, read_pins(), read_policies())
        finder = _Search(store, parser, compact_keys(settings), policy, hold.confirm, progress_of(hold, logger))
        return finder.run(pattern, MAX_SCAN_SECONDS)
