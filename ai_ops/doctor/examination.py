"""The checks of the doctor. Each gathers facts and has `logic` judge them; none stops another."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from functools import cached_property
from importlib import metadata
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone
from nautobot.extras.choices import JobQueueTypeChoices
from nautobot.extras.models import ScheduledJob
from packaging.requirements import Requirement
from redis.exceptions import RedisClusterException, RedisError, ResponseError

from ai_ops import checkpointer
from ai_ops.checkpoints.logic.addresses import read_address
from ai_ops.checkpoints.redis.errors import explain
from ai_ops.checkpoints.snapshots import latest_snapshots
from ai_ops.choices import MaintenanceKindChoices, MCPProtocolChoices, MCPServerStatus
from ai_ops.config import AiOpsSettings
from ai_ops.doctor import logic, redis_facts
from ai_ops.doctor.logic import Finding, listed, problem, unknown, well
from ai_ops.exceptions import AiOpsError, ConfigurationError, CredentialsError
from ai_ops.kinds import DEFAULT_SCHEDULES
from ai_ops.logic.durations import days_left
from ai_ops.mcp.logic.certificates import is_worth_a_warning
from ai_ops.mcp.logic.pauses import PAUSE_SECONDS
from ai_ops.mcp.logic.probe_threads import MAX_WORKERS
from ai_ops.mcp.logic.verdicts import CHECKS_TO_FLIP, Reason
from ai_ops.mcp.secrets import read_credentials
from ai_ops.models import MaintenanceRun, MCPServer
from ai_ops.runs.infrastructure import BACKEND_ERRORS
from ai_ops.runs.installed_jobs import find_job
from ai_ops.schedules.lateness import ScheduleStatus
from ai_ops.schedules.status import get_scheduler_status, listened_queues, statuses_of

APP = "ai_ops"
DISTRIBUTION = "nautobot-app-ai-ops"
LOGS_CLEANUP = ("nautobot.core.jobs.cleanup", "LogsCleanup")
# Number of the latest runs of a kind of which the longest is compared with the time limit.
RUNS_LOOKED_AT = 20
# Servers whose secrets are read. A vault may be slow.
MOST_CREDENTIALS = 100
# Prefixes besides those of RedisSaver, which are settings.
KEY_BEGINNINGS = ("writes:{", "thread:{", "write_keys_zset:", "write_registry:")


class Surroundings:
    """The facts that several checks share, each gathered once.

    Args:
        now: The present, the same for all checks.
    """

    def __init__(self, now: datetime) -> None:
        self.now = now

    @cached_property
    def settings(self) -> AiOpsSettings:
        """Return the app's settings."""
        return AiOpsSettings.load()

    @cached_property
    def redis(self) -> checkpointer.CheckpointRedis:
        """Return the INFO of the checkpoint Redis."""
        return checkpointer.describe_checkpoint_redis(self.settings)

    @cached_property
    def queues(self) -> Any:
        """Return the workers by queue; None if Celery does not answer."""
        return listened_queues()

    @cached_property
    def scheduler(self) -> dict[str, Any]:
        """Return the facts about Celery beat."""
        return get_scheduler_status(self.now)

    @cached_property
    def schedules(self) -> list[ScheduleStatus]:
        """Return the state of the app's schedules."""
        return statuses_of(now=self.now, ask_workers=False)

    @cached_property
    def servers(self) -> int:
        """Return the number of servers that a health check probes."""
        return checked_servers().count()


def checked_servers() -> Any:
    """Return the servers that health checks probe."""
    return MCPServer.objects.filter(protocol=MCPProtocolChoices.HTTP).exclude(status__name=MCPServerStatus.VULNERABLE)


def check_settings(around: Surroundings) -> Finding:
    """Read the settings."""
    try:
        _ = around.settings
    except ConfigurationError as error:
        return problem(str(error), "Change it in nautobot_config.py.")
    return well('PLUGINS_CONFIG["ai_ops"] is valid.')


