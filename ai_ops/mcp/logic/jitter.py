"""The random wait of a scheduled run of health checks, so that not all installations probe at the same second."""

from __future__ import annotations

import random
from collections.abc import Callable

# The schedules of all installations start at the same second, and would probe a shared server at the same time. A run
# that a user starts, or a check of one server, does not wait.
MAX_JITTER_SECONDS = 10.0


def jitter_seconds(*, is_scheduled: bool, draw: Callable[[], float] = random.random) -> float:
    """Return the seconds that a run waits before it starts. `draw` returns a number from 0 to 1."""
    return MAX_JITTER_SECONDS * draw() if is_scheduled else 0.0
