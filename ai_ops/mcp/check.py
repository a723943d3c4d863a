"""A run of health checks: probe servers in rounds, flip statuses on which three checks agree, and notify agents.

`ai_ops.celery_tasks` selects the servers, and this module checks them. Threads do only HTTP. The calling thread uses
the database and the log, because the writes of a pool thread reach neither Nautobot's change log nor the Job's log.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial

from celery.exceptions import SoftTimeLimitExceeded
from django.core.exceptions import ValidationError
from django.db import transaction

from ai_ops.choices import MCPServerStatus
from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import AgentCacheError, CredentialsError, RunStoppedError
from ai_ops.mcp.change_log import flush_change_events
from ai_ops.mcp.flips import FLIPS_AT_ONCE, flip
from ai_ops.mcp.generation import publish_generation
from ai_ops.mcp.history import failed_before, record_checks, unconfirmed_verdicts
from ai_ops.mcp.http.prober import Prober, Target, unasked
from ai_ops.mcp.incidents import follow_run
from ai_ops.mcp.logic.own_network import shows_no_network_trouble
from ai_ops.mcp.logic.pauses import PAUSE_SECONDS
from ai_ops.mcp.logic.probe_threads import MAX_WORKERS
from ai_ops.mcp.logic.reports import HealthReport, ServerReport
from ai_ops.mcp.logic.verdicts import (
    AS_BEFORE,
    ASKED_TO_WAIT,
    CHECKS_TO_FLIP,
    INCONCLUSIVE,
    NOT_CONFIRMED,
    Keep,
    Probe,
    ProbeAgain,
    ProbeKind,
    Verdict,
)
from ai_ops.mcp.network_control import network_trouble
from ai_ops.mcp.secrets import read_credentials
from ai_ops.mcp.server_check import ServerCheck, log
from ai_ops.models import MCPServer
from ai_ops.runs.hold import Hold
from ai_ops.runs.infrastructure import BACKEND_ERRORS, backend_sentence
from ai_ops.runs.tracing import ended_span, phase

# Maximum number of seconds between two saves of flips, even if there are few.
GATHER_SECONDS = 0.25


def check_servers(
    servers: Iterable[MCPServer],
    hold: Hold,
    run_began: datetime | None = None,
    *,
    pause: float = PAUSE_SECONDS,
) -> HealthReport:
    """Check HTTP servers together, and flip the statuses on which all checks agree.

    Without differences this takes as long as one check of the slowest server. Differences add two pauses and two
    rounds, for any number of servers.

    Args:
        servers: The servers as they were read.
        hold: The hold of the run.
        run_began: For a shard, the time at which the fleet was divided.
        pause: Seconds between two rounds.

    Raises:
        LeaseLostError: Another run has taken over; nothing was written afterwards.
        RunStoppedError: The run was stopped. Decided flips are saved and logged.
        SoftTimeLimitExceeded: The Job reached its time limit. Decided flips are saved and logged.
    """
    checks = [ServerCheck(server, pause) for server in servers]
    workers = min(len(checks), MAX_WORKERS)
    try:
        _probe_in_rounds(checks, workers, hold, pause)
        doubt = _doubt(checks, hold.settings)
        _settle([check for check in checks if not check.settled], hold)
    except (SoftTimeLimitExceeded, RunStoppedError) as stop:
        _save_at_the_limit(checks, hold, stop, run_began)
        raise
    return _reported(checks, workers, hold, doubt, run_began)


def _doubt(checks: Sequence[ServerCheck], settings: AiOpsSettings, *, may_ask: bool = True) -> str | None:
    """Postpone flips to Unhealthy if this worker's own network may be the cause.

    This run confirms servers that also failed in the previous run.

    Returns:
        The reason why the run has no verdicts, as a sentence; None if it has.
    """
    healthy = [check for check in checks if check.probes and check.server.status.name == MCPServerStatus.HEALTHY]
    failing = [check for check in healthy if check.flips_to]
    known = failed_before([check.server.pk for check in failing]) if len(failing) > 1 else ()
    new = [check for check in failing if check.server.pk not in known]
    doubt = network_trouble(len(healthy), [check.probes[-1].reason for check in new], settings, may_ask=may_ask)
    if doubt is None:
        return None
    for check in checks if doubt.inconclusive else new:
        if not doubt.inconclusive:
            check.wait_for_next_run()
        elif check.flips_to:
            check.blame_our_network()
    log(logging.ERROR if doubt.inconclusive else logging.WARNING, "summary", "%s", doubt.sentence)
    return doubt.sentence if doubt.inconclusive else None


def _probe_in_rounds(checks: Sequence[ServerCheck], workers: int, hold: Hold, pause: float) -> None:
    """Probe all servers, then only those that differ from their status, until each is decided, with shared pauses."""
    undecided, settings = list(checks), hold.settings
    with prober_of(settings) as prober:
        while undecided:
            with phase("round", **{"ai_ops.servers": len(undecided)}):
                _probe_once(undecided, prober, workers, settings, hold)
            if any(len(check.probes) == 1 for check in undecided):
                _count_earlier_runs(undecided)
            undecided = [check for check in undecided if isinstance(check.step(), ProbeAgain)]
            if undecided:
                log(
                    logging.INFO,
                    "probes",
                    "%s server(s) differ from their status, checking them again in %g s",
                    len(undecided),
                    pause,
                )
                hold.wait(pause)


def _probe_once(
    checks: Sequence[ServerCheck], prober: Prober, workers: int, settings: AiOpsSettings, hold: Hold
) -> None:
    """Add a probe to each check, and save decided flips while other servers are still being probed.

    So a thousand flips take no longer than the round. Failures that this worker's network may have caused wait until
    the end of the round.
    """
    asked = _targets(checks, settings)
    agreed: list[ServerCheck] = []
    saved = 0.0
    with prober.probing([target for _, target in asked], workers) as probes:
        try:
            for number, probe in probes:
                check, _ = asked[number]
                check.add(probe)
                _trace(check.server, probe)
                hold.confirm()
                if _is_beyond_doubt(check, settings):
                    agreed.append(check)
                if agreed and (len(agreed) >= FLIPS_AT_ONCE or time.monotonic() - saved >= GATHER_SECONDS):
                    _settle(agreed, hold)
                    agreed, saved = [], time.monotonic()
        except (SoftTimeLimitExceeded, RunStoppedError):
            # Running probes end within their time limit, and their verdicts count in the next run.
            for number, probe in probes.rest():
                check, _ = asked[number]
                check.add(probe)
                if len(check.probes) >= CHECKS_TO_FLIP:
                    check.wait_for_next_run()
            raise
    _settle(agreed, hold)


def _trace(server: MCPServer, probe: Probe) -> None:
    attributes = {
        "ai_ops.server.id": str(server.pk),
        "ai_ops.server.name": server.name,
        "ai_ops.probe.result": str(probe.reason or "OK"),
        "http.response.status_code": probe.http_status,
    }
    ended_span("probe", probe.latency_ms / 1000, attributes, ok=probe.ok)


def _count_earlier_runs(checks: Sequence[ServerCheck]) -> None:
    """Count unconfirmed verdicts of earlier runs if this run can't decide alone, or may not probe again."""
    waiting = [check for check in checks if isinstance(check.step(), ProbeAgain) or check.step() is ASKED_TO_WAIT]
    earlier = unconfirmed_verdicts([check.server.pk for check in waiting]) if waiting else {}
    for check in waiting:
        check.recall(earlier.get(check.server.pk, ()))