def check_migrations(_: Surroundings) -> Finding:
    """Look for migrations of the app that have not been run."""
    executor = MigrationExecutor(connection)
    targets = [key for key in executor.loader.graph.leaf_nodes() if key[0] == APP]
    waiting = [migration.name for migration, _ in executor.migration_plan(targets) if migration.app_label == APP]
    if waiting:
        return problem(f"The database lacks {listed(waiting)}.", "Run nautobot-server post_upgrade.")
    return well("The database has every migration of the app.")


def check_versions(_: Surroundings) -> Finding:
    """Compare the installed packages with what the app requires."""
    wrong = sorted(wrong_packages())
    if wrong:
        return problem(f"These packages do not fit: {listed(wrong)}.", f"Install them with pip: {DISTRIBUTION}.")
    return well(f"AI Ops {metadata.version(DISTRIBUTION)} has the packages that it requires.")


def wrong_packages(requires: Collection[str] | None = None) -> Iterator[str]:
    """Return the requirements that the installed packages do not meet, each with the installed version."""
    for line in metadata.requires(DISTRIBUTION) or () if requires is None else requires:
        wanted = Requirement(line)
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            yield f"{wanted.name}{wanted.specifier} (none)"
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            yield f"{wanted.name}{wanted.specifier} ({found})"


def check_redis(around: Surroundings) -> Finding:
    """Connect to the checkpoint Redis."""
    try:
        found = around.redis
    except AiOpsError as error:
        return problem(str(error), "Agents and the cleanup need it: see LANGGRAPH_REDIS_URL.")
    return well(f"{found.software} {found.version} answers at {found.address}, database {found.database}.")


def check_database(around: Surroundings) -> Finding:
    """Check that the app's database holds the checkpoints and nothing else."""
    address = read_address(checkpointer.get_redis_url())
    names = {"cache": settings.CACHES["default"].get("LOCATION"), "Celery broker": settings.CELERY_BROKER_URL}
    nautobot = {what: redis_facts.server_and_database(str(url)) for what, url in names.items() if url}
    host, port = address.hosts[0] if address.hosts else ("", None)
    own = f"{host}:{port or redis_facts.DEFAULT_PORT}/{around.redis.database}"
    beginnings = [text.encode() for text in _key_prefixes(around)]
    with checkpointer.get_redis_connection() as client:
        here = redis_facts.has_keys(client, beginnings)
        elsewhere = [] if here else redis_facts.databases_with(client, beginnings, around.redis.database)
    return logic.judge_database(own, nautobot if not address.kind else {}, here, elsewhere)


def _key_prefixes(around: Surroundings) -> tuple[str, ...]:
    configured = around.settings
    own = (configured.checkpoint_prefix, configured.checkpoint_write_prefix, configured.compact_prefix)
    return (*(f"{prefix}:" for prefix in own), *KEY_BEGINNINGS)


def check_saver(around: Surroundings) -> Finding:
    """Report the saver that agents get."""
    if around.redis.saver is None:
        return problem(
            f"Agents have no saver in the checkpoint Redis: {around.redis.reason}",
            "Name a saver that works with it in the setting checkpoint_saver, or give agents another Redis.",
        )
    return well(f"Agents get {around.redis.saver}: {around.redis.reason}")


def check_commands(around: Surroundings) -> Finding:
    """Ask the checkpoint Redis which commands its user may call."""
    with checkpointer.get_redis_connection() as client:
        try:
            refused = redis_facts.refused_commands(client, _key_prefixes(around))
        except ResponseError as error:
            if "NOPERM" in str(error) or "no permissions" in str(error).lower():
                return logic.judge_commands(["EVAL"])
            return unknown(
                "This version of Redis does not report which commands its user may call.",
                "Compare the user's permissions with the ACL line in the documentation of the installation.",
            )
    return logic.judge_commands(refused)


