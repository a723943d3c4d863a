"""The request of the run that is about to start: known to the Job, needed where the run is recorded."""

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
        owner: The user it runs as; None from a shell.
        job_result: The JobResult of the Job that does it; None from a shell.
        run_id: The record that was made when it was asked for, if there is one.
        parent_id: The run that this is a part of.
        time_limit: Seconds after which it stops, where it has a limit of its own.
        pause: Seconds between two rounds of probes, for tests; None for the usual ones. Only code around a run sets
            it: no option, Job, message or setting does, since without its pauses a check damps nothing.
    """

    trigger: str = RunTriggerChoices.SHELL
    owner: Any = None
    job_result: Any = None
    run_id: uuid.UUID | None = None
    parent_id: uuid.UUID | None = None
    time_limit: float | None = None
    pause: float | None = None


SHELL = RunRequest()
_current: ContextVar[RunRequest] = ContextVar("ai_ops_run_request", default=SHELL)

# A property of the Celery message, beside those with which Nautobot names the Job and the user.
RUN_PROPERTY = "ai_ops_run"
# The same for the time limit that a run, or a schedule, has of its own.
LIMIT_PROPERTY = "ai_ops_time_limit"


def current_request() -> RunRequest:
    """The request that is being served in this context; one from a shell where nothing else was said."""
    return _current.get()


@contextmanager
def requested_by(request: RunRequest) -> Iterator[None]:
    """Let runs that start within the block be recorded as asked for by `request`."""
    token = _current.set(request)
    try:
        yield
    finally:
        _current.reset(token)


def request_of_job(job: Any) -> RunRequest:
    """Return the origin of the run of a Nautobot Job.

    The record is named by the message, or is that of an earlier delivery of the same message.
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
    )


def limited_to(seconds: float) -> AbstractContextManager[None]:
    """Set a time limit in seconds for tasks called from a shell in this block; they stop between two batches."""
    return requested_by(replace(current_request(), time_limit=seconds))
