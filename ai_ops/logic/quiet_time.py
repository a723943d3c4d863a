"""The quiet time: hours of a day in which no incident is opened, as a setting such as ``22:00-06:00``."""

from __future__ import annotations

import re
from datetime import time

EXAMPLE = "22:00-06:00"
_SPAN = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


def is_span(text: object) -> bool:
    """Return whether `text` has two different times of a day."""
    found = _SPAN.fullmatch(text) if isinstance(text, str) else None
    return found is not None and found.groups()[:2] != found.groups()[2:]


def is_quiet(span: str, at: time) -> bool:
    """Return whether `at`, a time of the day, is in `span`, which includes its start and excludes its end.

    A span with its end before its start continues after midnight. An empty span contains no time.
    """
    if not span:
        return False
    begins, ends = (time.fromisoformat(part) for part in span.split("-"))
    at = at.replace(tzinfo=None)
    return begins <= at < ends if begins < ends else at >= begins or at < ends
