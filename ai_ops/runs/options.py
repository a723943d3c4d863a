"""Options of runs: validated for storage, and converted to the variables of a Job."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ai_ops.config import AiOpsSettings, CleanupOptions, validated_time_limit
from ai_ops.exceptions import ConfigurationError, RunOptionsError
from ai_ops.kinds import KINDS, Kind, Options
from ai_ops.logic.arguments import is_storable
from ai_ops.logic.foreign_text import shown
from ai_ops.models import MCPServer, RetentionPolicy

# An option of all kinds: seconds after which the run stops.
TIME_LIMIT = "time_limit"
# Maximum number of characters of a text in a Job's form.
MAX_TEXT = 255


@dataclass(frozen=True)
class _Asked:
    """Lookups that validate options for one user.

    Attributes:
        user: The user whose permissions count; None for all permissions.
    """

    user: Any

    def confirm_cleanup_options(self, given: Options) -> None:
        AiOpsSettings.load().cleanup_options(**given)

    def has_server(self, server: uuid.UUID) -> bool:
        servers = MCPServer.objects.all() if self.user is None else MCPServer.objects.restrict(self.user, "view")
        return bool(servers.filter(pk=server).exists())

    def policy_id(self, name_or_id: str) -> str:
        policy = RetentionPolicy.find(name_or_id)
        visible = RetentionPolicy.objects.restrict(self.user, "view") if self.user is not None else None
        if visible is not None and not visible.filter(pk=policy.pk).exists():
            raise RunOptionsError(f"There is no retention policy {shown(name_or_id)}: give its name or its id.")
        return str(policy.pk)


def option_names(kind: Kind) -> frozenset[str]:
    """Return the names of a kind's own options, without the time limit."""
    if kind.has_cleanup_options:
        return kind.options | {field.name for field in fields(CleanupOptions)}
    return kind.options


def checked_options(kind: str, options: Mapping[str, Any] | None, user: Any) -> Options:
    """Validate the options of a run; return them as plain values and ids for the record.

    Args:
        kind: One of `ai_ops.kinds.KINDS`.
        options: Options by name. None means that the run uses the configured value.
        user: The user of the request; objects that this user may not view count as missing. None for all permissions.

    Raises:
        RunOptionsError: There is no such kind or option, or a value is not valid.
    """
    known = KINDS.get(kind) if isinstance(kind, str) else None
    if known is None:
        what = shown(kind) if isinstance(kind, str) else f"that is {shown(kind)}"
        raise RunOptionsError(f"There is no kind of run {what}: give one of {', '.join(KINDS)}.")
    options = {} if options is None else options
    if not isinstance(options, Mapping):
        raise RunOptionsError("The options must be an object with a name and a value for each.")
    given = {name: value for name, value in options.items() if value is not None}
    allowed = option_names(known) | {TIME_LIMIT}
    if unknown := sorted(str(name) for name in set(given) - allowed):
        raise RunOptionsError(
            f"A run of kind {kind} has no option {', '.join(unknown)}: it has {', '.join(sorted(allowed))}."
        )
    for name, value in given.items():
        if isinstance(value, str):
            checked_text(name, value)
    try:
        if TIME_LIMIT in given:
            validated_time_limit(given[TIME_LIMIT])
        own = known.checked({name: value for name, value in given.items() if name != TIME_LIMIT}, _Asked(user))
    except ConfigurationError as error:
        raise RunOptionsError(str(error)) from error
    return own | {name: value for name, value in given.items() if name == TIME_LIMIT}


def checked_text(name: str, text: str) -> str:
    """Return `text` if the database can store it; raise RunOptionsError if it is too long or can't be stored."""
    if len(text) > MAX_TEXT or not is_storable(text):
        raise RunOptionsError(
            f"{name} must be a text of at most {MAX_TEXT} characters, without a NUL or an unpaired surrogate."
        )
    return text


def job_variables(kind: str, options: Mapping[str, Any]) -> Options:
    """Return the Job variables for recorded options."""
    return KINDS[kind].variables({name: value for name, value in options.items() if name != TIME_LIMIT})
