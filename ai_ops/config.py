"""The app's settings, read once per run, every value checked against its range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from django.conf import settings

from ai_ops.choices import MaintenanceKindChoices
from ai_ops.exceptions import ConfigurationError
from ai_ops.logic.foreign_text import shown
from ai_ops.logic.limits import CHECK_TIMEOUT_SECONDS, PROBE_CONCURRENCY
from ai_ops.logic.quiet_time import EXAMPLE, is_span
from ai_ops.logic.savers import AUTO, CLASSES, DEFAULT_PREFIX, is_prefix

# A run of a thousand dead servers takes fifteen times as long.
MAX_CHECK_TIMEOUT = 60
# Each takes a file descriptor, and systems give a process 1,024 of them unless told otherwise.
MAX_PROBE_CONCURRENCY = 200
# Where Linux distributions keep certificates, and where those of an installation's own are put.
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
MAX_RETENTION_DAYS = 3650  # ten years; more is a slip of the keyboard
MIN_RETENTION_DAYS = 1 / 24  # an hour, as long as an orphan's grace
# A run that may take less could not even get its lease; a day is longer than any schedule of a run should be.
MIN_TIME_LIMIT, MAX_TIME_LIMIT = 10, 86_400


@dataclass(frozen=True)
class CleanupOptions:
    """The options of the checkpoint cleanup, under the same names in the function, the Job and the settings.

    Attributes:
        retention_days: Age in days past which a checkpoint may be deleted, from an hour (1/24) to 3650.
        pending_retention_days: The same for threads that wait for a person's answer; None for the same value.
        thread_pattern: A glob over thread ids, such as ``user-42-*``; None for all threads.
        trim_live_threads: Whether old checkpoints of live threads go too.
        keep_last: Checkpoints that each namespace of a live thread keeps, 1 to 10000.
        memory_limit_mb: Memory of the checkpoint Redis, in MiB, over which `memory_retention_days` applies.
        memory_retention_days: The shorter retention, in days, for a Redis over its limit.
        max_deletions: Keys after which a run stops; None for no limit.

    Raises:
        ConfigurationError: A value is out of its range or contradicts another.
    """

    retention_days: float = 30
    pending_retention_days: float | None = None
    thread_pattern: str | None = None
    trim_live_threads: bool = True
    keep_last: int = 1
    memory_limit_mb: int | None = None
    memory_retention_days: float | None = None
    max_deletions: int | None = None

    def __post_init__(self) -> None:
        validated_retention_days(self.retention_days)
        for name in ("pending_retention_days", "memory_retention_days"):
            if getattr(self, name) is not None:
                validated_retention_days(getattr(self, name), name)
        _validate_number("keep_last", self.keep_last, 10_000)
        for name in ("memory_limit_mb", "max_deletions"):
            if getattr(self, name) is not None:
                _validate_number(name, getattr(self, name), 10**12)
        if not isinstance(self.trim_live_threads, bool):
            raise ConfigurationError(f"trim_live_threads must be true or false, not {shown(self.trim_live_threads)}.")
        if not isinstance(self.thread_pattern, str | None) or self.thread_pattern == "":
            raise ConfigurationError(
                f"thread_pattern must be a glob such as user-42-*, not {shown(self.thread_pattern)}: "
                "leave it out to clean up all threads."
            )
        if (self.memory_limit_mb is None) != (self.memory_retention_days is None):
            raise ConfigurationError("memory_limit_mb and memory_retention_days work together: set both or neither.")


@dataclass(frozen=True)
class AiOpsSettings(CleanupOptions):
    """The values of ``PLUGINS_CONFIG["ai_ops"]``.

    Attributes:
        checkpoint_prefix: What RedisSaver's keys begin with, its own ``checkpoint_prefix``.
        checkpoint_write_prefix: The same for writes.
        compact_prefix: What CompactRedisSaver's keys begin with, its own ``prefix``.
        checkpoint_saver: The saver that agents get: ``compact``, ``redis`` or ``valkey``; with ``auto`` the one that
            has conversations in the database, ``compact`` where none has.
        provision_schedules: Whether a new installation gets the default schedules.
        check_timeout: Seconds for all of one probe of an MCP server, and for agents to load its tools, wall clock,
            1 to 60.
        allow_loopback: Whether MCP servers on the machine of the worker, or of the agent, may be reached.
        ca_file: Path of a PEM file with the CAs to trust for MCP servers that name none; empty for the usual ones.
        ca_directories: Folders in one of which the CA file of a server must be.
        probe_concurrency: MCP servers that each of at most four threads asks at once, 1 to 200.
        health_check_shard_size: Most servers that one run of the health check Job checks; 0 for no limit.
        check_history_days: Days for which each health check is kept, 1 to 3650.
        flap_low_percent: Share of changes below which a server stops flapping, 0 to flap_high_percent.
        flap_high_percent: Share of changes from which it flaps, up to 100.
        mass_failure_percent: Share of Healthy servers that must newly fail for a run to be doubted; 0 is half.
        control_url: The address of the control, which answers as long as this network works.
        tool_check_interval_minutes: Minutes between two lists of a server's tools, 1 to 10080; 0 is never.
        prefix_tool_names: Whether agents see every tool with the name of its server in front; if not, only those whose
            name is taken.
        quiet_time: Hours of the day, in Nautobot's time zone, in which no incident is opened or escalated, such as
            ``22:00-06:00``; what is still wrong afterwards is told then. Empty for none.
        incident_escalation_hours: Hours for which an incident is open before it is escalated, 1 to 8760.
        lease_seconds: Seconds after which a run that was not heard of may be replaced by another, 3 to 600.
        max_attempts: How often a run is tried before it is dead, 1 to 20, when the infrastructure fails it.
        run_history_days: Days for which finished runs are kept, 1 to 3650.
        erasure_guard_days: Days for which late writes to erased threads are deleted, 1 to 365.
        erasure_ids: The form in which records of erasures keep thread ids: ``plain`` or ``sha256``.
        time_limits: Seconds after which a run stops, 10 to 86400, by kind; a kind that is not named has its Job's.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    checkpoint_prefix: str = "checkpoint"
    checkpoint_write_prefix: str = "checkpoint_write"
    compact_prefix: str = DEFAULT_PREFIX
    checkpoint_saver: str = AUTO
    provision_schedules: bool = True
    check_timeout: float = CHECK_TIMEOUT_SECONDS
    allow_loopback: bool = False
    ca_file: str = ""
    ca_directories: Sequence[str] = DEFAULT_CA_DIRECTORIES
    probe_concurrency: int = PROBE_CONCURRENCY
    health_check_shard_size: int = 0
    check_history_days: int = 30
    tool_check_interval_minutes: int = 60
    prefix_tool_names: bool = False
    quiet_time: str = ""
    incident_escalation_hours: int = 4
    flap_low_percent: float = 5.0
    flap_high_percent: float = 20.0
    mass_failure_percent: int = 0
    control_url: str = ""
    lease_seconds: int = 30
    max_attempts: int = 5
    run_history_days: int = 30
    erasure_guard_days: int = 7
    erasure_ids: str = PLAIN
    time_limits: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        # For one run another retention may be asked for; then the shorter of the two applies.
        if self.memory_retention_days is not None and self.memory_retention_days > self.retention_days:
            raise ConfigurationError(
                f"memory_retention_days ({self.memory_retention_days}) must not be longer than retention_days "
                f"({self.retention_days}): it is what applies when memory is short."
            )
        self._validate_probing()
        self._validate_watching()
        self._validate_runs()
        self._validate_savers()
        for name in ("provision_schedules", "allow_loopback", "prefix_tool_names"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"{name} must be True or False, not {shown(getattr(self, name))}.")

    def _validate_savers(self) -> None:
        for name in ("checkpoint_prefix", "checkpoint_write_prefix"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ConfigurationError(
                    f'{name} must be a text such as "checkpoint", not {shown(getattr(self, name))}.'
                )
        prefix = self.compact_prefix
        if not is_prefix(prefix) or prefix in (self.checkpoint_prefix, self.checkpoint_write_prefix):
            raise ConfigurationError(
                f'compact_prefix must be a text such as "{DEFAULT_PREFIX}" of letters, digits and any of '
                f"_ . - ~ : / @ , + =, and none with which the keys of other savers begin, not {shown(prefix)}."
            )
        if self.checkpoint_saver not in (AUTO, *CLASSES):
            raise ConfigurationError(
                f"checkpoint_saver must be one of {', '.join((AUTO, *CLASSES))}, not {shown(self.checkpoint_saver)}."
            )

    def _validate_probing(self) -> None:
        seconds = self.check_timeout
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 1 <= seconds <= MAX_CHECK_TIMEOUT:
            raise ConfigurationError(
                f"check_timeout must be a number of seconds from 1 to {MAX_CHECK_TIMEOUT}, not {shown(seconds)}."
            )
        if not isinstance(self.ca_file, str) or (self.ca_file and not self.ca_file.startswith("/")):
            raise ConfigurationError(f"ca_file must be the absolute path of a PEM file, not {shown(self.ca_file)}.")
        if isinstance(self.ca_directories, str) or not all(
            isinstance(each, str) and each.startswith("/") for each in self.ca_directories
        ):
            raise ConfigurationError(
                f"ca_directories must be a list of absolute paths of folders, not {shown(self.ca_directories)}."
            )
        _validate_number("probe_concurrency", self.probe_concurrency, MAX_PROBE_CONCURRENCY)
        if self.health_check_shard_size != 0 or isinstance(self.health_check_shard_size, bool):
            _validate_number("health_check_shard_size", self.health_check_shard_size, MAX_SHARD_SIZE)

    def _validate_watching(self) -> None:
        _validate_number("check_history_days", self.check_history_days, MAX_RETENTION_DAYS)
        _validate_number("incident_escalation_hours", self.incident_escalation_hours, MAX_ESCALATION_HOURS)
        if self.tool_check_interval_minutes != 0 or isinstance(self.tool_check_interval_minutes, bool):
            _validate_number("tool_check_interval_minutes", self.tool_check_interval_minutes, MAX_TOOL_CHECK_INTERVAL)
        if self.quiet_time != "" and not is_span(self.quiet_time):
            raise ConfigurationError(
                f"quiet_time must be two times of the day such as {EXAMPLE}, not {shown(self.quiet_time)}."
            )
        self._validate_damping()

    def _validate_runs(self) -> None:
        _validate_number("lease_seconds", self.lease_seconds, 600, lowest=3)
        _validate_number("max_attempts", self.max_attempts, 20)
        _validate_number("run_history_days", self.run_history_days, MAX_RETENTION_DAYS)
        _validate_number("erasure_guard_days", self.erasure_guard_days, MAX_GUARD_DAYS)
        if self.erasure_ids not in (PLAIN, SHA256):
            raise ConfigurationError(f"erasure_ids must be {PLAIN} or {SHA256}, not {shown(self.erasure_ids)}.")
        if not isinstance(self.time_limits, Mapping) or set(self.time_limits) - set(MaintenanceKindChoices.values()):
            raise ConfigurationError(
                f"time_limits must give seconds for kinds of runs ({', '.join(MaintenanceKindChoices.values())}), "
                f"not {shown(self.time_limits)}."
            )
        for kind, seconds in self.time_limits.items():
            validated_time_limit(seconds, f"The time limit of {kind}")

    def _validate_damping(self) -> None:
        thresholds = (self.flap_low_percent, self.flap_high_percent)
        if any(isinstance(each, bool) or not isinstance(each, int | float) for each in thresholds) or not (
            0 < self.flap_low_percent <= self.flap_high_percent <= 100
        ):
            raise ConfigurationError(
                "flap_low_percent and flap_high_percent must be numbers, above 0, up to 100 and in this order, "
                f"not {shown(self.flap_low_percent)} and {shown(self.flap_high_percent)}."
            )
        if self.mass_failure_percent != 0 or isinstance(self.mass_failure_percent, bool):
            _validate_number("mass_failure_percent", self.mass_failure_percent, 100)
        if not isinstance(self.control_url, str) or (
            self.control_url and not self.control_url.startswith(("http://", "https://"))
        ):
            raise ConfigurationError(
                f"control_url must begin with http:// or https://, not be {shown(self.control_url)}."
            )
        if self.mass_failure_percent and not self.control_url:
            raise ConfigurationError(
                "mass_failure_percent needs a control_url, which tells an outage of servers from one of this network."
            )

    @classmethod
    def load(cls) -> AiOpsSettings:
        """Read the settings as they are now."""
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
            raise ConfigurationError(f'PLUGINS_CONFIG["ai_ops"] is not usable: {error}') from error

    @property
    def folders_of_ca_files(self) -> tuple[str, ...]:
        """Return where a CA file may be: in `ca_directories`, and at the setting `ca_file` itself."""
        return (*self.ca_directories, self.ca_file) if self.ca_file else tuple(self.ca_directories)

    def cleanup_options(self, **given: Any) -> CleanupOptions:
        """The configured options, with those in `given` that are not None in their place.

        Raises:
            ConfigurationError: A value is out of its range or contradicts another.
            TypeError: There is no such option.
        """
        options = {each.name: getattr(self, each.name) for each in fields(CleanupOptions)}
        return CleanupOptions(**options | {name: value for name, value in given.items() if value is not None})


def _validate_number(name: str, value: object, highest: int, lowest: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise ConfigurationError(f"{name} must be a whole number from {lowest} to {highest}, not {shown(value)}.")


def validated_retention_days(value: object, name: str = "retention_days") -> float:
    """Return `value` if it is a usable retention, a number of days from 1/24 to 3650.

    Raises:
        ConfigurationError: It is anything else; True and "30" are.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # An hour, divided by 24 and rounded to five digits, is an hour.
    if not is_number or not MIN_RETENTION_DAYS - 1e-5 <= value <= MAX_RETENTION_DAYS:  # type: ignore[operator]
        raise ConfigurationError(
            f"{name} must be a number of days from 1/24, which is an hour, to {MAX_RETENTION_DAYS}, not {shown(value)}."
        )
    return value  # type: ignore[return-value]


def validated_time_limit(value: object, name: str = "time_limit") -> int:
    """Return `value` if it is a usable time limit, a whole number of seconds from 10 to 86400.

    Raises:
        ConfigurationError: It is anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not MIN_TIME_LIMIT <= value <= MAX_TIME_LIMIT:
        raise ConfigurationError(
            f"{name} must be a whole number of seconds from {MIN_TIME_LIMIT} to {MAX_TIME_LIMIT}, not {shown(value)}."
        )
    return value
