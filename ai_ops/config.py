"""The app's settings, read and validated once per run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from django.conf import settings

from ai_ops.choices import MaintenanceKindChoices
from ai_ops.exceptions import ConfigurationError
from ai_ops.logic.foreign_text import shown
from ai_ops.logic.globs import why_no_glob
from ai_ops.logic.limits import CHECK_TIMEOUT_SECONDS, PROBE_CONCURRENCY
from ai_ops.logic.quiet_time import EXAMPLE, is_span
from ai_ops.logic.savers import AUTO, CLASSES, DEFAULT_PREFIX, is_prefix

# A run with a thousand dead servers takes fifteen times this time.
MAX_CHECK_TIMEOUT = 60
# Each takes a file descriptor, and by default a process has 1,024 of them.
MAX_PROBE_CONCURRENCY = 200
# The folders in which Linux distributions keep certificates, and in which administrators put their own.
DEFAULT_CA_DIRECTORIES = (
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/opt/nautobot",
)
MAX_SHARD_SIZE = 1_000_000
MAX_ESCALATION_HOURS = 8760  # a year
MAX_GUARD_DAYS = 365
# The forms in which records of erasures keep thread ids.
PLAIN, SHA256 = "plain", "sha256"
MAX_TOOL_CHECK_INTERVAL = 10_080  # minutes: a week
MAX_RETENTION_DAYS = 3650  # ten years; a larger number is probably a typing error
MIN_RETENTION_DAYS = 1 / 24  # an hour, as long as an orphan's grace
# A shorter run could not even acquire its lease. No run should take longer than a day.
MIN_TIME_LIMIT, MAX_TIME_LIMIT = 10, 86_400

Rule = Callable[[str, Any], None]


def _setting(default: Any, *rules: Rule) -> Any:
    """Return a field with its default and the rules for its value, applied in this order."""
    made = {"default_factory": default} if callable(default) else {"default": default}
    return field(**made, metadata={"rules": rules})


def _apply_rules(options: Any) -> None:
    """Raise ConfigurationError for the first value that breaks a rule of its field."""
    for each in fields(options):
        for rule in each.metadata["rules"]:
            rule(each.name, getattr(options, each.name))


def _whole(highest: int, lowest: int = 1) -> Rule:
    def check(name: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise ConfigurationError(f"{name} must be a whole number from {lowest} to {highest}, not {shown(value)}.")

    return check


def _or(also: Any, rule: Rule) -> Rule:
    """Allow one more value besides a rule; True and False are not numbers."""

    def check(name: str, value: Any) -> None:
        if value != also or isinstance(value, bool):
            rule(name, value)

    return check


def _such_as(allowed: Callable[[Any], bool], what: str) -> Rule:
    """Accept a value for which `allowed` is true; `what` names it in the error."""

    def check(name: str, value: Any) -> None:
        if not allowed(value):
            raise ConfigurationError(f"{name} must be {what}, not {shown(value)}.")

    return check


def _one_of(*allowed: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in allowed


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("/")


def _are_paths(value: Any) -> bool:
    return isinstance(value, Collection) and not isinstance(value, str) and all(map(_is_path, value))


def validated_retention_days(value: object, name: str = "retention_days") -> float:
    """Return `value` if it is a valid retention, a number of days from 1/24 to 3650.

    Raises:
        ConfigurationError: The value is invalid, such as True or "30".
    """
    # An hour, divided by 24 and rounded to five digits, is an hour.
    if not _is_number(value) or not MIN_RETENTION_DAYS - 1e-5 <= value <= MAX_RETENTION_DAYS:  # type: ignore[operator]
        raise ConfigurationError(
            f"{name} must be a number of days from 1/24, which is an hour, to {MAX_RETENTION_DAYS}, not {shown(value)}."
        )
    return value  # type: ignore[return-value]


def validated_time_limit(value: object, name: str = "time_limit") -> int:
    """Return `value` if it is a valid time limit, a whole number of seconds from 10 to 86400.

    Raises:
        ConfigurationError: The value is invalid.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not MIN_TIME_LIMIT <= value <= MAX_TIME_LIMIT:
        raise ConfigurationError(
            f"{name} must be a whole number of seconds from {MIN_TIME_LIMIT} to {MAX_TIME_LIMIT}, not {shown(value)}."
        )
    return value


def _retention(name: str, value: Any) -> None:
    validated_retention_days(value, name)


def _time_limits(name: str, value: Any) -> None:
    kinds = MaintenanceKindChoices.values()
    if not isinstance(value, Mapping) or set(value) - set(kinds):
        raise ConfigurationError(
            f"{name} must give seconds for kinds of runs ({', '.join(kinds)}), not {shown(value)}."
        )
    for kind, seconds in value.items():
        validated_time_limit(seconds, f"The time limit of {kind}")


def _glob(name: str, value: Any) -> None:
    if not isinstance(value, str) or value == "":
        raise ConfigurationError(
            f"{name} must be a glob such as user-42-*, not {shown(value)}: omit it to clean up all threads."
        )
    if reason := why_no_glob(value):
        raise ConfigurationError(f"{name} is not a valid glob. {reason}")


