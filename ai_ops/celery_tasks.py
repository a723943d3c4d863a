"""The maintenance tasks: plain functions that gather, decide, apply and report.

The Jobs, the schedules, REST and a Python shell all call these.
"""

from __future__ import annotations

import glob
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from nautobot.extras.models import JobQueue, JobResult

from ai_ops.checkpoints.cleanup import CleanupRun
from ai_ops.checkpoints.cleanup_log import log_cleanup
from ai_ops.checkpoints.cleanup_policy import cleanup_policy
from ai_ops.checkpoints.connection import describe_checkpoint_redis, get_redis_connection
from ai_ops.checkpoints.conversation_moves import Move, log_move, source_of
from ai_ops.checkpoints.fencing import fence_of
from ai_ops.checkpoints.key_names import compact_keys, key_parser
from ai_ops.checkpoints.logic.conversation_moves import MoveReport
from ai_ops.checkpoints.logic.reports import CleanupReport, ThreadReport
from ai_ops.checkpoints.logic.storage import StorageReport
from ai_ops.checkpoints.pins import CurrentPins, pin_thread, read_pins, unpin_thread
from ai_ops.checkpoints.policies import read_policies
from ai_ops.checkpoints.redis.store import CheckpointStore
from ai_ops.checkpoints.sampling import StorageRun
from ai_ops.checkpoints.snapshots import keep_snapshot
from ai_ops.choices import MaintenanceKindChoices
from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import AiOpsError, ConfigurationError, HealthCheckError, LeaseLostError, RunStoppedError
from ai_ops.logic.foreign_text import shown
from ai_ops.logic.savers import AUTO, COMPACT
from ai_ops.logic.shards import Shard
from ai_ops.mcp.check import check_servers
from ai_ops.mcp.due import due_servers
from ai_ops.mcp.history import trim_checks
from ai_ops.mcp.incidents import review_incidents
from ai_ops.mcp.logic.reports import HealthReport, ServerReport
from ai_ops.mcp.shards import enqueue_shards, queue_to_share, shard_servers
from ai_ops.mcp.tool_listing import list_tools
from ai_ops.models import MCPServer
from ai_ops.runs.decisions import Hold
from ai_ops.runs.events import TOPIC_CHECKED, publish
from ai_ops.runs.execution import run_as
from ai_ops.runs.infrastructure import BACKEND_ERRORS, backend_sentence
from ai_ops.runs.logs import get_logger
from ai_ops.runs.queries import get_recent_runs
from ai_ops.runs.time_limit import StoppedByTimeLimitError
from ai_ops.supervision.supervisor import no_supervision, supervise_once

__all__ = (
    "check_mcp_server_health",
    "cleanup_old_checkpoints",
    "cleanup_user_checkpoints",
    "get_recent_runs",
    "move_conversations",
    "perform_mcp_health_checks",
    "pin_thread",
    "sample_checkpoint_storage",
    "supervise",
    "unpin_thread",
)

# Only loggers below Celery's task logger reach a Job's log; from a shell they print like any other.
logger = get_logger(__name__)

SUBJECT_LENGTH = 36  # of a UUID; what is longer is none, and the check says so


