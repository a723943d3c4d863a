"""A server during a run of health checks, and its log line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django.utils import timezone

from ai_ops.choices import MCPServerStatus
from ai_ops.mcp.logic.flapping import ILL, WELL
from ai_ops.mcp.logic.pauses import PAUSE_SECONDS
from ai_ops.mcp.logic.reports import ServerReport
from ai_ops.mcp.logic.verdicts import (
    NEXT_RUN,
    OUR_NETWORK,
    Flip,
    Probe,
    ProbeAgain,
    Step,
    Verdict,
    next_step,
    next_step_without_probe,
)
from ai_ops.models import MCPServer
from ai_ops.runs.logs import get_logger

logger = get_logger(__name__)

STATUS_OF_VERDICT = {Verdict.HEALTHY: MCPServerStatus.HEALTHY, Verdict.UNHEALTHY: MCPServerStatus.UNHEALTHY}
# The values in the history. Failures of the checker itself are not recorded.
_REMEMBERED = {Verdict.HEALTHY: WELL, Verdict.UNHEALTHY: ILL}
VERDICT_OF_STATUS = {status: verdict for verdict, status in STATUS_OF_VERDICT.items()}


@dataclass
class ServerCheck:
    """A server during a run of health checks. Only its own methods change it.

    Attributes:
        server: The server as it was read at the start.
        pause: Seconds to its next probe in this run; one that asks to wait for longer is not probed again in it.
        probes: Its probes in this run, oldest first.
        settled: Whether its flip was saved or refused, or its status stays.
        status_after: The name of its status now; None for a server that was deleted.
        changed: Whether this run has flipped the status.
        error: The reason why the check could not be made or its result not be saved, as a sentence.
        checked_at: End of the last probe.
        our_network: Whether this worker's network may have caused its failure.
        waits: Whether its flip waits for the next run to confirm it.
        earlier: Unconfirmed verdicts of earlier runs, the oldest first.
    """

    server: MCPServer
    pause: float = PAUSE_SECONDS
    probes: list[Probe] = field(default_factory=list)
    settled: bool = False
    status_after: str | None = None
    changed: bool = False
    error: str | None = None
    checked_at: datetime | None = None
    our_network: bool = False
    waits: bool = False
    earlier: Sequence[Verdict] = ()
    # The next step, cached until a change.
    _step: Step | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.status_after = self.server.status.name

    def add(self, probe: Probe) -> None:
        """Add a probe and its time."""
        self.probes.append(probe)
        self.checked_at = timezone.now()
        self._step = None

    def recall(self, earlier: Sequence[Verdict]) -> None:
        """Set the unconfirmed verdicts of earlier runs, oldest first."""
        self.earlier = earlier
        self._step = None

    def blame_our_network(self) -> None:
        """Keep the status, because this worker's own network may have caused the failure."""
        self.our_network = True
        self._step = None

    def wait_for_next_run(self) -> None:
        """Keep the status until the next run confirms the failure."""
        self.waits = True
        self._step = None

    def fail(self, sentence: str) -> None:
        """Set the error, unless one is already set."""
        self.error = self.error or sentence

    def keep(self) -> None:
        """Settle the check without a flip."""
        self.settled = True

    def conclude(self, saved: bool, status_now: str | None, error: str | None) -> None:
        """Settle the check with the result of its flip.

        Args:
            saved: Whether the status was saved.
            status_now: The name of its status now; None for a server that was deleted.
            error: The reason why it could not be saved, as a sentence.
        """
        self.changed, self.error, self.settled = saved, error, True
        self.status_after = status_now

    def step(self) -> Step:
        """Return the next step after the probes so far."""
        if self._step is None:
            self._step = self._next_step()
        return self._step

    def _next_step(self) -> Step:
        history = [probe.verdict for probe in self.probes]
        current = VERDICT_OF_STATUS.get(self.server.status.name)
        if self.our_network:
            return OUR_NETWORK
        if self.waits:
            return NEXT_RUN
        step = next_step(history, current)
        if not isinstance(step, ProbeAgain) or not history:
            return step
        unasked = next_step_without_probe(history, self.earlier, current)
        asked_to_wait = (self.probes[-1].retry_after or 0) > self.pause
        return unasked if asked_to_wait or isinstance(unasked, Flip) else step

    @property
    def flips_to(self) -> str | None:
        """Return the name of the new status on which the checks agree; None if nothing changes."""
        step = self.step()
        return STATUS_OF_VERDICT[step.to] if isinstance(step, Flip) else None

    def report(self) -> ServerReport:
        """Return the public report of this check, which must have a probe."""
        probe = self.probes[-1]
        return ServerReport(
            server=self.server.name,
            server_id=str(self.server.pk),
            status_before=self.server.status.name,
            status_after=self.status_after,
            changed=self.changed,
            ok=probe.ok,
            reason=probe.reason,
            message=probe.message,
            latency_ms=probe.latency_ms,
            http_status=probe.http_status,
            remedy=probe.remedy or None,
            phase=probe.phase,
            protocol_version=probe.protocol_version,
            server_name=probe.server_name,
            server_version=probe.server_version,
            retry_after=probe.retry_after,
            certificate_ends=probe.certificate_ends,
            error=self.error,
            checked_at=self.checked_at,
            inconclusive=self.our_network,
            verdicts="".join(_REMEMBERED.get(probe.verdict, "") for probe in self.probes),
        )


def log(level: int, grouping: str, message: str, *args: object, about: MCPServer | None = None) -> None:
    """Log a line under `grouping` of the Job's page, with a link to the server."""
    logger.log(level, message, *args, extra={"grouping": grouping, "object": about}, stacklevel=2)