def _control(name: str, value: Any) -> None:
    if not isinstance(value, str) or not value.startswith(("http://", "https://")):
        raise ConfigurationError(f"{name} must begin with http:// or https://, not be {shown(value)}.")


_SAVERS = (AUTO, *CLASSES)
_FLAG = _such_as(_is_flag, "True or False")
_PREFIX = _such_as(lambda value: isinstance(value, str) and value != "", 'a text such as "checkpoint"')


@dataclass(frozen=True)
class CleanupOptions:
    """The options of the checkpoint cleanup, under the same names in the function, the Job and the settings.

    Attributes:
        retention_days: Age in days after which a checkpoint may be deleted, from an hour (1/24) to 3650.
        pending_retention_days: Retention of threads that wait for a user's answer; None for the value of
            `retention_days`.
        thread_pattern: A glob over thread ids, such as ``user-42-*``; None for all threads.
        trim_live_threads: Whether old checkpoints of live threads are deleted too.
        keep_last: Checkpoints that each namespace of a live thread keeps, 1 to 10000.
        memory_limit_mb: Memory of the checkpoint Redis, in MiB, over which `memory_retention_days` applies.
        memory_retention_days: The shorter retention, in days, for a Redis over its limit.
        max_deletions: Keys after which a run stops; None for no limit.

    Raises:
        ConfigurationError: A value is out of its range or contradicts another.
    """

    retention_days: float = _setting(30, _retention)
    pending_retention_days: float | None = _setting(None, _or(None, _retention))
    thread_pattern: str | None = _setting(None, _or(None, _glob))
    trim_live_threads: bool = _setting(True, _such_as(_is_flag, "true or false"))
    keep_last: int = _setting(1, _whole(10_000))
    memory_limit_mb: int | None = _setting(None, _or(None, _whole(10**12)))
    memory_retention_days: float | None = _setting(None, _or(None, _retention))
    max_deletions: int | None = _setting(None, _or(None, _whole(10**12)))

    def __post_init__(self) -> None:
        _apply_rules(self)
        if (self.memory_limit_mb is None) != (self.memory_retention_days is None):
            raise ConfigurationError("memory_limit_mb and memory_retention_days work together: set both or neither.")


