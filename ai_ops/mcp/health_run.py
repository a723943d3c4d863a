"""Runs of health checks: of all due servers or of one, followed by listings of tools."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from nautobot.extras.models import JobQueue, JobResult

from ai_ops.exceptions import ConfigurationError, HealthCheckError
from ai_ops.logic.foreign_text import shown
from ai_ops.logic.shards import Shard
from ai_ops.mcp.check import check_servers
from ai_ops.mcp.due import due_servers
from ai_ops.mcp.events import publish_check
from ai_ops.mcp.history import trim_checks
from ai_ops.mcp.hourly_checks import sum_up_hours
from ai_ops.mcp.logic.pauses import PAUSE_SECONDS
from ai_ops.mcp.logic.reports import HealthReport, ServerReport
from ai_ops.mcp.shards import enqueue_shards, queue_to_share, shard_servers
from ai_ops.mcp.tool_listing import list_tools
from ai_ops.models import MCPServer
from ai_ops.runs.hold import Hold
from ai_ops.runs.infrastructure import BACKEND_ERRORS, backend_sentence
from ai_ops.runs.logs import get_logger

logger = get_logger(__name__)


def check_due_servers(hold: Hold, shard: Shard | None) -> dict[str, Any]:
    """Check the due servers, or those of a shard, under the lease of a run; return the report as a dictionary."""
    logger.info("Starting MCP server health checks...")
    try:
        settings, now = hold.settings, timezone.now()
        if shard:
            return _checked(_as_probed(shard_servers(shard, now)), hold, shard.as_of).as_dict()
        if hold.job_result and (queue := queue_to_share(hold.job_result, settings.health_check_shard_size, now)):
            report = _shared(hold.job_result, queue, settings.health_check_shard_size, hold)
        else:
            report = _checked(_as_probed(due_servers(now)), hold).as_dict()
        hold.confirm()
        if trimmed := trim_checks(settings.check_history_days):
            logger.info("%s check(s) older than %s days deleted from the history", trimmed, settings.check_history_days)
        sum_up_hours(hold, now)
        return report
    except BACKEND_ERRORS as error:
        hold.trouble(error)
        return HealthReport(error=backend_sentence(error)).as_dict()
    except ConfigurationError as error:
        return HealthReport(error=str(error)).as_dict()


def _as_probed(servers: QuerySet[MCPServer]) -> QuerySet[MCPServer]:
    return servers.select_related("status", "secrets_group")


def _shared(job_result: JobResult, queue: JobQueue, size: int, hold: Hold) -> dict[str, Any]:
    """Divide the due servers among further runs of the Job."""
    with transaction.atomic():
        hold.lock()
        shards = enqueue_shards(job_result, queue, size, timezone.now())
    count = sum(shard["server_count"] for shard in shards)
    logger.info("%s due server(s) are checked by %s further run(s) of this Job, one for each shard", count, len(shards))
    return {**HealthReport().as_dict(), "shards": shards}


def check_one_server(hold: Hold, server_id: uuid.UUID | str) -> dict[str, Any]:
    """Check one server under the lease of a run; return its report as a dictionary."""
    known = ServerReport(server=str(server_id))
    try:
        server = _existing_server(server_id)
        known = ServerReport(server=server.name, server_id=str(server.pk))
        if reason := server.why_not_checked():
            raise HealthCheckError(reason)
        logger.info("Starting MCP server health checks...", extra={"object": server})
        report = _checked([server], hold, always=True)
    except (HealthCheckError, ConfigurationError) as error:
        return replace(known, error=str(error)).as_dict()
    except BACKEND_ERRORS as error:
        hold.trouble(error)
        return replace(known, error=backend_sentence(error)).as_dict()
    return {**report.servers[0].as_dict(), "success": report.error is None, "error": report.error}


def _checked(
    servers: Iterable[MCPServer], hold: Hold, run_began: datetime | None = None, *, always: bool = False
) -> HealthReport:
    """Check the servers, publish the event, and list the tools of those that passed.

    Listing leaves the verdicts of the checks as they are. `always` lists tools that are not due too.
    """
    report = check_servers(servers, hold, run_began, pause=PAUSE_SECONDS if hold.pause is None else hold.pause)
    publish_check(report, hold.run_id)
    passed = [server.server_id for server in report.servers if server.ok and server.server_id]
    error = list_tools(passed, hold, always=always)
    return replace(report, error=report.error or error, errors=(*report.errors, *([error] if error else [])))


def _existing_server(server_id: uuid.UUID | str) -> MCPServer:
    try:
        key = uuid.UUID(str(server_id))
    except ValueError:
        raise HealthCheckError(f"{shown(str(server_id))} is not the id of an MCP server: give its UUID.") from None
    server = MCPServer.objects.select_related("status", "secrets_group").filter(pk=key).first()
    if server is None:
        raise HealthCheckError(f"There is no MCP server with the id {key}: it may have been deleted.")
    return server