def _is_beyond_doubt(check: ServerCheck, settings: AiOpsSettings) -> bool:
    """Return whether a check ends in a flip that this worker's network can't have caused."""
    if not check.flips_to or settings.mass_failure_percent:
        return False
    return check.flips_to == MCPServerStatus.HEALTHY or shows_no_network_trouble(check.probes[-1].reason)


def _targets(checks: Sequence[ServerCheck], settings: AiOpsSettings) -> list[tuple[ServerCheck, Target]]:
    """Return the target of each check. Secrets are read here, on the thread that may use the database."""
    asked: list[tuple[ServerCheck, Target]] = []
    for check in checks:
        try:
            asked.append((check, target_of(check.server, settings.ca_file)))
        except CredentialsError as error:
            check.add(unasked(str(error), "correct the secrets group or its secrets"))
    return asked


def prober_of(settings: AiOpsSettings) -> Prober:
    """Return a prober with the given settings."""
    return Prober(
        settings.check_timeout,
        allow_loopback=settings.allow_loopback,
        concurrency=settings.probe_concurrency,
        ca_directories=settings.folders_of_ca_files,
    )


def target_of(server: MCPServer, ca_file: str) -> Target:
    """Return the target for `server`; `ca_file` is for a server without its own."""
    return Target(
        url=server.health_check_url,
        mcp_url=server.mcp_url,
        kind=ProbeKind(server.probe),
        verify_tls=server.verify_tls,
        ca_file=server.ca_file or ca_file,
        credentials=read_credentials(server),
    )