def check_memory(_: Surroundings) -> Finding:
    """Ask the checkpoint Redis for its memory and its eviction policy."""
    with checkpointer.get_redis_connection() as client:
        try:
            target = {"target_nodes": client.get_default_node()} if hasattr(client, "get_default_node") else {}
            memory, stats = client.info("memory", **target), client.info("stats", **target)
        except ResponseError:
            memory, stats = {}, {}
    names = ("maxmemory_policy", "used_memory", "maxmemory")
    return logic.judge_memory(*(memory.get(name) for name in names), stats.get("evicted_keys"))


def check_workers(around: Surroundings) -> Finding:
    """Ask Celery for workers on the queues of the app's runs."""
    wanted = {str(status.queue) for status in around.schedules if status.queue and status.enabled}
    for kind in DEFAULT_SCHEDULES:
        job = find_job(kind)
        queue = job and job.default_job_queue
        if queue and queue.queue_type == JobQueueTypeChoices.TYPE_CELERY:
            wanted.add(queue.name)
    return logic.judge_workers(around.queues, sorted(wanted))


def check_beat(around: Surroundings) -> Finding:
    """Check that Celery beat is alive."""
    if around.scheduler["running"]:
        return well("Celery beat is running.")
    return problem(around.scheduler["why"], "Start it: nautobot-server celery beat.")


def check_schedules(around: Surroundings) -> Finding:
    """Check that each kind of maintenance has a schedule that runs on time."""
    bad = [each for each in around.schedules if each.needs_attention]
    if bad:
        reasons = " ".join(f'"{each.name}": {each.why}' for each in bad[: logic.LISTED_NAMES])
        return problem(f"{len(bad)} schedule(s) need attention. {reasons}", "See AI Ops > Schedules.")
    present = {each.kind for each in around.schedules}
    if missing := [kind for kind in DEFAULT_SCHEDULES if kind not in present]:
        return problem(
            f"Nothing starts {listed(missing)}.",
            "Create the schedules with ensure_schedule in a shell, or by REST.",
        )
    return well(f"{len(around.schedules)} schedules exist and none is late.")


def check_jobs(_: Surroundings) -> Finding:
    """Check that the Jobs of the schedules are enabled."""
    jobs = {kind: find_job(kind) for kind in DEFAULT_SCHEDULES}
    if missing := [kind for kind, job in jobs.items() if job is None]:
        return problem(f"Nautobot does not know the Jobs of {listed(missing)}.", "Run nautobot-server post_upgrade.")
    if disabled := [job.name for job in jobs.values() if job is not None and not job.enabled]:
        return problem(f"These Jobs are disabled: {listed(disabled)}.", "Enable them under Jobs > Jobs.")
    return well("The Jobs are installed and enabled.")


def check_time_limits(around: Surroundings) -> Finding:
    """Compare the time limits with the durations of the latest runs and the expected durations."""
    short = [limit for kind in DEFAULT_SCHEDULES if (limit := _limit_of(kind, around))]
    if short:
        return problem(
            f"Time limits are too short: {'; '.join(short)}.",
            "Raise the time limit of the schedule or the Job, or time_limits in the settings.",
        )
    return well("The time limits are long enough for the present data.")


def _limit_of(kind: str, around: Surroundings) -> str | None:
    job = find_job(kind)
    limits = [each.time_limit for each in around.schedules if each.kind == kind and each.time_limit]
    limit = min(limits, default=None) or around.settings.time_limits.get(kind) or (job and job.soft_time_limit) or 0
    latest = MaintenanceRun.objects.filter(kind=kind, subject="").order_by("-created")
    ended = latest.values_list("execution_time_ms", flat=True)[:RUNS_LOOKED_AT]
    longest = max((each for each in ended if each is not None), default=None)
    return logic.judge_limit(kind, limit, None if longest is None else longest / 1000, _needed(kind, around))


