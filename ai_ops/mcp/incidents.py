"""Incidents: a flip to Unhealthy opens them, and a confirmed recovery closes them; each change is published.

Changed tools open an incident too, until they are approved or have their approved definition again.

An outage of many servers at the same time is one incident. Each transition is published through Nautobot's event
brokers after its commit. It is also in the change log, which triggers webhooks and Job hooks.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from django.db import transaction
from django.db.models import Case, Count, Exists, OuterRef, Q, QuerySet, Value, When
from django.utils import timezone

from ai_ops.choices import MCPIncidentKindChoices, MCPProtocolChoices, MCPServerStatus, MCPToolStateChoices
from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import IncidentError, LeaseLostError
from ai_ops.logic.foreign_text import printable
from ai_ops.logic.quiet_time import is_quiet
from ai_ops.mcp import pending_alerts
from ai_ops.mcp.events import (
    TOPIC_ACKNOWLEDGED,
    TOPIC_CLOSED,
    TOPIC_ESCALATED,
    TOPIC_OPENED,
    publish_flip,
    publish_incident,
)
from ai_ops.mcp.logic.certificates import DAY, INCIDENT_DAYS
from ai_ops.mcp.logic.mass_outage import MASS_OUTAGE_SERVERS, shared_incidents
from ai_ops.mcp.logic.reports import ServerReport
from ai_ops.mcp.logic.tools import UNREADABLE
from ai_ops.mcp.logic.verdicts import Reason
from ai_ops.models import AgentGeneration, MCPServer
from ai_ops.models.health import MCPServerHealth
from ai_ops.models.incidents import MCPServerIncident
from ai_ops.models.tools import MCPServerTool, MCPServerToolSet
from ai_ops.runs.hold import Hold
from ai_ops.runs.logs import get_logger

logger = get_logger(__name__)

# Number of servers whose message an incident quotes. Its table has all servers.
MESSAGES_QUOTED = 10

CERTIFICATE_REASON = "CERTIFICATE"
CERTIFICATE_REMEDY = (
    "Renew the certificate and install it on the server. The next check with the new certificate closes this incident."
)

LISTING_REMEDY = (
    "Its tools can't be compared with the approved ones, but agents may still load them. If this is not "
    "acceptable, give the server the status Vulnerable. The next readable list closes this incident."
)
_DRIFTED = Q(state=MCPToolStateChoices.CHANGED) | Q(
    state=MCPToolStateChoices.ADDED, name__startswith=UNREADABLE.strip()
)
# A server that gave a list before, and failed to give one the last time for its own reasons.
_UNLISTED = Q(listed__isnull=False) & ~Q(reason__in=("", Reason.CHECKER))

DRIFT_REASON = "DRIFT"
DRIFT_REMEDY = (
    "Review the changes on the server's page. Approve them if they are intended. Otherwise reject them, or give the "
    "server the status Vulnerable. Agents still use the tools."
)


def follow_run(
    reports: Sequence[ServerReport],
    settings: AiOpsSettings,
    doubt: str | None = None,
    run_began: datetime | None = None,
) -> None:
    """Publish the flips of a run, open incidents of servers that went down, and close those of recovered servers.

    Alerts of a flapping server are held until flapping ends. Its state then counts like a flip of this run. So do the
    flips of a run that was killed before this point.

    Args:
        reports: The results of the run, which are already in the history.
        settings: The settings, with the quiet time in which no incident opens.
        doubt: The reason why the run has no verdicts, as a sentence; None for a reliable run.
        run_began: For a shard, the time at which the fleet was divided, since failures in all its shards are one
            outage.
    """
    now = timezone.now()
    quiet = in_quiet_time(now, settings)
    flipped = [report for report in reports if report.changed and report.server_id]
    for report in flipped:
        publish_flip(report)
    with transaction.atomic():
        # Before any row, as in every change of a server. It also makes the second of two shards see the incidents of
        # the first.
        AgentGeneration.lock()
        if doubt and not quiet:
            _open_doubt(reports, doubt, now)
        if quiet:
            pending_alerts.hold(flipped)
        else:
            telling = pending_alerts.take_due(reports, flipped)
            _open_outages(
                [report for report in telling if report.status_after == MCPServerStatus.UNHEALTHY], now, run_began
            )
            open_certificates(now)
    if any(report.ok for report in reports):
        close_ended([report.server_id for report in reports if report.ok], now)


def close_ended(server_ids: Collection[Any], now: datetime) -> None:
    """Close the incidents of these servers whose cause has ended."""
    # Most checks find no open incident, and the question of their causes is long.
    theirs = MCPServerIncident.objects.filter(closed__isnull=True, servers__in=server_ids).order_by()
    if pks := set(theirs.values_list("pk", flat=True)):
        for incident in _open_incidents().filter(pk__in=pks, lasting=False):
            _close(incident.pk, now)


def open_drifts(now: datetime, settings: AiOpsSettings) -> None:
    """Open an incident for each server with changed tools and without an open incident; one for all if they are many.

    Added and removed tools open no incident, because an agent sees the former as new and can't call the latter. An
    unreadable tool may be a changed approved tool.
    """
    if in_quiet_time(now, settings):
        return
    known = MCPServerIncident.objects.filter(closed__isnull=True, kind=MCPIncidentKindChoices.DRIFT)
    changed = MCPServerTool.objects.filter(_DRIFTED)
    rows = changed.exclude(server__in=known.values("servers__pk")).values_list("server", "server__name", "name")
    tools: dict[tuple[Any, str], list[str]] = defaultdict(list)
    for pk, server, name in rows.order_by("server__name", "name"):
        tools[pk, server].append(name)
    sentences = [(pk, server, _drift_sentence(server, names)) for (pk, server), names in tools.items()]
    _open_for(MCPIncidentKindChoices.DRIFT, "changed tools", DRIFT_REMEDY, now, sentences, lambda _: DRIFT_REASON)


def open_unlisted(now: datetime, settings: AiOpsSettings) -> None:
    """Open an incident for each server that no longer lists its tools; one for all if they are many.

    Agents may load tools that can't be compared with the approved ones.
    """
    if in_quiet_time(now, settings):
        return
    known = MCPServerIncident.objects.filter(closed__isnull=True, kind=MCPIncidentKindChoices.LISTING)
    unlisted = MCPServerToolSet.objects.filter(_UNLISTED).exclude(server__in=known.values("servers__pk"))
    # Servers that are down already have an incident.
    sets = unlisted.filter(server__status__name=MCPServerStatus.HEALTHY).order_by("server__name")
    rows = list(sets.values_list("server", "server__name", "reason", "message"))
    reasons = {pk: reason for pk, _, reason, _ in rows}
    sentences = [(pk, name, f"{name}: {message}") for pk, name, _, message in rows]
    _open_for(MCPIncidentKindChoices.LISTING, "tools not listed", LISTING_REMEDY, now, sentences, reasons.__getitem__)


def _drift_sentence(server: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - MESSAGES_QUOTED} more" if len(names) > MESSAGES_QUOTED else ""
    return f"{server} lists another description or schema for: {', '.join(names[:MESSAGES_QUOTED])}{more}."


def open_certificates(now: datetime) -> None:
    """Open an incident for each server whose TLS certificate expires within days, unless one is open."""
    known = MCPServerIncident.objects.filter(closed__isnull=True, kind=MCPIncidentKindChoices.CERTIFICATE)
    ending = MCPServerHealth.objects.filter(
        certificate_ends__lt=now + INCIDENT_DAYS * DAY, server__protocol=MCPProtocolChoices.HTTP
    ).exclude(server__status__name=MCPServerStatus.VULNERABLE)
    rows = ending.exclude(server__in=known.values("servers__pk")).order_by("certificate_ends", "server__name")
    sentences = [
        (pk, name, _certificate_sentence(name, ends, now))
        for pk, name, ends in rows.values_list("server", "server__name", "certificate_ends")
    ]
    _open_for(
        MCPIncidentKindChoices.CERTIFICATE,
        "TLS certificate ends",
        CERTIFICATE_REMEDY,
        now,
        sentences,
        lambda _: CERTIFICATE_REASON,
    )


def _open_for(
    kind: str,
    title: str,
    remedy: str,
    now: datetime,
    servers: Sequence[tuple[Any, str, str]],
    reason_of: Callable[[Any], str],
) -> None:
    """Open an incident for each server, given as id, name and sentence; one for all if they are many.

    `reason_of` returns the reason of the server with an id. For several servers the reason of the first is used.
    """
    for together in shared_incidents(servers):
        who = together[0][1][:200] if len(together) == 1 else f"{len(together)} servers"
        quoted = [sentence for _, _, sentence in together[:MESSAGES_QUOTED]]
        open_incident(
            MCPServerIncident(
                name=f"{who}: {title}",
                kind=kind,
                reason=reason_of(together[0][0]),
                message="\n".join([*quoted, remedy]),
                opened=now,
            ),
            [pk for pk, _, _ in together],
        )


def _certificate_sentence(server: str, ends: datetime, now: datetime) -> str:
    verb = "ends" if ends > now else "ended"
    return f"The TLS certificate of {server} {verb} on {ends.astimezone(UTC):%Y-%m-%d %H:%M} UTC."


def open_owed(now: datetime, settings: AiOpsSettings) -> int:
    """Open incidents for servers whose run was killed after their flip; return the number of servers."""
    if in_quiet_time(now, settings):
        return 0
    with transaction.atomic():
        AgentGeneration.lock()
        down = pending_alerts.take_owed(now)
        _open_outages(down, now)
    return len(down)


def _open_doubt(reports: Sequence[ServerReport], doubt: str, now: datetime) -> None:
    """Open the incident for inconclusive runs, unless it is already open."""
    if MCPServerIncident.objects.filter(closed__isnull=True, kind=MCPIncidentKindChoices.INCONCLUSIVE).exists():
        return
    concerned = [report for report in reports if report.inconclusive and not report.ok]
    open_incident(
        MCPServerIncident(
            name=f"Inconclusive: {len(concerned)} servers and the control fail together",
            kind=MCPIncidentKindChoices.INCONCLUSIVE,
            reason=Counter(report.reason or "" for report in concerned).most_common(1)[0][0],
            message=doubt,
            opened=now,
        ),
        [report.server_id for report in concerned],
    )


def review_incidents(now: datetime, hold: Hold) -> dict[str, int]:
    """Open incidents that a killed run did not open, close those that recovered, escalate those open for too long.

    An incident that can't be saved is logged with its traceback and counted, and does not stop the others.

    Returns:
        The counts.
    """
    settings = hold.settings
    escalate_after = timedelta(hours=settings.incident_escalation_hours)
    counts = {"total_checked": 0, "opened": 0, "auto_closed": 0, "escalated": 0, "errors": 0}
    with _failure_counted(counts, "Incidents of killed runs could not be opened"), transaction.atomic():
        hold.lock()
        counts["opened"] = open_owed(now, settings)
    incidents = list(_open_incidents())
    counts["total_checked"] = len(incidents)
    for incident in incidents:
        hold.confirm()
        about = _about(incident)
        with _failure_counted(counts, "%s could not be reviewed", incident, extra=about), transaction.atomic():
            hold.lock()
            if not incident.lasting:
                counts["auto_closed"] += _close(incident.pk, now)
            elif now - incident.opened >= escalate_after and not incident.quiet and not in_quiet_time(now, settings):
                counts["escalated"] += _escalate(incident.pk, now)
    return counts


@contextmanager
def _failure_counted(counts: dict[str, int], message: str, *args: object, **options: Any) -> Iterator[None]:
    """Log and count a failure, so that the other incidents are still reviewed."""
    try:
        yield
    except (SoftTimeLimitExceeded, LeaseLostError):
        raise
    except Exception:
        counts["errors"] += 1
        logger.exception(message, *args, **options)


def acknowledge(incident: MCPServerIncident, user: Any) -> None:
    """Acknowledge the incident for `user`. The first acknowledgement stays; a second one changes nothing.

    Raises:
        IncidentError: The incident is closed.
    """
    with transaction.atomic():
        row = MCPServerIncident.objects.select_for_update().get(pk=incident.pk)
        if row.closed:
            raise IncidentError(f"{row} is already closed, so it can't be acknowledged.")
        if not row.acknowledged:
            row.acknowledged, row.acknowledged_by = timezone.now(), user
            row.validated_save()
            publish_incident(TOPIC_ACKNOWLEDGED, row)
    incident.refresh_from_db()


def send_test_incident(user: Any) -> MCPServerIncident:
    """Open and close a test incident, which notifies every receiver of incidents."""
    now = timezone.now()
    incident = MCPServerIncident(
        name=f"Test by {printable(str(user), 100)}",
        kind=MCPIncidentKindChoices.TEST,
        reason="TEST",
        message="This is a test: nothing is wrong. Its receivers also get real incidents.",
        opened=now,
        closed=now,
    )
    open_incident(incident, ())
    return incident


def _open_outages(down: Sequence[ServerReport], now: datetime, run_began: datetime | None = None) -> None:
    """Open one incident for all of `down`, or one for each if they are too few for a common cause."""
    known = MCPServer.objects.filter(
        pk__in=[report.server_id for report in down],
        incidents__closed__isnull=True,
        incidents__kind=MCPIncidentKindChoices.OUTAGE,
    )
    already_open = {str(pk) for pk in known.values_list("pk", flat=True)}
    new = [report for report in down if report.server_id not in already_open]
    if new and run_began and (mass := _mass_outage_since(run_began)):
        _join(mass, new)
        return
    for together in shared_incidents(new):
        reasons = _reasons(together)
        who = together[0].server if len(together) == 1 else f"{len(together)} servers"
        quoted = [f"{report.server}: {report.message}" for report in together[:MESSAGES_QUOTED]]
        open_incident(
            MCPServerIncident(
                name=_outage_name(who, reasons),
                reason=reasons[0],
                message=together[0].message or "" if len(together) == 1 else "\n".join(quoted),
                opened=now,
            ),
            [report.server_id for report in together],
        )


def _mass_outage_since(run_began: datetime) -> MCPServerIncident | None:
    """Return the mass outage incident that another shard of the same run has opened."""
    incidents = MCPServerIncident.objects.filter(
        closed__isnull=True, kind=MCPIncidentKindChoices.OUTAGE, opened__gte=run_began
    )
    return incidents.annotate(size=Count("servers")).filter(size__gte=MASS_OUTAGE_SERVERS).order_by("opened").first()


def _join(incident: MCPServerIncident, reports: Sequence[ServerReport]) -> None:
    """Add servers to an open incident, without a new alert; the change log records it."""
    incident.servers.add(*MCPServer.objects.filter(pk__in=[report.server_id for report in reports]))
    named = incident.name.partition(": ")[2].split(", ")
    incident.name = _outage_name(f"{incident.servers.count()} servers", list(dict.fromkeys(named + _reasons(reports))))
    incident.validated_save()
    logger.warning("%s server(s) joined an incident: %s", len(reports), incident, extra=_about(incident))


def _reasons(reports: Sequence[ServerReport]) -> list[str]:
    """Return the reasons of the failures, the most frequent first."""
    return [reason for reason, _ in Counter(report.reason or "" for report in reports).most_common()]


def _outage_name(who: str, reasons: Sequence[str]) -> str:
    return f"{who}: {', '.join(reasons)}"[: MCPServerIncident._meta.get_field("name").max_length]


def in_quiet_time(now: datetime, settings: AiOpsSettings) -> bool:
    """Return whether it is quiet time, in which no incident opens."""
    return is_quiet(settings.quiet_time, timezone.localtime(now).time())


def open_incident(incident: MCPServerIncident, server_ids: Collection[Any]) -> None:
    """Save and publish a new incident of these servers, without servers that were deleted."""
    with transaction.atomic():
        incident.validated_save()
        incident.servers.set(MCPServer.objects.filter(pk__in=server_ids))
        publish_incident(TOPIC_OPENED, incident)
    logger.warning("Incident opened: %s", incident, extra=_about(incident))


def _open_incidents() -> QuerySet[MCPServerIncident]:
    """Return the open incidents, oldest first, annotated with two facts about their servers.

    `lasting` is true for an outage if a server is Unhealthy or flaps, for an inconclusive run if no server has had a
    conclusive check since, for changed tools if some are not approved, for unlisted tools if a server still does not
    list them, and for certificates if one still expires within days. `quiet` is true for an outage if all Unhealthy
    servers flap, so that no alert is due.
    """
    servers = MCPServer.objects.filter(incidents=OuterRef("pk"))
    unhealthy = Q(status__name=MCPServerStatus.UNHEALTHY)
    checked_since = servers.filter(health__ok__isnull=False, health__checked__gt=OuterRef("opened"))
    is_doubt = Q(kind=MCPIncidentKindChoices.INCONCLUSIVE)
    is_drift = Q(kind=MCPIncidentKindChoices.DRIFT)
    is_listing = Q(kind=MCPIncidentKindChoices.LISTING)
    unlisted = MCPServerToolSet.objects.filter(_UNLISTED, server__incidents=OuterRef("pk")).exclude(
        server__status__name=MCPServerStatus.VULNERABLE
    )
    is_certificate = Q(kind=MCPIncidentKindChoices.CERTIFICATE)
    ends_soon = servers.filter(health__certificate_ends__lt=timezone.now() + INCIDENT_DAYS * DAY)
    return (
        MCPServerIncident.objects.filter(closed__isnull=True)
        .annotate(
            lasting=Case(
                When(is_doubt, then=Exists(servers) & ~Exists(checked_since)),
                # The code that opens these incidents also closes them.
                When(kind__in=MCPIncidentKindChoices.OF_MAINTENANCE, then=Value(True)),
                When(is_drift, then=Exists(MCPServerTool.objects.filter(_DRIFTED, server__incidents=OuterRef("pk")))),
                When(is_listing, then=Exists(unlisted)),
                When(is_certificate, then=Exists(ends_soon.exclude(status__name=MCPServerStatus.VULNERABLE))),
                default=Exists(servers.filter(unhealthy | Q(health__flapping=True))),
            ),
            quiet=~is_drift
            & ~is_certificate
            & ~is_listing
            & Exists(servers.filter(health__flapping=True))
            & ~Exists(servers.filter(unhealthy).exclude(health__flapping=True)),
        )
        .order_by("opened")
    )


def _close(pk: Any, now: datetime) -> bool:
    """Close an incident, unless it is already closed or one of its servers has failed again."""
    with transaction.atomic():
        row = _open_incidents().filter(pk=pk, lasting=False).select_for_update(of=("self",)).first()
        if row is None:
            return False
        close_incident(row, now)
    return True


def close_incident(incident: MCPServerIncident, now: datetime) -> None:
    """Save and publish the end of an incident. Its row must be locked."""
    incident.closed = now
    incident.validated_save()
    publish_incident(TOPIC_CLOSED, incident)
    logger.info("Incident closed after %s: %s", incident.duration, incident, extra=_about(incident))


def _escalate(pk: Any, now: datetime) -> bool:
    """Escalate an incident, once."""
    with transaction.atomic():
        row = MCPServerIncident.objects.filter(pk=pk, closed=None, escalated=None).select_for_update().first()
        if row is None:
            return False
        row.escalated = now
        row.validated_save()
        publish_incident(TOPIC_ESCALATED, row)
    logger.warning("Incident open for %s, escalated: %s", row.duration, row, extra=_about(row))
    return True


def _about(incident: MCPServerIncident) -> dict[str, Any]:
    """Return the `extra` that links a log line to the incident."""
    return {"grouping": "incidents", "object": incident}
