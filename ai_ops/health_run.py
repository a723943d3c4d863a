"""One run of health checks: probe in rounds, flip what three checks agree on, tell the agents.

The task layer's other half: `ai_ops.celery_tasks` says which servers, this says how. Threads do HTTP
only; the database and the log are used on the thread that called, since what a pool thread writes
reaches neither Nautobot's change log nor the Job's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from celery.exceptions import SoftTimeLimitExceeded
from celery.utils.log import get_task_logger
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone
from nautobot.extras.models import Status

from ai_ops.adapters.mcp_http import Prober, Target, unasked
from ai_ops.agents import publish_generation
from ai_ops.choices import MCPServerStatus
from ai_ops.config import AiOpsSettings
from ai_ops.core.health import (
    AS_BEFORE,
    INCONCLUSIVE,
    MAX_WORKERS,
    NOT_CONFIRMED,
    OUR_NETWORK,
    PAUSE_SECONDS,
    Flip,
    Keep,
    Probe,
    ProbeAgain,
    ProbeKind,
    Step,
    Verdict,
    next_step,
    next_step_unasked,
)
from ai_ops.core.reports import HealthReport, ServerReport
from ai_ops.core.runs import Hold
from ai_ops.credentials import read_credentials
from ai_ops.exceptions import AgentCacheError, CredentialsError, RunStoppedError
from ai_ops.health_history import recent_verdicts, record_checks
from ai_ops.incidents import follow_run, owe_alert
from ai_ops.infrastructure import BACKEND_ERRORS, backend_sentence
from ai_ops.models import AgentGeneration, MCPServer
from ai_ops.network_control import network_trouble

logger = get_task_logger(__name__)

STATUS_OF_VERDICT = {Verdict.HEALTHY: MCPServerStatus.HEALTHY, Verdict.UNHEALTHY: MCPServerStatus.UNHEALTHY}
VERDICT_OF_STATUS = {status: verdict for verdict, status in STATUS_OF_VERDICT.items()}

# A verdict on anything else is no verdict on the server as it is now.
WHAT_WAS_PROBED = (
    "status_id",
    "protocol",
    "url",
    "health_check",
    "mcp_endpoint",
    "probe",
    "verify_tls",
    "ca_file",
    "secrets_group_id",
)


@dataclass
class _Check:
    """One server on its way through a run; `server` stays as it was read at the start."""

    server: MCPServer
    probes: list[Probe] = field(default_factory=list)
    settled: bool = False
    status_after: str | None = None
    changed: bool = False
    error: str | None = None
    checked_at: str | None = None
    our_network: bool = False
    # Verdicts of earlier runs, for a server that asked not to be probed again soon.
    earlier: Sequence[Verdict] | None = None

    def __post_init__(self) -> None:
        self.status_after = self.server.status.name

    def add(self, probe: Probe) -> None:
        """Note what a probe said, and when."""
        self.probes.append(probe)
        self.checked_at = timezone.now().isoformat()
        if (probe.retry_after or 0) > PAUSE_SECONDS:
            self.earlier = recent_verdicts(self.server)

    def step(self) -> Step:
        """What follows from the probes so far."""
        history = [probe.verdict for probe in self.probes]
        current = VERDICT_OF_STATUS.get(self.server.status.name)
        if self.our_network:
            return OUR_NETWORK
        step = next_step(history, current)
        if isinstance(step, ProbeAgain) and self.earlier is not None:
            return next_step_unasked(history, self.earlier, current)
        return step

    def report(self) -> ServerReport:
        """The public account of this check, which has been probed at least once."""
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
            error=self.error,
            checked_at=self.checked_at,
            inconclusive=self.our_network,
        )


def check_servers(servers: Iterable[MCPServer], hold: Hold, run_began: datetime | None = None) -> HealthReport:
    """Check these HTTP servers together and flip the statuses on which all checks agree.

    Takes as long as one check of the slowest where nothing differs, and two pauses and two rounds more
    where something does, however many servers there are.

    Args:
        servers: As they were read.
        hold: The run's right to write.
        run_began: For one shard of several, when the fleet was divided.

    Raises:
        LeaseLostError: Another run has taken over; nothing was written after that.
        RunStoppedError: The run was told to stop. What was decided until then is carried out and logged.
        SoftTimeLimitExceeded: The Job's time is up. What was decided until then is carried out and logged.
    """
    checks = [_Check(server) for server in servers]
    workers = min(len(checks), MAX_WORKERS)
    try:
        _probe_in_rounds(checks, workers, hold)
        doubt = _doubt(checks)
        for check in checks:
            if not check.settled:
                _settle(check, hold)
    except (SoftTimeLimitExceeded, RunStoppedError) as stop:
        _wind_up(checks, hold, stop, run_began)
        raise
    return _reported(checks, workers, hold, doubt, run_began)


def _doubt(checks: Sequence[_Check]) -> str | None:
    """Decide that nothing flips where this worker's own network is to blame; return the sentence that says so."""
    healthy = [check for check in checks if check.server.status.name == MCPServerStatus.HEALTHY]
    failing = [check for check in healthy if isinstance(check.step(), Flip)]
    doubt = network_trouble(len(healthy), [check.probes[-1].reason for check in failing])
    if doubt:
        for check in checks:
            check.our_network = isinstance(check.step(), Flip)
        _log(logging.ERROR, "summary", "%s", doubt)
    return doubt


