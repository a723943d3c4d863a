"""Progress of a run, for the Job's log and the run's page."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ai_ops.runs.hold import Hold


def progress_of(hold: Hold, logger: logging.Logger) -> Callable[[str], None]:
    """Return a function that records a line of progress, and raises as `Hold.confirm` does if the run must stop."""

    def tell(line: str) -> None:
        hold.confirm()
        hold.progress(line)
        logger.info(line)

    return tell
