"""Isolation of parts of the work: an error in one part does not stop the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from celery.exceptions import SoftTimeLimitExceeded

from ai_ops.exceptions import LeaseLostError, RunStoppedError
from ai_ops.runs.infrastructure import BACKEND_ERRORS
from ai_ops.runs.logs import get_logger

logger = get_logger(__name__)

Result = TypeVar("Result")

# Errors that end the whole run.
STOPPING = (LeaseLostError, RunStoppedError, SoftTimeLimitExceeded)
# Without a database the next part would fail too.
ALL_OR_NONE = (*STOPPING, *BACKEND_ERRORS)


def isolate(
    what: str, act: Callable[[], Result], raised: tuple[type[BaseException], ...] = ALL_OR_NONE
) -> Result | None:
    """Return the result of `act`; if it fails, log the traceback and return None.

    Args:
        what: The action as a noun, for the log.
        act: The action; its result is never None.
        raised: Errors to raise.
    """
    try:
        return act()
    except raised:
        raise
    except Exception:
        logger.exception("Failed: %s. The other work continues", what, extra={"grouping": "supervisor"})
        return None
