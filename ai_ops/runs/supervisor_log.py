"""The supervisor's log line for each handled object: its name, state, age, and the action."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from ai_ops.runs.logs import get_logger

logger = get_logger(__name__)

# Maximum number of lines for objects of the same kind, followed by a count.
NAMED = 20


def log_handled(what: object, state: str, age: timedelta, done: str, *, grouping: str, about: Any = None) -> None:
    """Log that the supervisor has handled an object.

    Args:
        what: Its name.
        state: Its state before.
        age: Time since its request or its last heartbeat.
        done: The action, as a clause.
        grouping: The sub-check.
        about: The object that the line links to on the Job's page.
    """
    extra = {"grouping": grouping, "object": about}
    logger.info("%s, %s, %s old: %s", what, state, _age(age), done, extra=extra)


def log_first(things: Iterable[Any], log: Callable[[Any], None], more: str, *, grouping: str) -> None:
    """Log each of the first objects, and `more` with the number of the others."""
    left = 0
    for number, thing in enumerate(things):
        if number < NAMED:
            log(thing)
        else:
            left += 1
    if left:
        logger.info(more, left, extra={"grouping": grouping})


def _age(age: timedelta) -> str:
    """Return a duration in its largest unit."""
    seconds = max(0, int(age.total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
