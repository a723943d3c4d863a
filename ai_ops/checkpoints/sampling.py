"""Sampling of the checkpoint storage: an observed dry run of the cleanup."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from django.db import transaction
from redis.exceptions import NoPermissionError

from ai_ops.checkpoints.callbacks import Callbacks
from ai_ops.checkpoints.cleanup import CleanupRun, threads_of
from ai_ops.checkpoints.cleanup_policy import cleanup_policy
from ai_ops.checkpoints.connection import describe_checkpoint_redis, get_redis_connection
from ai_ops.checkpoints.fencing import store_of
from ai_ops.checkpoints.key_names import compact_keys, key_parser
from ai_ops.checkpoints.logic.compact_plan import Look, State
from ai_ops.checkpoints.logic.keys import CheckpointKey, KeyParser
from ai_ops.checkpoints.logic.lookups import ambiguous_writes
from ai_ops.checkpoints.logic.reports import CleanupReport
from ai_ops.checkpoints.logic.retention import RetentionPolicy
from ai_ops.checkpoints.logic.storage import SHOWN_MISSING_PINS, StorageReport, StorageTally
from ai_ops.checkpoints.pins import read_pins
from ai_ops.checkpoints.policies import read_policies
from ai_ops.checkpoints.redis.compact_store import CompactStore
from ai_ops.checkpoints.redis.store import CheckpointStore
from ai_ops.checkpoints.snapshots import keep_snapshot
from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import AiOpsError, CheckpointStoreError, LeaseLostError, RunStoppedError
from ai_ops.runs.hold import Hold
from ai_ops.runs.logs import get_logger
from ai_ops.runs.progress import progress_of
from ai_ops.runs.tracing import phase

logger = get_logger(__name__)

# Limits on the cost of a sampling, which then reports the keys scanned so far. A million keys take twenty seconds of a
# worker, and a few seconds of Redis in batches of a thousand keys.
MAX_KEYS = 1_000_000
MAX_SCAN_SECONDS = 60.0

# The parts of the cleanup's report that have a meaning before a run.
CLEANUP_KEYS = (
    "deleted_count",
    "threads_deleted",
    "threads_kept",
    "checkpoints_trimmed",
    "orphan_count",
    "unfixable_count",
    "applied_retention_days",
    "policy",
)


class StorageRun:
    """Examines everything that a cleanup would examine, and deletes nothing.

    Args:
        store: The Redis with the checkpoints.
        parser: Parses keys.
        policy: The retention policy of a cleanup, with the current pins.
        progress: Called with a line about the progress of the run, at most once a second.
        configured: The settings.
    """

    def __init__(
        self,
        store: CheckpointStore,
        parser: KeyParser,
        policy: RetentionPolicy,
        progress: Callable[[str], object],
        configured: AiOpsSettings,
    ) -> None:
        self._store = store
        self._configured = configured
        self._now = time.time()
        self._started = time.monotonic()
        self._policy = policy
        self._parser = parser
        self._compact = CompactStore(store.redis, compact_keys(configured), parser)
        self._tally = StorageTally(self._now, policy.pinned, policy.pinned_globs)
        self._cleanup = CleanupRun(
            store,
            parser,
            policy,
            self._now,
            dryrun=True,
            compact=compact_keys(configured),
            callbacks=Callbacks(
                progress=progress, enough=self._has_enough, on_keys=self._count, on_compact=self._count_compact
            ),
        )

    def execute(self, policy_sentence: str) -> StorageReport:
        """Sample the storage and return the report, with a sentence that describes the policy.

        Raises:
            CheckpointStoreError: Redis failed for longer than the run retries.
        """
        server, size = _server(self._configured), self._store.size()
        self._cleanup.execute()
        report = self._cleanup.report(None, policy_sentence)
        tally, complete = self._tally, self._cleanup.complete
        unit, bars = tally.bars()
        return StorageReport(
            server=server,
            memory_bytes=report.memory_before_bytes,
            evicted_keys=self._store.redis.evicted_keys(),
            database_keys=size,
            scanned_keys=report.processed_count,
            complete=complete,
            checkpoint_keys=tally.checkpoint_keys,
            thread_count=tally.thread_count,
            families=dict(tally.families),
            savers=dict(tally.savers),
            ages=bars,
            age_unit=unit,
            undated_keys=tally.undated_keys,
            oldest_threads=tally.oldest(),
            pin_count=len(self._policy.pinned) + len(self._policy.pinned_globs),
            missing_pins=self._missing_pins(),
            cleanup=_as_planned(report) if complete else None,
            max_memory_bytes=self._store.max_memory(),
            policies=report.policies if complete else {},
            states=dict(tally.states),
            seconds=round(time.monotonic() - self._started, 3),
            **self._sizes(),
        )

    def _count(self, keys: list[CheckpointKey]) -> None:
        threads = threads_of(keys, self._store, self._now)
        self._tally.add(threads, self._store.interrupts(ambiguous_writes(threads)))

    def _count_compact(self, looks: Sequence[Look]) -> None:
        whole = [look for look in looks if look.state == State.WHOLE]
        self._tally.add_compact(looks, self._parser, self._compact.waiting(whole) if whole else {})

    def _has_enough(self, scanned: int) -> bool:
        return scanned >= MAX_KEYS or time.monotonic() - self._started >= MAX_SCAN_SECONDS

    def _missing_pins(self) -> list[str] | None:
        missing = self._tally.missing_pins
        return sorted(missing) if self._cleanup.complete and len(missing) <= SHOWN_MISSING_PINS else None

    @phase("sizes")
    def _sizes(self) -> dict[str, Any]:
        """Return the estimated size of all keys, the number of measured keys, and the largest threads."""
        sample, candidates = self._tally.sample(), self._tally.candidates()
        sizes = self._store.sizes([*sample, *candidates])
        measured = [sizes[key] for key in sample if key in sizes]
        return {
            "checkpoint_bytes": round(sum(measured) / len(measured) * self._tally.checkpoint_keys)
            if measured
            else None,
            "sized_keys": len(measured),
            "largest_threads": self._tally.largest(sizes),
        }


def _as_planned(report: CleanupReport) -> dict[str, Any]:
    return {name: getattr(report, name) for name in CLEANUP_KEYS}


def _server(configured: AiOpsSettings) -> dict[str, Any] | None:
    """Describe the Redis; return None if its user may not call INFO."""
    try:
        return asdict(describe_checkpoint_redis(configured))
    except CheckpointStoreError as error:
        if isinstance(error.__cause__, NoPermissionError):
            return None
        raise


def sample(hold: Hold) -> dict[str, Any]:
    """Sample under the lease of a run, and save it; the result is that of `sample_checkpoint_storage`."""
    logger.info("Sampling the checkpoint storage...")
    try:
        report = _sampled(hold)
    except (LeaseLostError, RunStoppedError):
        raise
    except AiOpsError as error:
        hold.trouble(error)
        report = StorageReport(error=str(error))
    except SoftTimeLimitExceeded:
        keep_snapshot(StorageReport(error="The Job reached its time limit before the end of the sampling.").as_dict())
        raise
    with transaction.atomic():
        hold.lock()
        result = keep_snapshot(report.as_dict())
    if result["success"]:
        logger.info(
            "✅ Checkpoint storage sampled: %d threads, %d checkpoint keys, %s s",
            report.thread_count,
            report.checkpoint_keys,
            report.seconds,
        )
    else:
        logger.error("❌ Sampling the checkpoint storage failed: %s", result["error"])
    return result


def _sampled(hold: Hold) -> StorageReport:
    options = hold.settings
    parser = key_parser(options)
    with get_redis_connection() as client:
        store = store_of(hold, client, parser)
        policy, sentence = cleanup_policy(store, parser.prefixes, options, read_pins(), read_policies())
        return StorageRun(store, parser, policy, progress_of(hold, logger), options).execute(sentence)