@dataclass(frozen=True)
class AiOpsSettings(CleanupOptions):
    """The values of ``PLUGINS_CONFIG["ai_ops"]``.

    Attributes:
        checkpoint_prefix: Prefix of RedisSaver's keys, its ``checkpoint_prefix``.
        checkpoint_write_prefix: Prefix of RedisSaver's keys of writes, its ``checkpoint_write_prefix``.
        compact_prefix: Prefix of CompactRedisSaver's keys, its ``prefix``.
        checkpoint_saver: The saver that agents get: ``compact``, ``redis`` or ``valkey``; with ``auto`` the saver that
            has conversations in the database, ``compact`` if there are none.
        provision_schedules: Whether a new installation gets the default schedules.
        check_timeout: Seconds for all of one probe of an MCP server, and for agents to load its tools, wall clock,
            1 to 60.
        allow_loopback: Whether health checks and agents may connect to MCP servers on their own machine.
        ca_file: Path of a PEM file with the CAs to trust for MCP servers without a CA file; empty for the default CAs.
        ca_directories: Folders that may contain the CA files of servers.
        probe_concurrency: Number of MCP servers that each of at most four threads probes at the same time, 1 to 200.
        health_check_shard_size: Maximum number of servers that one run of the health check Job checks; 0 for no limit.
        check_history_days: Days for which each health check is kept, 1 to 3650.
        flap_low_percent: Share of changes below which a server stops flapping, 0 to flap_high_percent.
        flap_high_percent: Share of changes above which a server starts flapping, up to 100.
        mass_failure_percent: Share of Healthy servers whose new failures make a run suspect its own network; 0 for
            half.
        control_url: Address of the control, an HTTP server that answers as long as this network works.
        tool_check_interval_minutes: Minutes between two listings of a server's tools, 1 to 10080; 0 for never.
        prefix_tool_names: Whether the name that agents see begins with the server's name for every tool; if false, only
            for tools whose name is taken.
        quiet_time: Hours of the day, in Nautobot's time zone, during which no incident is opened or escalated, such as
            ``22:00-06:00``. Problems that remain are reported afterwards. Empty for none.
        incident_escalation_hours: Hours after which an open incident is escalated, 1 to 8760.
        lease_seconds: Seconds without a heartbeat after which another run may take over the lease, 3 to 600.
        max_attempts: Number of attempts after which a run that fails because of the infrastructure is dead, 1 to 20.
        run_history_days: Days for which finished runs are kept, 1 to 3650.
        erasure_guard_days: Days for which late writes to erased threads are deleted, 1 to 365.
        erasure_ids: The form in which records of erasures keep thread ids: ``plain`` or ``sha256``.
        time_limits: Seconds after which a run stops, 10 to 86400, by kind. Other kinds have the time limit of their
            Job.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    checkpoint_prefix: str = _setting("checkpoint", _PREFIX)
    checkpoint_write_prefix: str = _setting("checkpoint_write", _PREFIX)
    compact_prefix: str = _setting(DEFAULT_PREFIX)
    checkpoint_saver: str = _setting(AUTO, _such_as(_one_of(*_SAVERS), f"one of {', '.join(_SAVERS)}"))
    provision_schedules: bool = _setting(True, _FLAG)
    check_timeout: float = _setting(
        CHECK_TIMEOUT_SECONDS,
        _such_as(
            lambda value: _is_number(value) and 1 <= value <= MAX_CHECK_TIMEOUT,
            f"a number of seconds from 1 to {MAX_CHECK_TIMEOUT}",
        ),
    )
    allow_loopback: bool = _setting(False, _FLAG)
    ca_file: str = _setting("", _or("", _such_as(_is_path, "the absolute path of a PEM file")))
    ca_directories: Sequence[str] = _setting(
        DEFAULT_CA_DIRECTORIES, _such_as(_are_paths, "a list of absolute paths of folders")
    )
    probe_concurrency: int = _setting(PROBE_CONCURRENCY, _whole(MAX_PROBE_CONCURRENCY))
    health_check_shard_size: int = _setting(0, _or(0, _whole(MAX_SHARD_SIZE)))
    check_history_days: int = _setting(30, _whole(MAX_RETENTION_DAYS))
    tool_check_interval_minutes: int = _setting(60, _or(0, _whole(MAX_TOOL_CHECK_INTERVAL)))
    prefix_tool_names: bool = _setting(False, _FLAG)
    quiet_time: str = _setting("", _or("", _such_as(is_span, f"two times of the day such as {EXAMPLE}")))
    incident_escalation_hours: int = _setting(4, _whole(MAX_ESCALATION_HOURS))
    flap_low_percent: float = _setting(5.0)
    flap_high_percent: float = _setting(20.0)
    mass_failure_percent: int = _setting(0, _or(0, _whole(100)))
    control_url: str = _setting("", _or("", _control))
    lease_seconds: int = _setting(30, _whole(600, lowest=3))
    max_attempts: int = _setting(5, _whole(20))
    run_history_days: int = _setting(30, _whole(MAX_RETENTION_DAYS))
    erasure_guard_days: int = _setting(7, _whole(MAX_GUARD_DAYS))
    erasure_ids: str = _setting(PLAIN, _such_as(_one_of(PLAIN, SHA256), f"{PLAIN} or {SHA256}"))
    time_limits: Mapping[str, int] = _setting(dict, _time_limits)

    def __post_init__(self) -> None:
        super().__post_init__()
        # A run may request another retention; then the shorter of the two applies.
        if self.memory_retention_days is not None and self.memory_retention_days > self.retention_days:
            raise ConfigurationError(
                f"memory_retention_days ({self.memory_retention_days}) must not be longer than retention_days "
                f"({self.retention_days}): it applies while memory is short."
            )
        prefix = self.compact_prefix
        if not is_prefix(prefix) or prefix in (self.checkpoint_prefix, self.checkpoint_write_prefix):
            raise ConfigurationError(
                f'compact_prefix must be a text such as "{DEFAULT_PREFIX}" of letters, digits and any '
                f"of _ . - ~ : / @ , + =, and not the prefix of another saver's keys, not {shown(prefix)}."
            )
        low, high = self.flap_low_percent, self.flap_high_percent
        if not (_is_number(low) and _is_number(high) and 0 < low <= high <= 100):
            raise ConfigurationError(
                "flap_low_percent and flap_high_percent must be numbers, above 0, up to 100 and in this order, "
                f"not {shown(low)} and {shown(high)}."
            )
        if self.mass_failure_percent and not self.control_url:
            raise ConfigurationError(
                "mass_failure_percent needs a control_url, which distinguishes an outage of servers from one of this "
                "network."
            )

    @classmethod
    def load(cls) -> AiOpsSettings:
        """Read the current settings."""
        given: dict[str, Any] = settings.PLUGINS_CONFIG.get("ai_ops", {})
        known = {each.name for each in fields(cls)}
        if unknown := sorted(set(given) - known):
            raise ConfigurationError(
                f'PLUGINS_CONFIG["ai_ops"] has settings this version does not know: {", ".join(unknown)}. '
                f"Known are: {', '.join(sorted(known))}."
            )
        try:
            return cls(**given)
        except ConfigurationError as error:
            raise ConfigurationError(f'PLUGINS_CONFIG["ai_ops"] is not valid: {error}') from error

    @property
    def folders_of_ca_files(self) -> tuple[str, ...]:
        """Return the allowed paths of CA files: the folders in `ca_directories`, and the setting `ca_file`."""
        return (*self.ca_directories, self.ca_file) if self.ca_file else tuple(self.ca_directories)

    def cleanup_options(self, **given: Any) -> CleanupOptions:
        """Return the configured options, replaced by those in `given` that are not None.

        Raises:
            ConfigurationError: A value is out of its range or contradicts another.
            TypeError: There is no such option.
        """
        options = {each.name: getattr(self, each.name) for each in fields(CleanupOptions)}
        return CleanupOptions(**options | {name: value for name, value in given.items() if value is not None})