def _probe_in_rounds(checks: Sequence[_Check], workers: int, hold: Hold) -> None:
    """Probe all, then those whose status differs, until each is decided; one pause serves all of them."""
    undecided = list(checks)
    settings = AiOpsSettings.load()
    with Prober(settings.check_timeout, allow_loopback=settings.allow_loopback) as prober:
        while undecided:
            _probe_once(undecided, prober, workers, settings, hold)
            undecided = [check for check in undecided if isinstance(check.step(), ProbeAgain)]
            if undecided:
                _log(
                    logging.INFO,
                    "probes",
                    "%s server(s) differ from their status, checking them again in %g s",
                    len(undecided),
                    PAUSE_SECONDS,
                )
                hold.wait(PAUSE_SECONDS)


def _probe_once(checks: Sequence[_Check], prober: Prober, workers: int, settings: AiOpsSettings, hold: Hold) -> None:
    """Add one probe to each check; secrets are read here, on the thread that may use the database."""
    asked: list[_Check] = []
    targets: list[Target] = []
    for check in checks:
        try:
            targets.append(target_of(check.server, settings.ca_file))
        except CredentialsError as error:
            check.add(unasked(str(error), "correct the secrets group, or the secrets in it"))
        else:
            asked.append(check)
    with closing(prober.probe_all(targets, workers)) as probes:
        for check, probe in zip(asked, probes, strict=True):
            check.add(probe)
            hold.confirm()
            # While the others are still being asked: a thousand flips take as long as a round. With the guard on,
            # all of the round must be seen first.
            if isinstance(check.step(), Flip) and not settings.mass_failure_percent:
                _settle(check, hold)


def target_of(server: MCPServer, ca_file: str) -> Target:
    """What to ask `server`, with the CA file for a server that has none of its own."""
    return Target(
        url=server.health_check_url,
        mcp_url=server.mcp_url,
        kind=ProbeKind(server.probe),
        verify_tls=server.verify_tls,
        ca_file=server.ca_file or ca_file,
        credentials=read_credentials(server),
    )


def _wind_up(checks: Sequence[_Check], hold: Hold, stop: BaseException, run_began: datetime | None) -> None:
    """Keep what three checks agreed on before the time was up: the next run may run out of it again."""
    told = isinstance(stop, RunStoppedError)
    flips = [check for check in checks if isinstance(check.step(), Flip)]
    for check in flips:
        if not check.settled:
            _settle(check, hold)
    if flips:
        # Told even when no flip is noted: the time may have run out between a commit and its note.
        _tell_agents(hold)
    _follow_up([check.report() for check in checks if check.probes], hold, None, run_began)
    _log(
        logging.ERROR,
        "summary",
        "MCP health checks stopped%s: %s of %s server(s) probed, %s status change(s) made. "
        "The others keep their status until the next run%s.",
        "" if told else " by the time limit",
        sum(bool(check.probes) for check in checks),
        len(checks),
        sum(check.changed for check in checks),
        "" if told else "; raise the Job's time limits if this happens again",
    )


def _settle(check: _Check, hold: Hold) -> None:
    """Carry out what was decided, with a line for each server that is not simply well."""
    step = check.step()
    if isinstance(step, Flip):
        _flip(check, STATUS_OF_VERDICT[step.to], hold)
    elif isinstance(step, Keep):
        _keep(check, step)
    check.settled = True


def _keep(check: _Check, step: Keep) -> None:
    # Of several probes the first is the one that differed, and so the one to tell of.
    telling = check.probes[0]
    level = logging.INFO
    if step is AS_BEFORE and telling.ok:
        level = logging.DEBUG
    elif step is NOT_CONFIRMED:
        level = logging.WARNING
    elif step is INCONCLUSIVE:
        level = logging.ERROR
        telling = next(probe for probe in check.probes if probe.verdict is Verdict.UNKNOWN)
        check.error = telling.message
    server = check.server
    _log(level, "servers", "%s stays %s: %s. %s", server, check.status_after, step.why, telling.message, about=server)


