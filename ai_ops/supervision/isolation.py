"""Isolation of work: an error with one thing does not stop the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from celery.exceptions import SoftTimeLimitExceeded

from ai_ops.exceptions import LeaseLostError, RunStoppedError
from ai_ops.runs.infrastructure import BACKEND_ERRORS
from ai_ops.runs.logs import get_logger

logger = get_logger(__name__)

Result = TypeVar("Result")

# What ends the run, whatever it is at.
STOPPING = (LeaseLostError, RunStoppedError, SoftTimeLimitExceeded)
# Without a database there is no next thing either.
ALL_OR_NONE = (*STOPPING, *BACKEND_ERRORS)


def alone(what: str, act: Callable[[], Result], raised: tuple[type[BaseException], ...] = ALL_OR_NONE) -> Result | None:
    """Return what `act` returns, or None where it failed; the traceback is logged.

    Args:
        what: What it is about, for the log.
        act: Does it; its result is never None.
        raised: Errors that are passed on.
    """
    try:
        return act()
    except raised:
        raise
    except Exception:
        logger.exception("Failed: %s. All else goes on", what, extra={"grouping": "supervisor"})
        return None
