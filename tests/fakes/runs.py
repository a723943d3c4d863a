"""Runs without a lease, the pauses of runs, and records as a process leaves them that died, was stopped, or is well."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from typing import Any

from django.db.models.functions import Now

from ai_ops.choices import MaintenanceKindChoices, RunStateChoices, RunTriggerChoices
from ai_ops.config import AiOpsSettings
from ai_ops.models import MaintenanceRun
from ai_ops.runs.context import RunRequest, current_request, requested_by
from ai_ops.runs.records import new_record


class FreeHold:
    """The hold of a run that nothing stops; it remembers what it was asked."""

    fence = 1
    fence_key = "ai_ops:fence:test"
    run_id = None
    job_result = None
    owner = None
    pause: float | None = None
    redis_retry_delays: tuple[float, ...] | None = None

    def __init__(self) -> None:
        self.confirmed = 0
        self.waited: list[float] = []
        self.troubles: list[BaseException] = []

    @property
    def settings(self) -> AiOpsSettings:
        """Those of the test, as they are now."""
        return AiOpsSettings.load()

    def confirm(self) -> None:
        """Count, and return."""
        self.confirmed += 1

    def lock(self) -> None:
        """There is no other run."""

    def wait(self, seconds: float) -> None:
        """Note the seconds, and return at once."""
        self.waited.append(seconds)

    def progress(self, line: str) -> None:
        """Ignore it."""

    def trouble(self, error: BaseException) -> None:
        """Remember it."""
        self.troubles.append(error)


def with_pauses(seconds: float | None) -> AbstractContextManager[None]:
    """Let checks that begin in this block, by a task or a Job, pause for so many seconds; None for the usual ones."""
    return requested_by(replace(current_request(), pause=seconds))


def with_redis_retries(*seconds: float) -> AbstractContextManager[None]:
    """Let runs that begin in this block wait for so many seconds before each retry of the checkpoint Redis."""
    return requested_by(replace(current_request(), redis_retry_delays=seconds))


def recorded(
    kind: str = MaintenanceKindChoices.CLEANUP,
    trigger: str = RunTriggerChoices.SCHEDULE,
    *,
    ago: timedelta = timedelta(),
    state: str = RunStateChoices.SUCCEEDED,
    **fields: Any,
) -> MaintenanceRun:
    """A record that was made some time ago, by the database's clock, and not heard of since."""
    run = new_record(kind, "", {}, RunRequest(trigger), state=state, max_attempts=5)
    run.save()
    times = {"created": Now() - ago} | ({} if state == RunStateChoices.PENDING else {"started": Now() - ago})
    if state == RunStateChoices.RUNNING:
        times |= {"heartbeat": Now() - ago}
        fields = {"attempt": 1, "fence": 7, "holder": "a host, process 1"} | fields
    MaintenanceRun.objects.filter(pk=run.pk).update(**(times | fields))
    run.refresh_from_db()
    return run
