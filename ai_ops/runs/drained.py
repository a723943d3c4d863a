"""The supervisor's log line for each handled object: its name, state, age, and the action."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from ai_ops.runs.logs import get_logger

logger = get_logger(__name__)

# Of many things of the same kind so many have a line; then a count.
NAMED = 20


def log_drained(what: object, state: str, age: timedelta, done: str, *, grouping: str, about: Any = None) -> None:
    """Log that the supervisor has dealt with something.

    Args:
        what: Its name.
        state: In which it was found.
        age: Since it was asked for, or was last heard of.
        done: What was done, as a clause.
        grouping: The sub-check.
        about: The object to which the line leads on the Job's page.
    """
    extra = {"grouping": grouping, "object": about}
    logger.info("%s, %s, %s old: %s", what, state, _age(age), done, extra=extra)


def log_first(things: Iterable[Any], log: Callable[[Any], None], more: str, *, grouping: str) -> None:
    """Log each of the first things, and `more` with the number of the others."""
    left = 0
    for number, thing in enumerate(things):
        if number < NAMED:
            log(thing)
        else:
            left += 1
    if left:
        logger.info(more, left, extra={"grouping": grouping})


def _age(age: timedelta) -> str:
    """A duration as people say it, in its largest unit."""
    seconds = max(0, int(age.total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
