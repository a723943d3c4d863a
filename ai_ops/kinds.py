"""The registry of the kinds of maintenance: their names, Jobs, default schedules and options.

A new kind is an entry in `ALL_KINDS`, a task in `ai_ops.celery_tasks` and a Job in `ai_ops.jobs`. Lists, filters, REST,
metrics, schedules and the settings read it from here. Models and settings import this module, so a validation of
options reads both through its `Asked`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ai_ops.exceptions import RunOptionsError
from ai_ops.logic.concealment import is_concealed
from ai_ops.logic.foreign_text import shown
from ai_ops.logic.globs import why_no_glob
from ai_ops.logic.savers import AUTO, OLDER
from ai_ops.logic.shards import Shard

CLEANUP, STORAGE, MOVES = "cleanup", "storage", "moves"
HEALTH, SERVER, INCIDENTS = "health", "server", "incidents"
ORPHANS, SUPERVISOR = "orphans", "supervisor"
ERASURE, SEARCH = "erasure", "search"

Options = dict[str, Any]


class Asked(Protocol):
    """Lookups that validate options against the settings and the database."""

    def confirm_cleanup_options(self, given: Options) -> None:
        """Raise ConfigurationError if `given` are not valid options of a cleanup."""

    def has_server(self, server: uuid.UUID) -> bool:
        """Return whether the user may view an MCP server with that id."""

    def policy_id(self, name_or_id: str) -> str:
        """Return the id of a retention policy; raise RunOptionsError if the user can view no policy of that name."""


def _unchanged(options: Options, _asked: Asked) -> Options:
    return options


def _cleanup_options(options: Options, asked: Asked) -> Options:
    _confirm_flag("dryrun", options)
    own = ("dryrun", "trial_policy")
    asked.confirm_cleanup_options({name: value for name, value in options.items() if name not in own})
    if "trial_policy" not in options:
        return options
    if not options.get("dryrun"):
        raise RunOptionsError("trial_policy is for dry runs: set dryrun to true, or enable the policy.")
    return options | {"trial_policy": asked.policy_id(str(options["trial_policy"]))}


def _cleanup_variables(options: Options) -> Options:
    variables = dict(options)
    if "trim_live_threads" in variables:
        # The Job's form has three choices, one of which is "as configured".
        variables["trim_live_threads"] = "yes" if variables["trim_live_threads"] else "no"
    return variables


def _move_options(options: Options, _asked: Asked) -> Options:
    if options.get("source", AUTO) not in (AUTO, *OLDER):
        raise RunOptionsError(f"source must be one of {', '.join((AUTO, *OLDER))}, not {shown(options['source'])}.")
    if not isinstance(options.get("pattern", "*"), str) or options.get("pattern") == "":
        raise RunOptionsError(f"pattern must be a glob such as user-42-*, not {shown(options['pattern'])}.")
    _confirm_flag("dryrun", options)
    return options


def _erasure_options(options: Options, _asked: Asked) -> Options:
    for name in ("thread_ids", "store_namespaces"):
        given = options.get(name, [])
        if not isinstance(given, list) or not all(isinstance(each, str) and each for each in given):
            raise RunOptionsError(f"{name} must be a list of texts, not {shown(given)}.")
        if any("\n" in each or "\r" in each or "\0" in each for each in given):
            raise RunOptionsError(f"{name} must have no line breaks: erase such a thread in a shell.")
        if any(map(is_concealed, given)):
            raise RunOptionsError(f"{name} has the SHA-256 of a name, which can't be erased: give the name.")
    if not isinstance(options.get("reason"), str) or not options["reason"].strip():
        raise RunOptionsError("An erasure needs a reason, which its record keeps.")
    if not isinstance(options.get("thread_pattern"), str | None) or options.get("thread_pattern") == "":
        raise RunOptionsError(f"thread_pattern must be a glob, not {shown(options['thread_pattern'])}.")
    if is_concealed(options.get("thread_pattern") or ""):
        raise RunOptionsError("thread_pattern is the SHA-256 of a pattern, which matches nothing: give the pattern.")
    for name in ("include_pinned", "dryrun"):
        _confirm_flag(name, options)
    if not any(options.get(name) for name in ("thread_ids", "thread_pattern", "store_namespaces")):
        raise RunOptionsError("There is nothing to erase: give thread_ids or a thread_pattern.")
    return options


def _erasure_variables(options: Options) -> Options:
    lists = {name: "\n".join(options[name]) for name in ("thread_ids", "store_namespaces") if name in options}
    return options | lists


def _search_options(options: Options, _asked: Asked) -> Options:
    pattern = options.get("pattern")
    if not isinstance(pattern, str):
        raise RunOptionsError(f"A search needs the option pattern, a glob such as user-42-*, not {shown(pattern)}.")
    if reason := why_no_glob(pattern):
        raise RunOptionsError(f"pattern is not a valid glob. {reason}")
    return options


def _health_options(options: Options, _asked: Asked) -> Options:
    shard = options.get("shard")
    if not isinstance(shard, str | None):
        raise RunOptionsError(f"shard must be a text, not {shown(shard)}: omit it; a run sets it for its parts.")
    try:
        if shard is not None:
            Shard.parse(shard)
    except ValueError as error:
        raise RunOptionsError(f"{error}: omit it; a run sets it for its parts.") from None
    return options


def _server_options(options: Options, asked: Asked) -> Options:
    try:
        key = uuid.UUID(str(options.get("server", "")))
    except ValueError:
        raise RunOptionsError("A run of kind server needs the option server: give the id of an MCP server.") from None
    if not asked.has_server(key):
        raise RunOptionsError(f"There is no MCP server with the id {key}: it may have been deleted.")
    return {"server": str(key)}


def _confirm_flag(name: str, options: Options) -> None:
    if not isinstance(options.get(name, False), bool):
        raise RunOptionsError(f"{name} must be true or false, not {shown(options[name])}.")


@dataclass(frozen=True)
class Kind:
    """A kind of maintenance.

    Attributes:
        name: Its name in options, REST and the database.
        label: Its name on pages.
        job: Class path of its Job; None for work that is a part of other runs.
        schedule: Name of its schedule in a new installation; None for a kind without a default schedule.
        crontab: Default crontab of its schedules, five fields; None if each schedule must give one.
        enabled: Whether a new installation enables its Job although it has no schedule.
        variable: The Job's variable that only this kind sets, if several kinds share a Job.
        options: Names of its own options.
        has_cleanup_options: Whether runs accept the cleanup options of the settings.
        checked: Returns the validated options for the record; raises ConfigurationError or RunOptionsError.
        variables: Returns the Job's variables for recorded options.
    """

    name: str
    label: str
    job: str | None = None
    schedule: str | None = None
    crontab: str | None = None
    enabled: bool = False
    variable: str | None = None
    options: frozenset[str] = frozenset()
    has_cleanup_options: bool = False
    checked: Callable[[Options, Asked], Options] = _unchanged
    variables: Callable[[Options], Options] = dict


ALL_KINDS = (
    Kind(
        CLEANUP,
        "Checkpoint cleanup",
        job="ai_ops.jobs.checkpoint_cleanup.CleanupCheckpointsJob",
        schedule="AI Ops: clean up old checkpoints",
        # After 3:00, because a change of clocks between 1:00 and 3:00 would skip or repeat the run. Not on the hour,
        # when backups and other nightly jobs start.
        crontab="17 3 * * *",
        options=frozenset({"dryrun", "trial_policy"}),
        has_cleanup_options=True,
        checked=_cleanup_options,
        variables=_cleanup_variables,
    ),
    Kind(
        STORAGE,
        "Storage sampling",
        job="ai_ops.jobs.checkpoint_storage.SampleCheckpointStorageJob",
        schedule="AI Ops: sample the checkpoint storage",
        # Hourly: a million keys take one worker twenty seconds. Half an hour after the cleanup, so that the page shows
        # its result.
        crontab="47 * * * *",
    ),
    Kind(
        HEALTH,
        "MCP health check",
        job="ai_ops.jobs.mcp_health_check.MCPServerHealthCheckJob",
        schedule="AI Ops: check MCP servers",
        crontab="*/10 * * * *",
        # Each part of a divided run has a shard, which a redrive keeps.
        options=frozenset({"shard"}),
        checked=_health_options,
    ),
    Kind(
        SERVER,
        "Check of one MCP server",
        job="ai_ops.jobs.mcp_health_check.MCPServerHealthCheckJob",
        crontab="*/10 * * * *",
        variable="server",
        options=frozenset({"server"}),
        checked=_server_options,
    ),
    Kind(
        INCIDENTS,
        "Incident review",
        job="ai_ops.jobs.mcp_incidents.CloseResolvedIncidentsJob",
        schedule="AI Ops: review MCP incidents",
        crontab="*/5 * * * *",
    ),
    # The supervisor starts these runs between two cleanups.
    Kind(ORPHANS, "Orphan collection"),
    Kind(
        MOVES,
        "Move of conversations",
        job="ai_ops.jobs.conversation_moves.MoveConversationsJob",
        options=frozenset({"source", "pattern", "dryrun"}),
        checked=_move_options,
    ),
    Kind(
        ERASURE,
        "Erasure of conversations",
        job="ai_ops.jobs.erasure.EraseConversationsJob",
        options=frozenset({"thread_ids", "thread_pattern", "store_namespaces", "reason", "include_pinned", "dryrun"}),
        checked=_erasure_options,
        variables=_erasure_variables,
    ),
    Kind(
        SEARCH,
        "Search for threads",
        job="ai_ops.jobs.thread_search.FindThreadsJob",
        # A button on the page "Threads" starts it, and it changes nothing.
        enabled=True,
        options=frozenset({"pattern"}),
        checked=_search_options,
    ),
    Kind(
        SUPERVISOR,
        "Supervision",
        job="ai_ops.jobs.supervisor.SuperviseRunsJob",
        schedule="AI Ops: supervise maintenance runs",
        # A pass without work takes a fraction of a second, and a dead run waits at most a minute.
        crontab="* * * * *",
    ),
)

# The kinds that a request may name, by name.
KINDS = {kind.name: kind for kind in ALL_KINDS if kind.job}


@dataclass(frozen=True)
class DefaultSchedule:
    """The schedule of a kind in a new installation.

    Attributes:
        class_path: Class path of its Job.
        name: Name of the schedule.
        crontab: Five fields, minute to day of week.
    """

    class_path: str
    name: str
    crontab: str


DEFAULT_SCHEDULES = {
    kind.name: DefaultSchedule(kind.job, kind.schedule, kind.crontab)
    for kind in ALL_KINDS
    if kind.job and kind.schedule and kind.crontab
}


def class_path_of(job: str) -> str:
    """Return the class path of the Job of a kind; return any other text unchanged."""
    kind = KINDS.get(job)
    return kind.job if kind and kind.job else job


def kind_of_job(class_path: str, variables: Options) -> str | None:
    """Return the kind of a Job with these variables; None for a Job of another app."""
    of_job = [kind for kind in KINDS.values() if kind.job == class_path]
    specific = [kind for kind in of_job if kind.variable and variables.get(kind.variable)]
    return next((kind.name for kind in (*specific, *of_job)), None)