def _flip(check: _Check, status_name: str, hold: Hold) -> None:
    """Give the server its new status, unless somebody changed it while it was being probed."""
    server = check.server
    try:
        check.changed = _save_status(check, status_name, hold)
    except Status.DoesNotExist:
        check.error = f"MCP servers have no status {status_name} any more: run nautobot-server migrate to get it back."
    except ValidationError as error:
        check.error = f"The status {status_name} could not be saved: {'; '.join(error.messages)}"
    except BACKEND_ERRORS as error:
        hold.trouble(error)
        check.error = f"The status {status_name} could not be saved. {backend_sentence(error)}"
    if check.error:
        _log(logging.ERROR, "servers", "%s stays %s: %s", server, check.status_after, check.error, about=server)
    elif check.changed:
        check.status_after = status_name
        _log(
            logging.INFO if status_name == MCPServerStatus.HEALTHY else logging.WARNING,
            "servers",
            "%s was %s and is now %s, as %s checks agree. %s",
            server,
            server.status.name,
            status_name,
            len(check.probes),
            check.probes[-1].message,
            about=server,
        )


def _save_status(check: _Check, status_name: str, hold: Hold) -> bool:
    """Return whether the status was saved; by then it is committed, and with it what tells the agents."""
    with transaction.atomic(durable=True):
        AgentGeneration.lock()
        hold.lock()
        row = _locked_row(check)
        if row is None:
            return False
        row.status = Status.objects.get_for_model(MCPServer).get(name=status_name)
        row.validated_save()
        if status_name == MCPServerStatus.UNHEALTHY:
            owe_alert(check.report())
    return True


def _locked_row(check: _Check) -> MCPServer | None:
    """The server's row, locked until the transaction ends; None when it is not what was probed any more."""
    # Of the server's table only: its status is shared with all the others.
    row = MCPServer.objects.select_for_update(of=("self",)).select_related("status").filter(pk=check.server.pk).first()
    if row is None:
        check.status_after = None
        _log(logging.INFO, "servers", "%s was deleted during the check", check.server)
        return None
    if all(getattr(row, name) == getattr(check.server, name) for name in WHAT_WAS_PROBED):
        return row
    check.status_after = row.status.name
    _log(
        logging.INFO,
        "servers",
        "%s is now %s: it was changed by someone else during the check",
        row,
        row.status.name,
        about=row,
    )
    return None


def _reported(
    checks: Sequence[_Check], workers: int, hold: Hold, doubt: str | None, run_began: datetime | None
) -> HealthReport:
    """Tell the agents of flips, sum the run up and log the line that operators search for."""
    servers = tuple(check.report() for check in checks)
    errors = [f"{report.server}: {report.error}" for report in servers if report.error]
    changed = any(report.changed for report in servers)
    untold = _tell_agents(hold) if changed else None
    errors += [sentence for sentence in (doubt, untold, *_follow_up(servers, hold, doubt, run_began)) if sentence]
    report = HealthReport(servers, workers, changed and untold is None, _one_sentence(errors))
    _log(
        logging.INFO,
        "summary",
        "%s MCP health check completed: %s server(s) checked using %s worker(s), %s status change(s), %s failure(s)",
        "⚠️" if report.error else "✅",
        len(servers),
        workers,
        report.changed_count,
        report.failed_count,
    )
    return report


def _follow_up(reports: Sequence[ServerReport], hold: Hold, doubt: str | None, run_began: datetime | None) -> list[str]:
    """Write the history and open or close incidents; return a sentence for what failed, as the flips stay made."""
    sentences = []
    open_and_close = partial(follow_run, doubt=doubt, run_began=run_began)
    for what, act in (("history", record_checks), ("incidents", open_and_close)):
        try:
            with transaction.atomic():
                hold.lock()
                act(reports)
        except BACKEND_ERRORS as error:
            hold.trouble(error)
            sentences.append(f"The {what} of this run could not be kept. {backend_sentence(error)}")
        except ValidationError as error:
            sentences.append(f"The {what} of this run could not be kept: {'; '.join(error.messages)}")
    for sentence in sentences:
        _log(logging.ERROR, "summary", "%s", sentence)
    return sentences


def _tell_agents(hold: Hold) -> str | None:
    """Make all agents drop their MCP clients; return a sentence if that failed."""
    try:
        publish_generation()
    except AgentCacheError as error:
        hold.trouble(error)
        _log(logging.ERROR, "summary", "%s", error)
        return str(error)
    _log(logging.INFO, "summary", "✅ MCP client cache cleared due to status changes")
    return None


def _one_sentence(errors: Sequence[str]) -> str | None:
    """The first error, and how many more there are in the log."""
    if len(errors) < 2:
        return errors[0] if errors else None
    return f"{errors[0]} And {len(errors) - 1} more, see the log."


def _log(level: int, grouping: str, message: str, *args: object, about: MCPServer | None = None) -> None:
    """Log a line that a Job's page shows under `grouping`, with a link to the server it is about."""
    logger.log(level, message, *args, extra={"grouping": grouping, "object": about}, stacklevel=2)
