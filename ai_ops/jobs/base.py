"""What the app's Jobs have in common."""

from __future__ import annotations

from typing import Any

from nautobot.apps.jobs import Job

from ai_ops.runs.request import request_of_job, requested_by


class MaintenanceJob(Job):
    """A Job whose work is recorded as a run: it says who asked for it."""

    class Meta:
        """Not a Job by itself."""

        abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run; what the tasks record in the meantime is of this JobResult."""
        with requested_by(request_of_job(self)):
            return super().__call__(*args, **kwargs)
