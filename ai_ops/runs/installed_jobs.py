"""The Job records of kinds of runs, found by module and class, because display names may be changed."""

from __future__ import annotations

from nautobot.extras.models import Job

from ai_ops.exceptions import ConfigurationError
from ai_ops.kinds import DEFAULT_SCHEDULES, class_path_of


def find_job(job: str) -> Job | None:
    """Return the Job of a kind or a class path; None if Nautobot has not registered it."""
    module_name, _, job_class_name = class_path_of(job).rpartition(".")
    return Job.objects.filter(installed=True, module_name=module_name, job_class_name=job_class_name).first()


def installed_job(job: str) -> Job:
    """Return the Job of a kind or a class path.

    Raises:
        ConfigurationError: There is no such Job, or its code is not installed.
    """
    job_model = find_job(job)
    if job_model is None or job_model.job_class is None:
        raise ConfigurationError(
            f"Nautobot has no installed Job {job}: give {', '.join(DEFAULT_SCHEDULES)} or the class path of a Job, "
            "and run nautobot-server post_upgrade if it was installed just now."
        )
    return job_model
