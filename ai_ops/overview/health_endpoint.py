"""The app's checks in Nautobot's /health/. Neither is critical, so that Nautobot stays healthy without agents.

The address needs no login, so the messages name no host and quote no error.
"""

from __future__ import annotations

from django.utils import timezone
from health_check.backends import BaseHealthCheckBackend
from health_check.exceptions import ServiceUnavailable, ServiceWarning
from redis.exceptions import RedisClusterException, RedisError

from ai_ops.checkpoints.connection import get_redis_connection
from ai_ops.exceptions import AiOpsError
from ai_ops.logic.relative_times import age
from ai_ops.overview import logic
from ai_ops.overview.page import Overview, unrestricted_user
from ai_ops.runs.infrastructure import BACKEND_ERRORS
from ai_ops.schedules.lateness import HELD

# Clients that ask for the health of a web server wait only a few seconds.
REDIS_SECONDS = 2.0


class CheckpointRedisHealth(BaseHealthCheckBackend):
    """Check that the checkpoint Redis answers."""

    critical_service = False

    def check_status(self) -> None:
        """Send a PING."""
        try:
            with get_redis_connection(REDIS_SECONDS) as client:
                client.ping()
        except (AiOpsError, RedisError, RedisClusterException, OSError):
            self.add_error(ServiceUnavailable("The checkpoint Redis does not answer: nautobot-server ai_ops doctor"))

    def identifier(self) -> str:
        """Return the name on the page."""
        return "AI Ops: checkpoint Redis"


class LastRunsHealth(BaseHealthCheckBackend):
    """Check that each scheduled kind of maintenance has succeeded in time."""

    critical_service = False

    def check_status(self) -> None:
        """Compare the last successes with the schedules, as the overview does."""
        try:
            page = Overview(unrestricted_user(), timezone.now())
            for machine in page.machines:
                level, state = logic.machine_state(machine, page.now)
                if level in (logic.Level.DANGER, logic.Level.WARNING) and machine.standing != HELD:
                    last = age(machine.last_success, page.now) if machine.last_success else "never"
                    self.add_error(ServiceWarning(f"{machine.kind}: {state.lower()}, last success {last}"))
        except BACKEND_ERRORS:
            self.add_error(
                ServiceUnavailable("Nautobot's database did not answer the query for the last successful runs")
            )

    def identifier(self) -> str:
        """Return the name on the page."""
        return "AI Ops: last successful runs"
