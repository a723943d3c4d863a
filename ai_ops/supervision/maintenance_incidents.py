"""Incidents of the maintenance itself: dead letters, late schedules, failed cleanups.

At most one incident of each kind is open. It opens with the first problem and closes when no problem is left, so that a
night of failures is one message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction

from ai_ops.choices import MaintenanceKindChoices, MCPIncidentKindChoices, RunStateChoices
from ai_ops.config import AiOpsSettings
from ai_ops.mcp.incidents import close_incident, in_quiet_time, open_incident
from ai_ops.models import MaintenanceRun, MCPServerIncident
from ai_ops.runs.dead_letters import dead_letters
from ai_ops.schedules.status import statuses_of

QUOTED = 5
ERROR_CHARACTERS = 300


@dataclass(frozen=True)
class Trouble:
    """The subject of incidents of one kind.

    Attributes:
        title: Name of the incident, with the number of objects.
        reason: A word, like the reasons of servers.
        sentences: The first few problems.
        remedy: The advice.
    """

    title: str
    reason: str
    sentences: tuple[str, ...]
    remedy: str


def follow_maintenance(now: datetime, settings: AiOpsSettings) -> tuple[int, int]:
    """Open an incident for each present problem without one, and close those whose problem is solved.

    Returns:
        The numbers of opened and closed incidents.
    """
    opened = closed = 0
    for kind, look in LOOKS.items():
        trouble = look(now)
        with transaction.atomic():
            incidents = MCPServerIncident.objects.filter(kind=kind, closed__isnull=True)
            known = incidents.select_for_update().first()
            if known is not None and trouble is None:
                close_incident(known, now)
                closed += 1
            elif known is None and trouble is not None and not in_quiet_time(now, settings):
                message = "\n".join([*trouble.sentences, trouble.remedy])
                row = MCPServerIncident(
                    name=trouble.title, kind=kind, reason=trouble.reason, message=message, opened=now
                )
                open_incident(row, ())
                opened += 1
    return opened, closed


def _dead_letters(_: datetime) -> Trouble | None:
    waiting = dead_letters(MaintenanceRun.objects.all())
    count = waiting.count()
    sentences = tuple(f"{run.name}: {run.error[:ERROR_CHARACTERS]}" for run in waiting[:QUOTED])
    title = f"{count} run{'s' * (count != 1)} gave up"
    return Trouble(title, "DEAD", sentences, "Redrive or discard each: AI Ops > Dead letters.") if count else None


def _late_schedules(now: datetime) -> Trouble | None:
    late = [each for each in statuses_of(now=now, ask_workers=False) if each.late]
    sentences = tuple(f"{each.name}: {each.why}" for each in late[:QUOTED])
    title = f"{len(late)} schedule{'s are' if len(late) != 1 else ' is'} late"
    return Trouble(title, "LATE", sentences, "See AI Ops > Schedules.") if late else None


def _failed_cleanup(_: datetime) -> Trouble | None:
    # A run that was skipped or is running does not count.
    ended = MaintenanceRun.objects.filter(kind=MaintenanceKindChoices.CLEANUP, state__in=RunStateChoices.FINAL)
    last = ended.exclude(state=RunStateChoices.SKIPPED).order_by("-created").first()
    if last is None or last.state != RunStateChoices.FAILED:
        return None
    sentences = (f"{last.name}: {last.error[:ERROR_CHARACTERS]}",)
    return Trouble("The last checkpoint cleanup failed", "FAILED", sentences, "See its page under AI Ops > Runs.")


LOOKS: Mapping[str, Callable[[datetime], Trouble | None]] = {
    MCPIncidentKindChoices.DEAD_LETTERS: _dead_letters,
    MCPIncidentKindChoices.SCHEDULES: _late_schedules,
    MCPIncidentKindChoices.CLEANUP: _failed_cleanup,
}
