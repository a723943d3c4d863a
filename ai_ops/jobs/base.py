"""Base class of the app's Jobs."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from nautobot.apps.jobs import Job
from nautobot.extras.models import FileProxy, JobResult

from ai_ops.runs import transitions
from ai_ops.runs.context import RunRequest, request_of_job, requested_by
from ai_ops.runs.database_outages import connections_checked_after_pauses, guarded_job_log
from ai_ops.runs.logs import get_logger
from ai_ops.runs.transitions import failing_with_its_job


class MaintenanceJob(Job):
    """A Job whose work is recorded as a run with its user."""

    class Meta:
        """Nautobot does not register this class."""

        abstract = True

    def __init__(self) -> None:
        """Escape foreign text in the Job's own log lines, as in those of the tasks."""
        super().__init__()
        get_logger(self.__module__)

    @cached_property
    def job_result(self) -> JobResult | None:
        """Return the JobResult of this Job; None if `run()` was called from a shell or a test."""
        request = getattr(self, "request", None)
        return super().job_result if request is not None and request.id else None

    def create_file(self, filename: str, content: str | bytes) -> FileProxy | None:
        """Attach a file to the result; do nothing in a shell, where there is no result."""
        return super().create_file(filename, content) if self.job_result else None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the Job; the tasks record its JobResult."""
        request = request_of_job(self)
        try:
            self.deserialize_data(kwargs)
        except ObjectDoesNotExist as error:
            return self._without_subject(request, error)
        with (
            connections_checked_after_pauses(),
            guarded_job_log(),
            requested_by(request),
            failing_with_its_job(request),
        ):
            return super().__call__(*args, **kwargs)

    def _without_subject(self, request: RunRequest, error: ObjectDoesNotExist) -> dict[str, Any]:
        """End the run with a log line, because its object has been deleted since the request."""
        sentence = f"The object of this run was deleted, so there is no work. {error}"
        transitions.end_without_work(request, sentence)
        self.fail("%s", sentence)
        return {"success": False, "error": sentence}