def cleanup_old_checkpoints(
    retention_days: float | None = 30,
    dryrun: bool = False,
    *,
    pinned_threads: Iterable[str] = (),
    trial_policy: str | None = None,
    on_thread: Callable[[ThreadReport], object] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Delete the checkpoints that are past their retention and that no live conversation needs.

    Args:
        retention_days: Age in days past which a checkpoint may go, from an hour (1/24) to 3650; None for what is
            configured. It holds for threads that no retention policy matches.
        dryrun: Delete nothing, and report the keys that a run would delete.
        pinned_threads: Ids of threads that stay whatever their age, beside those that are pinned in Nautobot.
        trial_policy: The name or the id of a retention policy that a dry run takes for enabled.
        on_thread: Called for each conversation that went whole, or would go.
        options: The other attributes of `ai_ops.config.CleanupOptions`; what is not given is as configured.

    Returns:
        The contract's `success`, `processed_count` (keys scanned), `deleted_count` (keys deleted, or that
        would be), `retention_days`, `error` (None or a sentence), and the rest of `CleanupReport`.

    Raises:
        StoppedByTimeLimitError: The Job's time is up (a SoftTimeLimitExceeded). What was done until then is logged and
            stays; the exception has it as `report`.
        TypeError: There is no such option.
    """
    given: dict[str, Any] = {"retention_days": retention_days, "dryrun": dryrun}
    given |= {"trial_policy": trial_policy} if trial_policy else {}
    given |= {name: value for name, value in options.items() if value is not None}
    return run_as(
        MaintenanceKindChoices.CLEANUP,
        given,
        lambda hold: _cleaned_up(
            hold, retention_days, dryrun, frozenset(pinned_threads), on_thread, options, trial_policy
        ),
        lambda error: CleanupReport(retention_days, error=error, dryrun=dryrun).as_dict(),
    )


def _cleaned_up(
    hold: Hold,
    retention_days: float | None,
    dryrun: bool,
    pinned: frozenset[str],
    on_thread: Callable[[ThreadReport], object] | None,
    options: dict[str, Any],
    trial_policy: str | None,
) -> dict[str, Any]:
    logger.info("Starting checkpoint cleanup task...")
    run, policy_sentence = None, ""
    try:
        configured = AiOpsSettings.load()
        chosen = configured.cleanup_options(retention_days=retention_days, **options)
        retention_days = chosen.retention_days
        if trial_policy and not dryrun:
            raise ConfigurationError("trial_policy is for dry runs: enable the policy to have it applied.")
        parser = key_parser(configured)
        with get_redis_connection() as client:
            store = CheckpointStore(client, parser, fence=fence_of(hold))
            pins, classes = CurrentPins(pinned), read_policies(trial_policy)
            policy, policy_sentence = cleanup_policy(store, parser.prefixes, chosen, pins(), classes)
            run = CleanupRun(
                store,
                parser,
                policy,
                time.time(),
                dryrun=dryrun,
                max_deletions=chosen.max_deletions,
                progress=_telling(hold),
                on_thread=on_thread,
                pinned=pins,
                confirm=hold.confirm,
                compact=compact_keys(configured),
            )
            run.execute()
    except AiOpsError as error:
        hold.trouble(error)
        report = CleanupReport(retention_days, error=str(error), dryrun=dryrun, policy=policy_sentence)
        report = run.report(retention_days, policy_sentence, str(error)) if run else report
    except SoftTimeLimitExceeded as limit:
        reason = "The Job's time limit was reached: deleted keys stay deleted, and the next run continues."
        report = CleanupReport(retention_days, error=reason, dryrun=dryrun, policy=policy_sentence)
        report = run.report(retention_days, policy_sentence, reason) if run else report
        log_cleanup(logger, report, run.tally.unfixable_names if run else [])
        raise StoppedByTimeLimitError(report.as_dict()) from limit
    else:
        report = run.report(retention_days, policy_sentence)
    log_cleanup(logger, report, run.tally.unfixable_names if run else [], run.smallest_left if run else None)
    return report.as_dict()


def cleanup_user_checkpoints(
    user_id: str, retention_days: int | None = 30, dryrun: bool = False, **options: Any
) -> dict[str, Any]:
    """Do the same for the threads of one user alone, those called ``user-{user_id}-...``.

    Args:
        user_id: The user's id; characters that mean something in a glob are taken as they are.
        retention_days: Age in days past which a checkpoint may go, 1 to 3650.
        dryrun: Delete nothing, and report the keys that a run would delete.
        options: As `cleanup_old_checkpoints` takes them, `thread_pattern` excepted.
    """
    pattern = f"user-{glob.escape(str(user_id))}-*"
    return cleanup_old_checkpoints(retention_days, dryrun, thread_pattern=pattern, **options)


def move_conversations(source: str = AUTO, pattern: str = "*", dryrun: bool = False) -> dict[str, Any]:
    """Copy conversations from RedisSaver or ValkeySaver to CompactRedisSaver, within the checkpoint Redis.

    Each checkpoint is read back and compared. Nothing is deleted. A run that was cut short goes on where it ended.

    Args:
        source: The saver that has them, ``redis`` or ``valkey``; ``auto`` for the one that has conversations there.
        pattern: A glob over thread ids.
        dryrun: Write nothing, and count the threads that a run would move.

    Returns:
        `success`, `error` (None or a sentence), and the rest of its `MoveReport`.

    Raises:
        StoppedByTimeLimitError: The Job's time is up (a SoftTimeLimitExceeded). What was moved until then stays.
    """
    return run_as(
        MaintenanceKindChoices.MOVES,
        {"source": source, "pattern": pattern, "dryrun": dryrun},
        lambda hold: _moved(hold, source, pattern, dryrun),
        lambda error: MoveReport(source, COMPACT, dryrun, error=error).as_dict(),
    )


def _moved(hold: Hold, source: str, pattern: str, dryrun: bool) -> dict[str, Any]:
    logger.info("Moving conversations to CompactRedisSaver...")
    report = MoveReport(source, COMPACT, dryrun)
    try:
        described = describe_checkpoint_redis()
        if (saver := source_of(source, described)) is None:
            logger.info("There is nothing to move: agents have %s, as %s", described.saver, described.reason)
            return report.as_dict()
        move = Move(saver, dryrun=dryrun, confirm=hold.confirm, progress=_telling(hold))
        report = move.report
        move.execute(pattern)
    except AiOpsError as error:
        hold.trouble(error)
        report.error = str(error)
    except SoftTimeLimitExceeded as limit:
        report.error = "The Job's time limit was reached: moved threads stay moved, and the next run continues."
        log_move(logger, report)
        raise StoppedByTimeLimitError(report.as_dict()) from limit
    log_move(logger, report)
    return report.as_dict()


def sample_checkpoint_storage() -> dict[str, Any]:
    """Look at the checkpoint Redis as a dry run of the cleanup does, and keep what was found for the page.

    The options are those of the settings. It looks at a million keys or for a minute, whichever ends first, and
    measures the size of some of them.

    Returns:
        `success`, `error` (None or a sentence), and the rest of `ai_ops.checkpoints.logic.storage.StorageReport`.

    Raises:
        SoftTimeLimitExceeded: The Job's time is up. The page says so then.
    """
    return run_as(MaintenanceKindChoices.STORAGE, {}, _sampled, lambda error: StorageReport(error=error).as_dict())


def _sampled(hold: Hold) -> dict[str, Any]:
    logger.info("Sampling the checkpoint storage...")
    try:
        report = _looked_at_storage(hold)
    except (LeaseLostError, RunStoppedError):
        raise
    except AiOpsError as error:
        hold.trouble(error)
        report = StorageReport(error=str(error))
    except SoftTimeLimitExceeded:
        keep_snapshot(StorageReport(error="The Job's time limit was reached before all keys were sampled.").as_dict())
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


def _looked_at_storage(hold: Hold) -> StorageReport:
    options = AiOpsSettings.load()
    parser = key_parser(options)
    with get_redis_connection() as client:
        store = CheckpointStore(client, parser)
        policy, sentence = cleanup_policy(store, parser.prefixes, options, read_pins(), read_policies())
        return StorageRun(store, parser, policy, _telling(hold), options).execute(sentence)


def _telling(hold: Hold) -> Callable[[str], None]:
    """Progress for the Job's log and the run's page; where it is told the run stops, if it is to."""

    def tell(line: str) -> None:
        hold.confirm()
        hold.progress(line)
        logger.info(line)

    return tell


def perform_mcp_health_checks(*, shard: Shard | str | None = None) -> dict[str, Any]:
    """Check every HTTP server that is not Vulnerable and is due, and flip the statuses on which three checks agree.

    A server with an interval of its own is due once in each, one that asked to be left alone not before.

    A change made by a Job is in Nautobot's change log with the Job's context. From a shell wrap the call
    in ``nautobot.apps.change_logging.web_request_context(user)``: only the caller knows whose change it is.

    Args:
        shard: Check these servers alone; as text, what ``str()`` makes of it. None for all of them: then a Job leaves
            more than `health_check_shard_size` to further runs of itself. A shell checks however many there are.

    Returns:
        `success`; `checked_count`, `changed_count` and `failed_count` of servers, the last those whose last
        probe failed or whose check could not be made, so a server that is still down counts in every run;
        `worker_count`; `cache_cleared`; `error`, None or a sentence. Where the servers were left to other runs,
        nothing is counted, and `shards` has for each of them `job_result`, its id, and `server_count`.

    Raises:
        SoftTimeLimitExceeded: The Job's time is up. What was done until then is logged and stays.
    """
    try:
        part = Shard.parse(shard) if isinstance(shard, str) else shard
    except ValueError as error:
        return HealthReport(error=f"{error}. Leave it out to check all servers.").as_dict()
    return run_as(
        MaintenanceKindChoices.HEALTH,
        {"shard": str(part)} if part else {},
        lambda hold: _checked_due_servers(hold, part),
        lambda error: HealthReport(error=error).as_dict(),
        # Shards that are under way at the same time have no first server in common.
        subject=str(part.first) if part else "",
    )


def _checked_due_servers(hold: Hold, shard: Shard | None) -> dict[str, Any]:
    logger.info("Starting MCP server health checks...")
    try:
        settings, now = AiOpsSettings.load(), timezone.now()
        if shard:
            return _with_tools(check_servers(_as_probed(shard_servers(shard, now)), hold, shard.as_of), hold).as_dict()
        if hold.job_result and (queue := queue_to_share(hold.job_result, settings.health_check_shard_size, now)):
            report = _shared(hold.job_result, queue, settings.health_check_shard_size, hold)
        else:
            report = _with_tools(check_servers(_as_probed(due_servers(now)), hold), hold).as_dict()
        hold.confirm()
        if trimmed := trim_checks(settings.check_history_days):
            logger.info("%s check(s) older than %s days deleted from the history", trimmed, settings.check_history_days)
        return report
    except BACKEND_ERRORS as error:
        hold.trouble(error)
        return HealthReport(error=backend_sentence(error)).as_dict()
    except ConfigurationError as error:
        return HealthReport(error=str(error)).as_dict()


def _as_probed(servers: QuerySet[MCPServer]) -> QuerySet[MCPServer]:
    return servers.select_related("status", "secrets_group")


def _shared(job_result: JobResult, queue: JobQueue, size: int, hold: Hold) -> dict[str, Any]:
    """Leave the due servers to further runs of the Job."""
    with transaction.atomic():
        hold.lock()
        shards = enqueue_shards(job_result, queue, size, timezone.now())
    count = sum(shard["server_count"] for shard in shards)
    logger.info("%s due server(s) are checked by %s further run(s) of this Job, one for each shard", count, len(shards))
    return {**HealthReport().as_dict(), "shards": shards}


def check_mcp_server_health(server_id: uuid.UUID | str) -> dict[str, Any]:
    """Check one server as `perform_mcp_health_checks` does, with the same rounds and the same flip.

    Args:
        server_id: Primary key of an MCPServer.

    Returns:
        `success`, whether the server could be checked; `server` and `server_id`, or what was asked for and None
        where there is no such server; `status_before`, `status_after`, `changed`; of the last probe `ok`, `reason`,
        `message`, `latency_ms`, `http_status` and its end `checked_at` (ISO 8601, UTC); `error`, None or a sentence.

    Raises:
        SoftTimeLimitExceeded: The Job's time is up before the check was complete.
    """
    return run_as(
        MaintenanceKindChoices.SERVER,
        {"server": str(server_id)},
        lambda hold: _checked_server(hold, server_id),
        lambda error: ServerReport(server=str(server_id), error=error).as_dict(),
        subject=str(server_id)[:SUBJECT_LENGTH],
    )


def _checked_server(hold: Hold, server_id: uuid.UUID | str) -> dict[str, Any]:
    known = ServerReport(server=str(server_id))
    try:
        server = _existing_server(server_id)
        known = ServerReport(server=server.name, server_id=str(server.pk))
        if reason := server.why_not_checked():
            raise HealthCheckError(reason)
        logger.info("Starting MCP server health checks...", extra={"object": server})
        report = _with_tools(check_servers([server], hold), hold, always=True)
    except (HealthCheckError, ConfigurationError) as error:
        return replace(known, error=str(error)).as_dict()
    except BACKEND_ERRORS as error:
        hold.trouble(error)
        return replace(known, error=backend_sentence(error)).as_dict()
    return {**report.servers[0].as_dict(), "success": report.error is None, "error": report.error}


def _with_tools(report: HealthReport, hold: Hold, *, always: bool = False) -> HealthReport:
    """Tell observers, and list the tools of servers that passed; that changes nothing of what the checks found."""
    publish(TOPIC_CHECKED, {**report.as_dict(), "run": str(hold.run_id) if hold.run_id else None})
    passed = [server.server_id for server in report.servers if server.ok and server.server_id]
    error = list_tools(passed, hold, always=always)
    return replace(report, error=report.error or error, errors=(*report.errors, *([error] if error else [])))


def close_resolved_incidents() -> dict[str, Any]:
    """Close open incidents whose servers recovered elsewhere, and escalate those that are open for too long.

    Before that it opens those that a run did not get to open, since it was killed.

    Elsewhere is: a person gave the servers another status, or deleted them. Run twice it changes nothing.

    Returns:
        Of open incidents `total_checked`, `auto_closed`, `escalated` and `errors`, those that could not be
        dealt with and are in the log; `opened`, servers whose incidents a killed run had left to be opened;
        `execution_time_ms`, a whole number.

    Raises:
        ConfigurationError: A setting is out of its range.
        SoftTimeLimitExceeded: The Job's time is up. What was done until then stays.
    """
    return run_as(MaintenanceKindChoices.INCIDENTS, {}, _reviewed, _no_review)


def _reviewed(hold: Hold) -> dict[str, Any]:
    started = time.monotonic()
    counts = review_incidents(timezone.now(), timedelta(hours=AiOpsSettings.load().incident_escalation_hours), hold)
    return {**counts, "execution_time_ms": round((time.monotonic() - started) * 1000)}


def _no_review(error: str | None) -> dict[str, Any]:
    counts = dict.fromkeys(("total_checked", "opened", "auto_closed", "escalated", "errors", "execution_time_ms"), 0)
    return counts | ({"error": error} if error else {})


def supervise() -> dict[str, Any]:
    """Look after the other runs: rescue those whose process died, start those that are due, tidy up.

    Returns:
        By sub-check (`rescue`, `repair`, `retries`, `schedules`, `history`, `orphans`) how much was `checked`,
        `fixed` and `unfixable`, and the same of all; `summary`, a line; `success`; `error`, None or which sub-checks
        ended with an error of the program, while the others were made all the same; `execution_time_ms`.

    Raises:
        SoftTimeLimitExceeded: The Job's time is up. What was done until then stays.
    """
    return run_as(MaintenanceKindChoices.SUPERVISOR, {}, supervise_once, no_supervision)


def _existing_server(server_id: uuid.UUID | str) -> MCPServer:
    try:
        key = uuid.UUID(str(server_id))
    except ValueError:
        raise HealthCheckError(f"{shown(str(server_id))} is not the id of an MCP server: give its UUID.") from None
    server = MCPServer.objects.select_related("status", "secrets_group").filter(pk=key).first()
    if server is None:
        raise HealthCheckError(f"There is no MCP server with the id {key}: it may have been deleted.")
    return server
