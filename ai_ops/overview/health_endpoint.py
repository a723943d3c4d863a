"""The app's part of Nautobot's /health/: neither check is critical, so that Nautobot stays well without agents.

The address is open to all, so that what is said names no host and quotes nothing.
"""

from __future__ import annotations

from django.utils import timezone
from health_check.backends import BaseHealthCheckBackend
from health_check.exceptions import ServiceUnavailable, ServiceWarning
from redis.exceptions import RedisClusterException, RedisError

from ai_ops.checkpoints.connection import get_redis_connection
from ai_ops.exceptions import AiOpsError
from ai_ops.logic.durations import age
from ai_ops.overview import logic
from ai_ops.overview.page import Overview, unrestricted_user
from ai_ops.runs.infrastructure import BACKEND_ERRORS
from ai_ops.schedules.lateness import HELD

# Whatever asks for the health of a web server waits for a few seconds.
REDIS_SECONDS = 2.0


class CheckpointRedisHealth(BaseHealthCheckBackend):
    """The checkpoint Redis answers."""

    critical_service = False

    def check_status(self) -> None:
        """Ask it for an answer."""
        try:
            with get_redis_connection(REDIS_SECONDS) as client:
                client.ping()
        except (AiOpsError, RedisError, RedisClusterException, OSError):
            self.add_error(ServiceUnavailable("The checkpoint Redis does not answer: nautobot-server ai_ops doctor"))

    def identifier(self) -> str:
        """Return the name on the page."""
        return "AI Ops: checkpoint Redis"


class LastRunsHealth(BaseHealthCheckBackend):
    """Each kind of maintenance that is scheduled has succeeded in time."""

    critical_service = False

    def check_status(self) -> None:
        """Compare the last successes with the schedules, as the overview does."""
        try:
            page = Overview(unrestricted_user(), timezone.now())
            for machine in page.machines:
                level, said = logic.machine_state(machine, page.now)
                if level in (logic.Level.DANGER, logic.Level.WARNING) and machine.standing != HELD:
                    last = age(machine.last_success, page.now) if machine.last_success else "never"
                    self.add_error(ServiceWarning(f"{machine.kind}: {said.lower()}, last success {last}"))
        except BACKEND_ERRORS:
            self.add_error(ServiceUnavailable("Nautobot's database does not say when maintenance last succeeded"))

    def identifier(self) -> str:
        """Return the name on the page."""
        return "AI Ops: last successful runs"
