"""An installation whose Jobs may run: enabled, with workers that Nautobot believes to have seen, and approvals."""

from __future__ import annotations

from django.contrib.contenttypes.models import ContentType
from django.core.cache import cache
from nautobot.apps.utils import construct_cache_key
from nautobot.extras.models import ApprovalWorkflowDefinition, Job, ScheduledJob
from nautobot.extras.utils import get_celery_queues

# Longer than a test takes; Nautobot itself remembers for five seconds what Celery told it.
REMEMBERED_SECONDS = 600


def enable_jobs() -> None:
    """Enable all Jobs of the app."""
    Job.objects.filter(module_name__startswith="ai_ops.").update(enabled=True)


def see_workers(**queues: int) -> None:
    """Let Nautobot find so many workers at each of these queues, and none at another."""
    cache.set(construct_cache_key(get_celery_queues, branch_aware=False), queues, timeout=REMEMBERED_SECONDS)


def delete_schedules() -> None:
    """Delete all schedules. Those that are provisioned become late while tests run, since no beat starts them."""
    # Nothing refers to them yet. To look for that, and to tell beat of each, took longer than the rest of most set-ups.
    ScheduledJob.objects.all()._raw_delete("default")


def let_jobs_run() -> None:
    """Enable all Jobs of the app, with one worker at the default queue and without a schedule."""
    enable_jobs()
    delete_schedules()
    see_workers(default=1)


def require_approval() -> ApprovalWorkflowDefinition:
    """Let each new schedule, and each run at once, wait for an approval."""
    schedules = ContentType.objects.get_for_model(ScheduledJob)
    return ApprovalWorkflowDefinition.objects.create(name="all", model_content_type=schedules, weight=1)
