"""Progress of a run, for the Job's log and for the run's page."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ai_ops.runs.decisions import Hold


def progress_of(hold: Hold, logger: logging.Logger) -> Callable[[str], None]:
    """Return a function that notes a line of progress; it raises as `Hold.confirm` does once the run is to stop."""

    def tell(line: str) -> None:
        hold.confirm()
        hold.progress(line)
        logger.info(line)

    return tell
