"""The work of the processes that the fault tests kill and stop.

Nautobot is set up once in a process that does nothing else; each of these is a fork of it, which takes
milliseconds instead of seconds. Each calls the tasks as a worker does, with a connection of its own to a
PostgreSQL whose rows are committed.
"""

# ruff: noqa: E402 (models can be imported when Nautobot is set up, and not before)

from __future__ import annotations

import datetime as datetimes
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Any

import nautobot

nautobot.setup()

from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.db import connections, transaction
from django.db.models.functions import Now
from django.db.models.signals import post_save
from django.utils import timezone
from nautobot.extras.choices import JobExecutionType, JobQueueTypeChoices, ScheduledJobStateChoices
from nautobot.extras.jobs import run_job
from nautobot.extras.models import (
    ApprovalWorkflow,
    ApprovalWorkflowDefinition,
    Job,
    JobQueue,
    JobResult,
    ScheduledJob,
    ScheduledJobs,
    Status,
)

from ai_ops import celery_tasks
from ai_ops.agents import current_generation
from ai_ops.agents.tools import get_tools
from ai_ops.checkpoints import cleanup as cleanup_run
from ai_ops.checkpoints.redis import client, deleter
from ai_ops.choices import MaintenanceKindChoices, RunStateChoices, RunTriggerChoices
from ai_ops.mcp import flips
from ai_ops.models import AgentGeneration, MaintenanceRun, MCPServer
from ai_ops.runs import database_outages, transitions
from ai_ops.runs.context import current_request, requested_by
from ai_ops.runs.execution import run_as
from ai_ops.runs.requests import request_run
from development.services import die_with_parent
from tests.fakes import jobs
from tests.fakes.runs import with_pauses

# A connection that two processes share after a fork belongs to neither.
connections.close_all()

TASKS: dict[str, Callable[[], dict[str, Any]]] = {
    MaintenanceKindChoices.HEALTH: celery_tasks.perform_mcp_health_checks,
    MaintenanceKindChoices.CLEANUP: celery_tasks.cleanup_old_checkpoints,
    MaintenanceKindChoices.INCIDENTS: celery_tasks.close_resolved_incidents,
}
JOBS = {
    MaintenanceKindChoices.HEALTH: "MCPServerHealthCheckJob",
    MaintenanceKindChoices.CLEANUP: "CleanupCheckpointsJob",
    MaintenanceKindChoices.INCIDENTS: "CloseResolvedIncidentsJob",
}
LONGEST_RETRIES = 10
BARRIER_SECONDS = 120
RETRIES_AT_ONCE = 5
LEASE = datetimes.timedelta(seconds=3)


@dataclass(frozen=True)
class Tuning:
    """The differences of a process.

    Attributes:
        pause: Seconds between two rounds of probes, in place of five.
        batch: Keys in a command and threads in a batch of the cleanup; None for the usual numbers.
        database_port: Where PostgreSQL is asked; None for its own port.
        lease: Seconds of a lease; None for three.
        clock: Seconds by which the clock of the process is wrong.
        patience: Seconds for which the end of a run waits for a database that is away; None for the usual ones.
    """

    pause: float = 0.05
    batch: int | None = None
    database_port: int | None = None
    lease: int | None = None
    clock: float = 0.0
    patience: float | None = None


