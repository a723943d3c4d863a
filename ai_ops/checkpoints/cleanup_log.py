"""Log lines of a cleanup."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from ai_ops.checkpoints.logic.reports import CleanupReport
from ai_ops.checkpoints.logic.tally import SHOWN_KEY_BYTES

# Number of threads over a limit with a log line. The report names more.
LOGGED_OVER_LIMITS = 20


def log_cleanup(
    logger: logging.Logger, report: CleanupReport, unfixable: Sequence[str], smallest_left: int | None = None
) -> None:
    """Log the result of a cleanup, with the lines of the public contract."""
    done = "Would delete" if report.dryrun else "Deleted"
    if report.error is None:
        logger.info(
            "✅ Checkpoint cleanup completed: processed %d keys (retention: %g days)",
            report.processed_count,
            report.applied_retention_days,
        )
    if report.policy:
        logger.info("%s %d old checkpoint keys", done, report.deleted_count)
        logger.info(
            "Threads: %d %s, %d kept. Checkpoints trimmed from live threads: %d. Orphans: %d. Retention: %s",
            report.threads_deleted,
            "to delete" if report.dryrun else "deleted",
            report.threads_kept,
            report.checkpoints_trimmed,
            report.orphan_count,
            report.policy,
        )
    for name, counts in report.policies.items():
        logger.info(
            "Policy %s: %d threads %s, %d kept, %d checkpoints trimmed",
            name or "none (the run's own options)",
            counts["threads_deleted"],
            "to delete" if report.dryrun else "deleted",
            counts["threads_kept"],
            counts["checkpoints_trimmed"],
        )
    for thread in report.largest_threads if report.dryrun else ():
        if thread["policy"]:
            logger.info("Would delete thread %s: %d keys, last active %s, policy %s", *_shown(thread), thread["policy"])
        else:
            logger.info("Would delete thread %s: %d keys, last active %s", *_shown(thread))
    _log_over_limits(logger, report)
    if report.unfixable_count:
        logger.warning(
            "Kept %d keys that have no readable time, are not checkpoints or have a newer version, such as %s: "
            "inspect them, and delete by hand those that you do not need.",
            report.unfixable_count,
            ", ".join(unfixable),
        )
    if report.limit_reached and smallest_left is not None:
        logger.warning(
            "Stopped at max_deletions before any deletion: the smallest thread to delete has %d keys. Raise "
            "max_deletions to at least this number, or no run will delete anything.",
            smallest_left,
        )
    elif report.limit_reached:
        logger.warning("Stopped at max_deletions after %d keys: the next run continues.", report.deleted_count)
    if report.error is not None:
        logger.error("❌ Checkpoint cleanup failed: %s", report.error)


def _log_over_limits(logger: logging.Logger, report: CleanupReport) -> None:
    for thread in report.over_limits[:LOGGED_OVER_LIMITS]:
        logger.warning(
            "Thread %s stays over %s of the policy %s: %s",
            thread["thread"][:SHOWN_KEY_BYTES],
            thread["limit"],
            thread["policy"],
            thread["why"],
        )
    if (more := report.over_limit_count - LOGGED_OVER_LIMITS) > 0:
        logger.warning("%d more threads stay over a limit of their policy: see over_limits in the report", more)


def _shown(thread: dict[str, Any]) -> tuple[str, int, str]:
    return thread["thread"][:SHOWN_KEY_BYTES], thread["keys"], thread["last_activity"]
