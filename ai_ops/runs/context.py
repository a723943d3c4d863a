"""The request of the run that is about to start. The Job knows it, and the code that records the run needs it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from ai_ops.choices import RunTriggerChoices


@dataclass(frozen=True)
class RunRequest:
    """The origin of a run.

    Attributes:
        trigger: One of `RunTriggerChoices`.
        owner: The user of the run; None from a shell.
        job_result: The JobResult of its Job; None from a shell.
        run_id: The record created by the request, if there is one.
        parent_id: The run of which this is a part.
        time_limit: Seconds after which it stops, if it has its own limit.
        pause: Seconds between two rounds of probes, for tests; None for the default. Only code around a run sets it.
            No option, Job, message or setting does, because a check without pauses damps nothing.
        redis_retry_delays: Seconds before each retry of the checkpoint Redis, for tests; None for the default.
    """

    trigger: str = RunTriggerChoices.SHELL
    owner: Any = None
    job_result: Any = None
    run_id: uuid.UUID | None = None
    parent_id: uuid.UUID | None = None
    time_limit: float | None = None
    pause: float | None = None
    redis_retry_delays: tuple[float, ...] | None = None


SHELL = RunRequest()
_current: ContextVar[RunRequest] = ContextVar("ai_ops_run_request", default=SHELL)

# A property of the Celery message, besides Nautobot's own for the Job and the user.
RUN_PROPERTY = "ai_ops_run"
# The property for the own time limit of a run or a schedule.
LIMIT_PROPERTY = "ai_ops_time_limit"


def current_request() -> RunRequest:
    """Return the request of this context; by default a request from a shell."""
    return _current.get()


@contextmanager
def requested_by(request: RunRequest) -> Iterator[None]:
    """Record runs that start within the block as requested by `request`."""
    token = _current.set(request)
    try:
        yield
    finally:
        _current.reset(token)


def request_of_job(job: Any) -> RunRequest:
    """Return the request of the run of a Nautobot Job.

    The message names the record, or an earlier delivery of the same message created it.
    """
    properties = getattr(job.request, "properties", None) or {}
    named = properties.get(RUN_PROPERTY)
    result = job.job_result
    trigger = RunTriggerChoices.SCHEDULE if result.scheduled_job_id else RunTriggerChoices.JOB
    run_id = uuid.UUID(named) if named else None
    return RunRequest(
        trigger,
        result.user,
        result,
        run_id,
        time_limit=properties.get(LIMIT_PROPERTY),
        pause=current_request().pause,
        redis_retry_delays=current_request().redis_retry_delays,
    )


def limited_to(seconds: float) -> AbstractContextManager[None]:
    """Set a time limit in seconds for tasks called in this block from a shell; they stop between two batches."""
    return requested_by(replace(current_request(), time_limit=seconds))
