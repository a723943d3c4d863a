"""Base class of the app's Jobs."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from nautobot.apps.jobs import Job
from nautobot.extras.models import FileProxy, JobResult

from ai_ops.runs import transitions
from ai_ops.runs.connections import guarded_job_log
from ai_ops.runs.context import RunRequest, request_of_job, requested_by
from ai_ops.runs.logs import get_logger
from ai_ops.runs.transitions import failing_with_its_job


class MaintenanceJob(Job):
    """A Job whose work is recorded as a run, with the user who requested it."""

    class Meta:
        """Not a Job by itself."""

        abstract = True

    def __init__(self) -> None:
        """Have what the Job's own lines quote made harmless, as that of the tasks is."""
        super().__init__()
        get_logger(self.__module__)

    @cached_property
    def job_result(self) -> JobResult | None:
        """The result of this Job; None where `run()` was called from a shell or a test."""
        request = getattr(self, "request", None)
        return super().job_result if request is not None and request.id else None

    def create_file(self, filename: str, content: str | bytes) -> FileProxy | None:
        """Attach a file to the result; there is none to attach it to in a shell."""
        return super().create_file(filename, content) if self.job_result else None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run; what the tasks record in the meantime is of this JobResult."""
        request = request_of_job(self)
        try:
            self.deserialize_data(kwargs)
        except ObjectDoesNotExist as error:
            return self._without_subject(request, error)
        with guarded_job_log(), requested_by(request), failing_with_its_job(request):
            return super().__call__(*args, **kwargs)

    def _without_subject(self, request: RunRequest, error: ObjectDoesNotExist) -> dict[str, Any]:
        """End at once, in a line: what the run was about has been deleted since it was asked for."""
        sentence = f"The subject of this run was deleted, so there is no work. {error}"
        transitions.end_without_work(request, sentence)
        self.fail("%s", sentence)
        return {"success": False, "error": sentence}
