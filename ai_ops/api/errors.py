"""Responses of the REST API to a refused run or an unknown schedule: a status and a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rest_framework import status
from rest_framework.exceptions import APIException, ParseError, PermissionDenied

from ai_ops.exceptions import (
    ConfigurationError,
    NoWorkerError,
    RunNotPermittedError,
    RunOptionsError,
    RunRefusedError,
    ScheduleNotFoundError,
)


class Refused(APIException):
    """The state of the run, the Job or the server does not allow the action."""

    status_code = status.HTTP_409_CONFLICT
    default_code = "refused"


class NoWorker(APIException):
    """No worker listens for the run; a later request may succeed."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_code = "celery_worker_not_running"


class NoSchedule(APIException):
    """There is no schedule of that name."""

    status_code = status.HTTP_404_NOT_FOUND
    default_code = "not_found"


# The first matching class decides.
ANSWERS = (
    (RunNotPermittedError, PermissionDenied),
    (NoWorkerError, NoWorker),
    (RunOptionsError, ParseError),
    (RunRefusedError, Refused),
    (ScheduleNotFoundError, NoSchedule),
    (ConfigurationError, ParseError),
)


@contextmanager
def as_answers() -> Iterator[None]:
    """Turn refusals within the block into API responses."""
    try:
        yield
    except tuple(refusal for refusal, _ in ANSWERS) as error:
        answer = next(answer for refusal, answer in ANSWERS if isinstance(error, refusal))
        raise answer(str(error)) from error
