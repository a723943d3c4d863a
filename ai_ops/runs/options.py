"""Which runs can be asked for: the Job of each kind, its options, and how they become the Job's variables."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from ai_ops.choices import MaintenanceKindChoices
from ai_ops.config import AiOpsSettings, CleanupOptions, validated_time_limit
from ai_ops.exceptions import ConfigurationError, RunOptionsError
from ai_ops.logic.foreign_text import shown
from ai_ops.logic.savers import AUTO, OLDER
from ai_ops.logic.shards import Shard
from ai_ops.models import MCPServer, RetentionPolicy

Options = dict[str, Any]

# Of all kinds: seconds after which this run stops.
TIME_LIMIT = "time_limit"
# What a Job's form takes for a text; PostgreSQL keeps no NUL in one.
MAX_TEXT = 255


@dataclass(frozen=True)
class RunKind:
    """A kind of run that has a Job.

    Attributes:
        job: The Job's name in `ai_ops.schedules.DEFAULT_SCHEDULES`.
        options: Names of its own options.
        checked: Returns the options as they are stored; raises ConfigurationError or RunOptionsError.
        variables: The Job's variables for stored options.
    """

    job: str
    options: frozenset[str] = frozenset()
    checked: Callable[[Options, Any], Options] = lambda options, user: options
    variables: Callable[[Options], Options] = dict


def checked_options(kind: str, options: Mapping[str, Any] | None, user: Any) -> Options:
    """The options of a run as they are stored with it: plain values and ids.

    Args:
        kind: One of KINDS.
        options: By name; those that are None are left out, and taken from the settings when it runs.
        user: Who asks; what they may not see is not there for them. None for who may see everything.

    Raises:
        RunOptionsError: There is no such kind or option, or a value is not valid.
    """
    known = KINDS.get(kind) if isinstance(kind, str) else None
    if known is None:
        what = shown(kind) if isinstance(kind, str) else f"that is {shown(kind)}"
        raise RunOptionsError(f"There is no kind of run {what}: give one of {', '.join(KINDS)}.")
    if not isinstance(options or {}, Mapping):
        raise RunOptionsError("The options must be an object with a name and a value for each.")
    given = {name: value for name, value in (options or {}).items() if value is not None}
    allowed = known.options | {TIME_LIMIT}
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
        own = known.checked({name: value for name, value in given.items() if name != TIME_LIMIT}, user)
    except ConfigurationError as error:
        raise RunOptionsError(str(error)) from error
    return own | {name: value for name, value in given.items() if name == TIME_LIMIT}


def checked_text(name: str, text: str) -> str:
    """Return `text` if the database can keep it; raise RunOptionsError where it is too long, or has a NUL."""
    if len(text) > MAX_TEXT or "\0" in text:
        raise RunOptionsError(f"{name} must be a text of at most {MAX_TEXT} characters, none of them NUL.")
    return text


def job_variables(kind: str, options: Mapping[str, Any]) -> Options:
    """The variables with which the Job of that kind does a run with these stored options."""
    return KINDS[kind].variables({name: value for name, value in options.items() if name != TIME_LIMIT})


def _checked_cleanup(options: Options, user: Any) -> Options:
    if not isinstance(options.get("dryrun", False), bool):
        raise RunOptionsError(f"dryrun must be true or false, not {shown(options['dryrun'])}.")
    own = {name: value for name, value in options.items() if name not in ("dryrun", "trial_policy")}
    AiOpsSettings.load().cleanup_options(**own)
    if "trial_policy" in options:
        if not options.get("dryrun"):
            raise RunOptionsError("trial_policy is for dry runs: set dryrun to true, or enable the policy.")
        options = options | {"trial_policy": str(_visible_policy(str(options["trial_policy"]), user).pk)}
    return options


def _visible_policy(name_or_id: str, user: Any) -> RetentionPolicy:
    policy = RetentionPolicy.find(name_or_id)
    if user is not None and not RetentionPolicy.objects.restrict(user, "view").filter(pk=policy.pk).exists():
        raise RunOptionsError(f"There is no retention policy {shown(name_or_id)}: give its name or its id.")
    return policy


def _cleanup_variables(options: Options) -> Options:
    variables = dict(options)
    if "trim_live_threads" in variables:
        # The Job's form has three answers, one of which is "as configured".
        variables["trim_live_threads"] = "yes" if variables["trim_live_threads"] else "no"
    return variables


def _checked_move(options: Options, _user: Any) -> Options:
    if options.get("source", AUTO) not in (AUTO, *OLDER):
        raise RunOptionsError(f"source must be one of {', '.join((AUTO, *OLDER))}, not {shown(options['source'])}.")
    if not isinstance(options.get("pattern", "*"), str) or options.get("pattern") == "":
        raise RunOptionsError(f"pattern must be a glob such as user-42-*, not {shown(options['pattern'])}.")
    if not isinstance(options.get("dryrun", False), bool):
        raise RunOptionsError(f"dryrun must be true or false, not {shown(options['dryrun'])}.")
    return options


def _checked_health(options: Options, _user: Any) -> Options:
    shard = options.get("shard")
    if not isinstance(shard, str | None):
        raise RunOptionsError(f"shard must be a text, not {shown(shard)}: leave it out; a run makes shards by itself.")
    try:
        if shard is not None:
            Shard.parse(shard)
    except ValueError as error:
        raise RunOptionsError(f"{error}: leave it out; a run makes shards by itself.") from None
    return options


def _checked_server(options: Options, user: Any) -> Options:
    try:
        key = uuid.UUID(str(options.get("server", "")))
    except ValueError:
        raise RunOptionsError("A run of kind server needs the option server: give the id of an MCP server.") from None
    servers = MCPServer.objects.all() if user is None else MCPServer.objects.restrict(user, "view")
    if not servers.filter(pk=key).exists():
        raise RunOptionsError(f"There is no MCP server with the id {key}: it may have been deleted.")
    return {"server": str(key)}


KINDS = {
    MaintenanceKindChoices.CLEANUP: RunKind(
        "cleanup",
        frozenset(field.name for field in fields(CleanupOptions)) | {"dryrun", "trial_policy"},
        _checked_cleanup,
        _cleanup_variables,
    ),
    MaintenanceKindChoices.STORAGE: RunKind("storage"),
    # It has no schedule of its own: one that is wanted is given a name.
    MaintenanceKindChoices.MOVES: RunKind(
        "ai_ops.jobs.conversation_moves.MoveConversationsJob", frozenset({"source", "pattern", "dryrun"}), _checked_move
    ),
    # The runs of a fleet that was divided have a shard each, with which they are redriven.
    MaintenanceKindChoices.HEALTH: RunKind("health", frozenset({"shard"}), _checked_health),
    MaintenanceKindChoices.SERVER: RunKind("health", frozenset({"server"}), _checked_server),
    MaintenanceKindChoices.INCIDENTS: RunKind("incidents"),
    MaintenanceKindChoices.SUPERVISOR: RunKind("supervisor"),
}
