"""The maintenance tasks: plain functions that gather, decide, apply and report.

The Jobs, the schedules, REST and a Python shell all call these.
"""

from __future__ import annotations

import uuid
from typing import Any

from celery.utils.log import get_task_logger
from django.db import InterfaceError, OperationalError

from ai_ops.choices import MCPProtocolChoices, MCPServerStatus
from ai_ops.core.reports import HealthReport, ServerReport
from ai_ops.exceptions import HealthCheckError
from ai_ops.health_run import check_servers
from ai_ops.models import MCPServer

# Only loggers below Celery's task logger reach a Job's log; from a shell they print like any other.
logger = get_task_logger(__name__)


def perform_mcp_health_checks() -> dict[str, Any]:
    """Check every HTTP server that is not Vulnerable, and flip the statuses on which three checks agree.

    A change made by a Job is in Nautobot's change log with the Job's context. From a shell wrap the call
    in ``nautobot.apps.change_logging.web_request_context(user)``: only the caller knows whose change it is.

    Returns:
        `success`; `checked_count`, `changed_count` and `failed_count` of servers, the last those whose check
        failed; `worker_count`; `cache_cleared`; `error`, None or a sentence.

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
    except (OperationalError, InterfaceError) as error:
        return HealthReport(error=_database_sentence(error)).as_dict()


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
    except (OperationalError, InterfaceError) as error:
        return ServerReport(server=str(server_id), error=_database_sentence(error)).as_dict()
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


def _database_sentence(error: Exception) -> str:
    return f"The database failed during the health check ({str(error).strip()}): check it and run the check again."
