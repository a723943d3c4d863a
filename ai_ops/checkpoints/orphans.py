"""The collection of orphaned keys between two cleanups.

It uses the scan, the plan and the deletion of the cleanup, with a policy that deletes only orphans. It runs under the
cleanup's lease, so that the two never overlap.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db.models.functions import Now

from ai_ops.checkpoints.callbacks import Callbacks
from ai_ops.checkpoints.cleanup import CleanupRun
from ai_ops.checkpoints.connection import get_redis_connection
from ai_ops.checkpoints.erasure import erase_late_writes
from ai_ops.checkpoints.fencing import store_of
from ai_ops.checkpoints.key_names import key_parser
from ai_ops.checkpoints.logic.deletion import Deletion, Outcome
from ai_ops.checkpoints.logic.keys import KeyParser
from ai_ops.checkpoints.logic.orphans import ORPHAN_GRACE
from ai_ops.checkpoints.logic.reports import text_of
from ai_ops.checkpoints.logic.retention import RetentionPolicy
from ai_ops.checkpoints.pins import CurrentPins
from ai_ops.checkpoints.redis.store import CheckpointStore
from ai_ops.choices import MaintenanceKindChoices, RunStateChoices
from ai_ops.exceptions import AiOpsError, LeaseLostError, RunStoppedError
from ai_ops.models.runs import MaintenanceRun
from ai_ops.runs.execution import run_as
from ai_ops.runs.findings import Findings
from ai_ops.runs.hold import Hold
from ai_ops.runs.logs import get_logger
from ai_ops.runs.supervisor_log import NAMED, log_handled

logger = get_logger(__name__)

# A scan is work for Redis, and an orphan only uses memory.
INTERVAL = timedelta(hours=1)
# With more keys a scan would delay the supervisor's other work for too long. A part of the keys is not sufficient,
# because the missing checkpoint may be in the rest. Then only the cleanup collects orphans, once a day.
MAX_KEYS = 1_000_000
MAX_DELETIONS = 10_000
# Maximum length of a key or a thread's id in the log.
SHOWN_BYTES = 120


def collect(hold: Hold) -> Findings:
    """Delete orphaned keys, except within an hour after the last collection or during a cleanup.

    Args:
        hold: The hold of the supervisor.

    Returns:
        Findings with the numbers of scanned keys, of deleted ones, and of those without a readable age, or 1 for an
        error.
    """
    recent = MaintenanceRun.objects.filter(kind=MaintenanceKindChoices.ORPHANS, created__gte=Now() - INTERVAL)
    if recent.exists():
        return Findings()
    report = run_as(
        MaintenanceKindChoices.ORPHANS,
        {},
        lambda own: _collected(own, lambda: (hold.confirm(), own.confirm())),
        _report,
        # The cleanup's lease, so that only one of the two runs at a time.
        lease_name=MaintenanceKindChoices.CLEANUP,
    )
    if report["error"] is not None:
        logger.error("Orphaned keys were not collected: %s", report["error"], extra={"grouping": "orphans"})
        return Findings(report["checked"], report["fixed"], report["unfixable"] or 1)
    if (report["run"] or {}).get("state") == RunStateChoices.SUCCEEDED:
        logger.info(
            "Orphaned keys: %d scanned, %d deleted, %d without a readable age kept",
            report["checked"],
            report["fixed"],
            report["unfixable"],
            extra={"grouping": "orphans"},
        )
    return Findings(report["checked"], report["fixed"], report["unfixable"])


def _report(error: str | None, run: CleanupRun | None = None) -> dict[str, Any]:
    found = Findings()
    if run is not None and run.complete:
        found = Findings(run.tally.processed, run.tally.deleted, run.tally.unfixable)
    return {"success": error is None, **found.as_dict(), "error": error}


def _collected(own: Hold, confirm: Callable[[], object]) -> dict[str, Any]:
    run = None
    try:
        erase_late_writes(own, confirm)
        parser = key_parser(own.settings)
        with get_redis_connection() as client:
            store = store_of(own, client, parser)
            if (size := store.size()) > MAX_KEYS:
                logger.info("Redis has %d keys: the cleanup collects the orphans", size, extra={"grouping": "orphans"})
                return _report(None)
            orphan_log = _OrphanLog(parser)
            run = _orphan_run(store, parser, confirm, own, orphan_log)
            try:
                run.execute()
            finally:
                orphan_log.end()
            return _report(None, run)
    except (LeaseLostError, RunStoppedError):
        raise
    except AiOpsError as error:
        own.trouble(error)
        return _report(str(error), run)


class _OrphanLog:
    """A log line for each of the first orphans, followed by a count."""

    def __init__(self, parser: KeyParser) -> None:
        self._parser = parser
        self._orphans = 0

    def __call__(self, deletion: Deletion, outcome: Outcome) -> None:
        self._orphans += 1
        if self._orphans > NAMED:
            return
        key, *_ = deletion.some_keys(1) or [b""]
        done = "its thread has continued, so it stays" if outcome.changed else f"{outcome.deleted:,} key(s) deleted"
        log_handled(
            f"Orphan {text_of(key[:SHOWN_BYTES])} of the thread {text_of(deletion.thread[:SHOWN_BYTES])}",
            "without its checkpoint",
            self._age(key),
            done,
            grouping="orphans",
        )

    def _age(self, key: bytes) -> timedelta:
        """Return the age in the key; a key without an age is at least past the grace."""
        parsed = self._parser.parse(key)
        made = parsed.time if parsed else None
        return timedelta(seconds=time.time() - made if made else ORPHAN_GRACE)

    def end(self) -> None:
        """Log the number of orphans without a log line of their own."""
        if self._orphans > NAMED:
            logger.info("And %d more orphans", self._orphans - NAMED, extra={"grouping": "orphans"})


def _orphan_run(
    store: CheckpointStore, parser: KeyParser, confirm: Callable[[], object], own: Hold, on_deletion: _OrphanLog
) -> CleanupRun:
    now, pins = time.time(), CurrentPins(frozenset())
    # A retention that reaches back to 1970: no checkpoint is older.
    policy = RetentionPolicy(
        retention=now,
        pending_retention=now,
        trim_live_threads=False,
        undated_blobs=False,
        prefixes=parser.prefixes,
    ).with_pins(pins())
    return CleanupRun(
        store,
        parser,
        policy,
        now,
        dryrun=False,
        max_deletions=MAX_DELETIONS,
        pinned=pins,
        callbacks=Callbacks(
            progress=own.progress,
            enough=lambda scanned: scanned > 2 * MAX_KEYS,
            confirm=confirm,
            on_deletion=on_deletion,
        ),
    )