def main(
    pipe: Connection, database: str, tuning: Tuning, action: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    """Call `action` and send what it returns, or what it raised as a text."""
    die_with_parent(signal.SIGKILL)
    try:
        if connections["default"].settings_dict["NAME"] != database:
            # The process that this is a fork of died, and was started again with the environment of the tests.
            raise RuntimeError("Nautobot could not be set up for these processes: see what the first of them said.")
        _apply(tuning)
        with with_pauses(tuning.pause):
            answer = ("returned", action(*arguments))
    except BaseException as error:
        answer = ("raised", f"{type(error).__name__}: {error}")
    pipe.send(answer)
    connections.close_all()


def _apply(tuning: Tuning) -> None:
    if tuning.batch:
        deleter.KEYS_PER_COMMAND = cleanup_run.DELETIONS_PER_BATCH = tuning.batch
        # After each batch: otherwise all may be deleted before a test sees that the first was.
        client.DELETIONS_PER_PAUSE, client.PAUSE_SECONDS = 0, 0.01
    if tuning.database_port:
        for alias in connections:
            connections[alias].settings_dict["PORT"] = str(tuning.database_port)
    if tuning.lease:
        settings.PLUGINS_CONFIG["ai_ops"]["lease_seconds"] = tuning.lease
    if tuning.patience is not None:
        database_outages.PATIENCE_SECONDS = tuning.patience
    if tuning.clock:
        _set_clock(tuning.clock)


def _set_clock(seconds: float) -> None:
    """Let this process believe that it is so many seconds later: what Python asks for the time is shifted."""
    real_time, shift = time.time, datetimes.timedelta(seconds=seconds)
    time.time = lambda: real_time() + seconds
    timezone.now = lambda: datetimes.datetime.now(tz=datetimes.UTC) + shift


def scheduled(kind: str, run_id: Any = None) -> dict[str, Any]:
    """Run a task as a schedule does; with `run_id` as another attempt of that run."""
    with requested_by(replace(current_request(), trigger=RunTriggerChoices.SCHEDULE, run_id=run_id)):
        return TASKS[kind]()


def check_and_be_killed(at_once: int) -> None:
    """Check all servers, and be killed as soon as the first flips are committed, that many at once."""

    def kill(**_: object) -> None:
        transaction.on_commit(lambda: os.kill(os.getpid(), signal.SIGKILL))

    post_save.connect(kill, sender=MCPServer, weak=False)
    flips.FLIPS_AT_ONCE = at_once
    celery_tasks.perform_mcp_health_checks()


def run_the_job(kind: str) -> dict[str, Any]:
    """Run a Job in this process as a worker does, and give what it returned."""
    run = JobResult.enqueue_job(_job(kind), _user(), synchronous=True, job_kwargs={})
    run.refresh_from_db()
    return run.result


def tell_tools(pipe: Connection) -> None:
    """Send the names of the tools whenever they are asked for, as an agent has them at the start of a request."""
    while pipe.recv():
        pipe.send(sorted(tool.name for tool in async_to_sync(get_tools)()))


def add_job_result() -> str:
    """Make the JobResult of a message, and give its id."""
    return str(JobResult.objects.create(name="A scheduled Job").pk)


def delivered(job_result: str) -> dict[str, Any]:
    """Check all servers, as the worker does that was given the message with that JobResult."""
    of_message = {"trigger": RunTriggerChoices.SCHEDULE, "job_result": JobResult.objects.get(pk=job_result)}
    with requested_by(replace(current_request(), **of_message)):
        return celery_tasks.perform_mcp_health_checks()


def enqueue(kind: str, queue: str, times: int = 1, limits: Mapping[str, float] | None = None) -> str:
    """Send the message of a Job to a queue, or the same message several times, and give the id of its JobResult."""
    job = _job(kind)
    result = JobResult.enqueue_job(job, _user(), celery_kwargs={"queue": queue, **(limits or {})}, job_kwargs={})
    for _ in range(times - 1):
        run_job.apply_async(args=[job.class_path], kwargs={}, task_id=str(result.pk), **result.celery_kwargs)
    return str(result.pk)


def has_worker() -> None:
    """Let Nautobot believe that a worker listens: it remembers for a while what Celery told it."""
    jobs.see_workers(default=1)


def ask(kind: str) -> None:
    """Ask for a run, as REST does."""
    _job(kind)
    request_run(kind, user=_user())


def ask_and_approve(kind: str) -> None:
    """The same where an approval is needed, and give it."""
    schedules = ContentType.objects.get_for_model(ScheduledJob)
    definition = ApprovalWorkflowDefinition.objects.create(name="all", model_content_type=schedules, weight=1)
    ask(kind)
    schedule = ScheduledJob.objects.get(user=_user(), state=ScheduledJobStateChoices.PENDING)
    schedule.state, schedule.enabled = ScheduledJobStateChoices.ACTIVE, True
    schedule.save()
    # The next test needs none.
    ApprovalWorkflow.objects.all().delete()
    definition.delete()


def supervise() -> dict[str, Any]:
    """Let the supervisor make a pass, as its Job does."""
    # Those of schedules have owners who may run their Jobs: otherwise one that is due would be dead.
    MaintenanceRun.objects.filter(owner=None).update(owner=_user())
    jobs.enable_jobs()
    report = celery_tasks.supervise()
    assert report["error"] is None, report
    return report


def add_queue(name: str) -> None:
    """Add a queue that Jobs may be sent to."""
    JobQueue.objects.create(name=name, queue_type=JobQueueTypeChoices.TYPE_CELERY)


def miss_schedules(kind: str, hours: int, queue: str) -> None:
    """Have one schedule, every hour, for that Job, which was not run for so many hours, and no other."""
    ScheduledJob.objects.update(enabled=False)
    now = timezone.now()
    # Half an hour from its next time, so that none comes up while a test looks.
    schedule = ScheduledJob.create_schedule(
        _job(kind),
        _user(),
        name="Missed",
        start_time=now - datetimes.timedelta(days=1),
        interval=JobExecutionType.TYPE_CUSTOM,
        crontab=f"{(now.minute + 30) % 60} * * * *",
        job_kwargs={},
        job_queue=JobQueue.objects.get(name=queue),
    )
    ScheduledJob.objects.filter(pk=schedule.pk).update(last_run_at=now - datetimes.timedelta(hours=hours))
    ScheduledJobs.update_changed()


def _job(kind: str) -> Job:
    jobs.enable_jobs()
    return Job.objects.get(job_class_name=JOBS[kind])


def _user() -> Any:
    return get_user_model().objects.get_or_create(username="faults", defaults={"is_superuser": True})[0]


def add_server(name: str, url: str, status: str) -> str:
    """Add an MCP server that is probed by its health page, and give its id."""
    server = MCPServer(name=name, url=url, status=Status.objects.get(name=status), health_check="/health")
    server.validated_save()
    return str(server.pk)


def change_server(name: str, url: str) -> None:
    """Give a server another address, as a person does on its page."""
    server = MCPServer.objects.get(name=name)
    server.url = url
    server.validated_save()


def delete_server(name: str) -> None:
    """Delete a server."""
    MCPServer.objects.get(name=name).delete()


def generations() -> tuple[int, int]:
    """The generation as the database has it, and as an agent sees it."""
    return AgentGeneration.current(), current_generation()


def take_turns(barrier: Barrier, rounds: int) -> list[list[str]]:
    """Start a run together with others, again and again; the state of each and what was wrong with it."""
    seen = []
    for _ in range(rounds):
        barrier.wait(BARRIER_SECONDS)
        # The holder stays until all have tried.
        report = run_as(MaintenanceKindChoices.CLEANUP, {}, lambda hold: _when_all_tried(barrier), _nothing)
        if report["run"]["state"] == RunStateChoices.SKIPPED:
            barrier.wait(BARRIER_SECONDS)
        seen.append([report["run"]["state"], str(report.get("error") or "")])
    return seen


def _when_all_tried(barrier: Barrier) -> dict[str, Any]:
    barrier.wait(BARRIER_SECONDS)
    return {"success": True, "error": None}


def _nothing(error: str | None) -> dict[str, Any]:
    return {"success": error is None, "error": error}


def settle() -> None:
    """Let the supervisor rescue dead runs, and try again all that wait, due or not, until all have ended."""
    supervise()
    for _ in range(LONGEST_RETRIES):
        waiting = list(MaintenanceRun.objects.filter(state=RunStateChoices.PENDING))
        if not waiting:
            return
        for run in waiting:
            scheduled(run.kind, run.pk)
    raise AssertionError(f"after {LONGEST_RETRIES} rounds there are still runs that have not ended: {waiting}")


def rescue_and_retry() -> None:
    """Do what the supervisor does, with the short leases of these processes: rescue what is silent, try what is due."""
    silent = MaintenanceRun.objects.filter(state=RunStateChoices.RUNNING, heartbeat__lt=Now() - 2 * LEASE)
    for run in silent:
        transitions.end_failed_attempt(run, RunStateChoices.LOST, "Its process died.")
    due = MaintenanceRun.objects.filter(state=RunStateChoices.PENDING, next_attempt__lte=Now())
    for run in due.order_by("next_attempt")[:RETRIES_AT_ONCE]:
        scheduled(run.kind, run.pk)
