"""The maintenance tasks: plain functions that gather, decide, apply and report.

The Jobs, the schedules, REST and a Python shell all call these.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from celery.utils.log import get_task_logger

from ai_ops.adapters.checkpoint_store import CheckpointStore
from ai_ops.checkpointer import get_redis_connection
from ai_ops.choices import MCPProtocolChoices, MCPServerStatus
from ai_ops.cleanup_run import CleanupRun
from ai_ops.config import validated_retention_days
from ai_ops.core.checkpoint_keys import KeyParser
from ai_ops.core.reports import CleanupReport, HealthReport, ServerReport
from ai_ops.core.retention import DAY, RetentionPolicy
from ai_ops.exceptions import AiOpsError, HealthCheckError
from ai_ops.health_run import BACKEND_ERRORS, backend_sentence, check_servers
from ai_ops.models import MCPServer

# Only loggers below Celery's task logger reach a Job's log; from a shell they print like any other.
logger = get_task_logger(__name__)


def cleanup_old_checkpoints(retention_days: int = 30, dryrun: bool = False) -> dict[str, Any]:
    """Delete the checkpoints that are past their retention and that no live conversation needs.

    Args:
        retention_days: Age in days past which a checkpoint may go, 1 to 3650.
        dryrun: Delete nothing, and report what would go.

    Returns:
        The contract's `success`, `processed_count` (keys scanned), `deleted_count` (keys deleted, or that
        would be), `retention_days`, `error` (None or a sentence), and the rest of `CleanupReport`.

    Raises:
        SoftTimeLimitExceeded: The Job's time is up. What was done until then is logged and stays.
    """
    logger.info("Starting checkpoint cleanup task...")
    now = time.time()
    run = None
    try:
        retention = validated_retention_days(retention_days) * DAY
        parser = KeyParser(now)
        with get_redis_connection() as client:
            store = CheckpointStore(client, parser)
            run = CleanupRun(store, parser, RetentionPolicy(retention, retention), now, dryrun=dryrun)
            run.execute()
    except AiOpsError as error:
        report = run.report(retention_days, str(error)) if run else CleanupReport(retention_days, error=str(error))
    except SoftTimeLimitExceeded:
        if run:
            _log_cleanup(run, run.report(retention_days, "the Job's time limit was reached; the next run goes on"))
        raise
    else:
        report = run.report(retention_days)
    _log_cleanup(run, report)
    return report.as_dict()


def _log_cleanup(run: CleanupRun | None, report: CleanupReport) -> None:
    if report.error is None:
        logger.info(
            "✅ Checkpoint cleanup completed: processed %d keys (retention: %d days)",
            report.processed_count,
            report.retention_days,
        )
    if run:
        logger.info("%s %d old checkpoint keys", "Would delete" if report.dryrun else "Deleted", report.deleted_count)
    if run and report.unfixable_count:
        logger.warning(
            "Kept %d keys that carry no readable time or are no checkpoints, such as %s: look at them, and delete "
            "by hand what nobody needs.",
            report.unfixable_count,
            ", ".join(run.tally.unfixable_names),
        )
    if report.error is not None:
        logger.error("❌ Checkpoint cleanup failed: %s", report.error)


def perform_mcp_health_checks() -> dict[str, Any]:
    """Check every HTTP server that is not Vulnerable, and flip the statuses on which three checks agree.

    A change made by a Job is in Nautobot's change log with the Job's context. From a shell wrap the call
    in ``nautobot.apps.change_logging.web_request_context(user)``: only the caller knows whose change it is.

    Returns:
        `success`; `checked_count`, `changed_count` and `failed_count` of servers, the last those whose last
        probe failed or whose check could not be made, so a server that is still down counts in every run;
        `worker_count`; `cache_cleared`; `error`, None or a sentence.

    Raises:
        SoftTimeLimitExceeded: The Job's time is up. What was done until then is logged and stays.
    """
    logger.info("Starting MCP server health checks...")
    try:
        return check_servers(
            MCPServer.objects.filter(protocol=MCPProtocolChoices.HTTP)
            .exclude(status__name=MCPServerStatus.VULNERABLE)
            .select_related("status")
        ).as_dict()
    except BACKEND_ERRORS as error:
        return HealthReport(error=backend_sentence(error)).as_dict()


def check_mcp_server_health(server_id: uuid.UUID | str) -> dict[str, Any]:
    """Check one server as `perform_mcp_health_checks` does, with the same rounds and the same flip.

    Args:
        server_id: Primary key of an MCPServer.

    Returns:
        `success`, whether the server could be checked; `server`, `server_id`, `status_before`, `status_after`,
        `changed`; of the last probe `ok`, `reason`, `message`, `latency_ms`, `http_status`; `error`, None or a
        sentence.

    Raises:
        SoftTimeLimitExceeded: The Job's time is up before the check was complete.
    """
    try:
        server = _checkable_server(server_id)
        logger.info("Starting MCP server health checks...", extra={"object": server})
        report = check_servers([server])
    except HealthCheckError as error:
        return ServerReport(server=str(server_id), error=str(error)).as_dict()
    except BACKEND_ERRORS as error:
        return ServerReport(server=str(server_id), error=backend_sentence(error)).as_dict()
    return {**report.servers[0].as_dict(), "success": report.error is None, "error": report.error}


def _checkable_server(server_id: uuid.UUID | str) -> MCPServer:
    try:
        key = uuid.UUID(str(server_id))
    except ValueError:
        raise HealthCheckError(f"{str(server_id)!r} is not the id of an MCP server: give its UUID.") from None
    server = MCPServer.objects.select_related("status").filter(pk=key).first()
    if server is None:
        raise HealthCheckError(f"There is no MCP server with the id {key}: it may have been deleted.")
    if server.protocol != MCPProtocolChoices.HTTP:
        raise HealthCheckError(
            f"{server} runs inside the agents ({server.protocol}): only HTTP servers can be checked."
        )
    if server.status.name == MCPServerStatus.VULNERABLE:
        raise HealthCheckError(f"{server} is {server.status}: it is not asked anything before it has another status.")
    return server
