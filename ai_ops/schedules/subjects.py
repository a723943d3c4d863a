"""The objects that schedules name in their variables, such as the MCP server to check. They may be deleted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Model
from nautobot.apps.utils import is_uuid
from nautobot.extras.models import ScheduledJob

from ai_ops.models import MCPServer, RetentionPolicy


@dataclass(frozen=True)
class Subject:
    """A variable of a Job that names an object.

    Attributes:
        model: The model of the object.
        noun: The noun for the object in a sentence.
        verb: The verb for the action of the schedule, such as "checks".
    """

    model: type[Model]
    noun: str
    verb: str


# The subjects by variable. If its subject is deleted, each run of a schedule fails.
SUBJECTS = {
    "server": Subject(MCPServer, "MCP server", "checks"),
    "trial_policy": Subject(RetentionPolicy, "retention policy", "tries"),
}


@dataclass(frozen=True)
class Missing:
    """A subject that a schedule names and that does not exist.

    Attributes:
        subject: The kind of the subject.
        key: Its id, or the text in place of an id.
    """

    subject: Subject
    key: str


def missing_subjects(schedules: Iterable[ScheduledJob]) -> dict[Any, Missing]:
    """Return the subjects of `schedules` that do not exist, by the id of the schedule; one query for each variable."""
    rows = list(schedules)
    missing: dict[Any, Missing] = {}
    for variable, subject in SUBJECTS.items():
        # An id that was written by hand may have no hyphens, or may not be an id.
        named = {row.pk: _key(row.kwargs[variable]) for row in rows if row.kwargs.get(variable)}
        ids = {key for key in named.values() if is_uuid(key)}
        found = subject.model.objects.filter(pk__in=ids).values_list("pk", flat=True) if ids else ()
        known = {str(pk) for pk in found}
        missing |= {pk: Missing(subject, key) for pk, key in named.items() if key not in known}
    return missing


def _key(value: Any) -> str:
    text = str(value)
    return str(UUID(text)) if is_uuid(text) else text