def _save_at_the_limit(
    checks: Sequence[ServerCheck], hold: Hold, stop: BaseException, run_began: datetime | None
) -> None:
    """Save the flips decided before the time limit, because the next run may reach it too."""
    was_stopped = isinstance(stop, RunStoppedError)
    _count_earlier_runs([check for check in checks if check.probes])
    _doubt(checks, hold.settings, may_ask=False)
    flips = [check for check in checks if check.flips_to]
    _settle([check for check in flips if not check.settled], hold)
    if flips:
        # Notify even without a recorded flip, because the limit may have come between a commit and its record.
        _notify_agents(hold)
    _follow_up([check.report() for check in checks if check.probes], hold, None, run_began)
    log(
        logging.ERROR,
        "summary",
        "MCP health checks stopped%s: %s of %s server(s) probed, %s status change(s) made. "
        "The others keep their status until the next run%s.",
        "" if was_stopped else " by the time limit",
        sum(bool(check.probes) for check in checks),
        len(checks),
        sum(check.changed for check in checks),
        "" if was_stopped else "; raise the Job's time limits if this happens again",
    )


def _settle(checks: Sequence[ServerCheck], hold: Hold) -> None:
    """Save the decisions, and log a line for each server that is unhealthy or has changed."""
    flip([check for check in checks if check.flips_to], hold)
    for check in checks:
        if isinstance(step := check.step(), Keep):
            _keep(check, step)
            check.keep()


def _keep(check: ServerCheck, step: Keep) -> None:
    # Of several probes the first one differed, so its message is logged.
    telling = check.probes[0]
    if step is AS_BEFORE and telling.ok:
        # Fifty healthy servers, checked every ten minutes, would be seven thousand lines a day in Nautobot's database.
        return
    level = logging.INFO
    if step is NOT_CONFIRMED:
        level = logging.WARNING
    elif step is INCONCLUSIVE:
        level = logging.ERROR
        telling = next(probe for probe in check.probes if probe.verdict is Verdict.UNKNOWN)
        check.fail(telling.message)
    server = check.server
    log(level, "servers", "%s stays %s: %s. %s", server, check.status_after, step.why, telling.message, about=server)


def _reported(
    checks: Sequence[ServerCheck], workers: int, hold: Hold, doubt: str | None, run_began: datetime | None
) -> HealthReport:
    """Notify agents of flips, build the report, and log the summary line of the public contract."""
    servers = tuple(check.report() for check in checks)
    errors = [f"{report.server}: {report.error}" for report in servers if report.error]
    changed = any(report.changed for report in servers)
    untold = _notify_agents(hold) if changed else None
    errors += [sentence for sentence in (doubt, untold, *_follow_up(servers, hold, doubt, run_began)) if sentence]
    report = HealthReport(servers, workers, changed and untold is None, _one_sentence(errors), tuple(errors))
    log(
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
    """Write the history, and open or close incidents; return failures as a sentence, because the flips stay."""
    sentences: list[str] = []
    keep = partial(record_checks, settings=hold.settings)
    open_and_close = partial(follow_run, settings=hold.settings, doubt=doubt, run_began=run_began)
    with flush_change_events(sentences.append):
        for what, act in (("history", keep), ("incidents", open_and_close)):
            try:
                with transaction.atomic():
                    hold.lock()
                    with phase(what):
                        act(reports)
            except BACKEND_ERRORS as error:
                hold.trouble(error)
                sentences.append(f"The {what} of this run could not be saved. {backend_sentence(error)}")
            except ValidationError as error:
                sentences.append(f"The {what} of this run could not be saved: {'; '.join(error.messages)}")
    for sentence in sentences:
        log(logging.ERROR, "summary", "%s", sentence)
    return sentences


def _notify_agents(hold: Hold) -> str | None:
    """Make all agents drop their MCP clients; return a sentence if this failed."""
    try:
        publish_generation()
    except AgentCacheError as error:
        hold.trouble(error)
        log(logging.ERROR, "summary", "%s", error)
        return str(error)
    log(logging.INFO, "summary", "✅ MCP client cache cleared due to status changes")
    return None


def _one_sentence(errors: Sequence[str]) -> str | None:
    """Return the first error, and the number of further errors in the log."""
    if len(errors) < 2:
        return errors[0] if errors else None
    return f"{errors[0]} And {len(errors) - 1} more, see the log."
