"""The Job that checks all MCP servers, or one."""

from __future__ import annotations

import time
from typing import Any

from django.forms import HiddenInput
from nautobot.apps.jobs import ObjectVar, StringVar

from ai_ops.celery_tasks import check_mcp_server_health, perform_mcp_health_checks
from ai_ops.choices import JOB_GROUP, MCPProtocolChoices
from ai_ops.jobs.base import MaintenanceJob
from ai_ops.mcp.logic.jitter import jitter_seconds
from ai_ops.models import MCPServer

name = JOB_GROUP


class MCPServerHealthCheckJob(MaintenanceJob):
    """Probe MCP servers, and set them Healthy or Unhealthy when three checks agree."""

    server = ObjectVar(
        model=MCPServer,
        query_params={"protocol": MCPProtocolChoices.HTTP},
        required=False,
        label="MCP server",
        description="The server to check. Leave empty to check all servers.",
    )
    # Hidden from users: a run that divides a large fleet sets it for its parts.
    shard = StringVar(required=False, widget=HiddenInput)

    class Meta:
        """Job metadata."""

        name = "MCP Server Health Check"
        description = "Perform automated health checks on HTTP MCP servers with retry logic and parallel execution"
        hidden = True
        has_sensitive_variables = False
        # Two hundred servers that drop packets take three rounds of 10 s each, four at a time, which exceeds Nautobot's
        # default of five minutes. The rest is for the probes that are running at the soft limit.
        soft_time_limit = 1800
        time_limit = 1860

    def run(self, server: MCPServer | None = None, shard: str | None = None) -> dict[str, Any]:
        """Check `server`, or the servers of `shard`, or all servers."""
        if server is None:
            is_scheduled = self.job_result is not None and self.job_result.scheduled_job is not None
            time.sleep(jitter_seconds(is_scheduled=is_scheduled))
            result = perform_mcp_health_checks(shard=shard or None)
            changed_count = result["changed_count"]
        else:
            result = check_mcp_server_health(server.pk)
            changed_count = int(result["changed"])
        if changed_count:
            self.logger.warning("⚠️ %s server(s) changed status - check logs for details", changed_count)
        if not result["success"]:
            self.fail("❌ MCP health check failed: %s", result["error"])
        return result
