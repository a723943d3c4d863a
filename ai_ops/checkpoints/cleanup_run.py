"""A run of the checkpoint cleanup, from its options to its report and log lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from ai_ops.checkpoints.callbacks import Callbacks
from ai_ops.checkpoints.cleanup import CleanupRun
from ai_ops.checkpoints.cleanup_log import log_cleanup
from ai_ops.checkpoints.cleanup_policy import cleanup_policy
from ai_ops.checkpoints.connection import get_redis_connection
from ai_ops.checkpoints.fencing import store_of
from ai_ops.checkpoints.key_names import compact_keys, key_parser
from ai_ops.checkpoints.logic.reports import CleanupReport, ThreadReport
from ai_ops.checkpoints.pins import CurrentPins
from ai_ops.checkpoints.policies import read_policies
from ai_ops.exceptions import AiOpsError, ConfigurationError
from ai_ops.logic.arguments import FLAG, ID, Rule, names, refusal
from ai_ops.runs.hold import Hold
from ai_ops.runs.logs import get_logger
from ai_ops.runs.progress import progress_of
from ai_ops.runs.time_limit import StoppedByTimeLimitError

# Only loggers below Celery's task logger reach a Job's log. In a shell they print as all others.
logger = get_logger(__name__)

_RULES = {
    "dryrun": FLAG,
    "trial_policy": Rule(lambda value: value is None or ID.is_valid(value), "the name or the id of a retention policy"),
    "on_thread": Rule(lambda value: value is None or callable(value), "a function"),
}


def clean_up(
    hold: Hold,
    retention_days: float | None,
    dryrun: bool,
    pinned_threads: Iterable[str],
    on_thread: Callable[[ThreadReport], object] | None,
    options: dict[str, Any],
    trial_policy: str | None,
) -> dict[str, Any]:
    """Clean up under the lease of a run; arguments and result are those of `cleanup_old_checkpoints`."""
    logger.info("Starting checkpoint cleanup task...")
    run, policy_sentence = None, ""
    try:
        pinned = names(pinned_threads)
        given = {"dryrun": dryrun, "trial_policy": trial_policy, "on_thread": on_thread}
        if wrong := refusal(_RULES, given):
            raise ConfigurationError(wrong)
        if pinned is None:
            raise ConfigurationError("pinned_threads must be a list of texts, also for a single one.")
        configured = hold.settings
        chosen = configured.cleanup_options(retention_days=retention_days, **options)
        retention_days = chosen.retention_days
        if trial_policy and not dryrun:
            raise ConfigurationError("trial_policy is for dry runs: enable the policy to apply it.")
        parser = key_parser(configured)
        with get_redis_connection() as client:
            store = store_of(hold, client, parser)
            pins, classes = CurrentPins(frozenset(pinned)), read_policies(trial_policy)
            policy, policy_sentence = cleanup_policy(store, parser.prefixes, chosen, pins(), classes)
            run = CleanupRun(
                store,
                parser,
                policy,
                time.time(),
                dryrun=dryrun,
                max_deletions=chosen.max_deletions,
                pinned=pins,
                compact=compact_keys(configured),
                callbacks=Callbacks(confirm=hold.confirm, progress=progress_of(hold, logger), on_thread=on_thread),
            )
            run.execute()
    except AiOpsError as error:
        hold.trouble(error)
        report = CleanupReport(retention_days, error=str(error), dryrun=dryrun, policy=policy_sentence)
        report = run.report(retention_days, policy_sentence, str(error)) if run else report
    except SoftTimeLimitExceeded as limit:
        reason = "The Job reached its time limit: deleted keys stay deleted, and the next run continues."
        report = CleanupReport(retention_days, error=reason, dryrun=dryrun, policy=policy_sentence)
        report = run.report(retention_days, policy_sentence, reason) if run else report
        log_cleanup(logger, report, run.tally.unfixable_names if run else [])
        raise StoppedByTimeLimitError(report.as_dict()) from limit
    else:
        report = run.report(retention_days, policy_sentence)
    log_cleanup(logger, report, run.tally.unfixable_names if run else [], run.smallest_left if run else None)
    return report.as_dict()