def _needed(kind: str, around: Surroundings) -> float:
    """Return the longest expected duration of a run of that kind in seconds; 0 if unknown."""
    if kind == MaintenanceKindChoices.CLEANUP:
        snapshot, _ = latest_snapshots()
        return logic.cleanup_seconds(snapshot.data.get("database_keys") if snapshot else None)
    if kind == MaintenanceKindChoices.HEALTH:
        configured = around.settings
        servers = min(around.servers, configured.health_check_shard_size or around.servers)
        at_once = MAX_WORKERS * configured.probe_concurrency
        return logic.health_seconds(servers, at_once, configured.check_timeout, CHECKS_TO_FLIP, PAUSE_SECONDS)
    return 0


def check_credentials(_: Surroundings) -> Finding:
    """Find servers that require credentials, or whose secrets group can't be used."""
    servers = checked_servers().select_related("secrets_group", "health")
    refused = servers.filter(health__reason=Reason.AUTH_REQUIRED).values_list("name", flat=True)
    broken = []
    for server in servers.exclude(secrets_group=None).order_by("name")[:MOST_CREDENTIALS]:
        try:
            read_credentials(server)
        except CredentialsError:
            broken.append(server.name)
    if broken:
        return problem(f"The secrets groups of {listed(broken)} can't be used.", "See the pages of these servers.")
    if refused:
        return problem(
            f"These servers require other credentials: {listed(refused)}.",
            "Give each a secrets group, or a new secret.",
        )
    return well("No server requires credentials that it does not get.")


def check_certificates(around: Surroundings) -> Finding:
    """Find TLS certificates that expire soon."""
    rows = checked_servers().exclude(health__certificate_ends=None).values_list("name", "health__certificate_ends")
    soon = {name: days_left(ends, around.now) for name, ends in rows if is_worth_a_warning(ends, around.now)}
    if soon:
        names = [f"{name} ({days} d)" for name, days in soon.items()]
        return problem(f"Certificates expire soon: {listed(names)}.", "Renew them.")
    return well("No certificate expires soon.")


def check_logs_cleanup(_: Surroundings) -> Finding:
    """Check that Nautobot's Logs Cleanup is scheduled."""
    module_name, class_name = LOGS_CLEANUP
    schedules = ScheduledJob.objects.filter(
        job_model__module_name=module_name, job_model__job_class_name=class_name, enabled=True
    )
    if not schedules.filter(one_off=False).exists():
        return problem(
            "Nautobot's Job Logs Cleanup is not scheduled, so the results of other Jobs and the change log grow "
            "without limit.",
            "Schedule it under Jobs > Jobs.",
        )
    return well("Nautobot's Job Logs Cleanup is scheduled.")


# In this order, because later checks depend on earlier ones.
CHECKS: dict[str, Callable[[Surroundings], Finding]] = {
    "settings": check_settings,
    "migrations": check_migrations,
    "versions": check_versions,
    "redis": check_redis,
    "database": check_database,
    "saver": check_saver,
    "commands": check_commands,
    "memory": check_memory,
    "jobs": check_jobs,
    "workers": check_workers,
    "beat": check_beat,
    "schedules": check_schedules,
    "time limits": check_time_limits,
    "credentials": check_credentials,
    "certificates": check_certificates,
    "logs cleanup": check_logs_cleanup,
}


def examine(around: Surroundings | None = None) -> Iterator[Finding]:
    """Run all checks, and yield each finding immediately."""
    around = around or Surroundings(timezone.now())
    for name in CHECKS:
        yield examined(name, around)


def examined(name: str, around: Surroundings) -> Finding:
    """Run one check; its finding is UNKNOWN if its source does not answer."""
    try:
        found = CHECKS[name](around)
    except AiOpsError as error:
        found = unknown(str(error), "See the checks above.")
    except (RedisError, RedisClusterException) as error:
        found = unknown(explain(error), "See the checks above.")
    except BACKEND_ERRORS:
        found = unknown("Nautobot's database or cache did not answer.", "Check that both run.")
    return Finding(found.outcome, found.message, found.advice, name)


__all__ = ("CHECKS", "Surroundings", "examine", "examined")
