"""Kinds of maintenance: the Job of each, and its schedule in a new installation."""

from __future__ import annotations

from dataclasses import dataclass

from nautobot.extras.models import Job

from ai_ops.exceptions import ConfigurationError


@dataclass(frozen=True)
class DefaultSchedule:
    """Which Job a kind of maintenance runs, and when if nobody says otherwise."""

    class_path: str
    name: str
    crontab: str


DEFAULT_SCHEDULES = {
    # After 3:00, because clocks change between 1:00 and 3:00 and would skip or double the run, and off the
    # full hour, where backups and everybody else's nightly jobs begin.
    "cleanup": DefaultSchedule(
        "ai_ops.jobs.checkpoint_cleanup.CleanupCheckpointsJob", "AI Ops: clean up old checkpoints", "17 3 * * *"
    ),
    # Hourly: a million keys are twenty seconds of one worker. Half an hour after the cleanup, so that the page shows
    # what the cleanup left.
    "storage": DefaultSchedule(
        "ai_ops.jobs.checkpoint_storage.SampleCheckpointStorageJob",
        "AI Ops: sample the checkpoint storage",
        "47 * * * *",
    ),
    "health": DefaultSchedule(
        "ai_ops.jobs.mcp_health_check.MCPServerHealthCheckJob", "AI Ops: check MCP servers", "*/10 * * * *"
    ),
    "incidents": DefaultSchedule(
        "ai_ops.jobs.mcp_incidents.CloseResolvedIncidentsJob", "AI Ops: review MCP incidents", "*/5 * * * *"
    ),
    # A pass that has nothing to do takes a fraction of a second; a run that died is not left for longer than this.
    "supervisor": DefaultSchedule(
        "ai_ops.jobs.supervisor.SuperviseRunsJob", "AI Ops: supervise maintenance runs", "* * * * *"
    ),
}


def find_job(job: str) -> Job | None:
    """Return the row of the Job of that kind or class path, or None where Nautobot does not know it (yet)."""
    class_path = DEFAULT_SCHEDULES[job].class_path if job in DEFAULT_SCHEDULES else job
    return Job.objects.filter(installed=True).filter(**_class_lookup(class_path)).first()


def installed_job(job: str) -> Job:
    """The row of the Job of that kind or class path; raises ConfigurationError where there is none with code."""
    job_model = find_job(job)
    if job_model is None or job_model.job_class is None:
        raise ConfigurationError(
            f"Nautobot knows no installed Job {job}: give {', '.join(DEFAULT_SCHEDULES)} or the class path of a Job, "
            "and run nautobot-server post_upgrade if it was installed just now."
        )
    return job_model


def _class_lookup(class_path: str) -> dict[str, str]:
    module_name, _, job_class_name = class_path.rpartition(".")
    return {"module_name": module_name, "job_class_name": job_class_name}
