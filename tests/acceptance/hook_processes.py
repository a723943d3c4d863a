"""Steps of an operator for webhooks and Job hooks, and a run that calls them, in processes of a `World`.

Those are forks of one that has imported `fault_processes`, and so has set Nautobot up.
"""

from __future__ import annotations

from django.contrib.contenttypes.models import ContentType
from nautobot.extras.jobs import get_job
from nautobot.extras.models import Job, JobHook, JobQueue, JobResult, Webhook
from nautobot.extras.utils import refresh_job_model_from_job_class
from nautobot.users.models import ObjectPermission

from ai_ops.models import MCPServer, MCPServerIncident
from ai_ops.schedules import find_job, service_user


def add_webhooks(url: str, secret: str) -> None:
    """Have changes of servers, and incidents, sent to `url`."""
    servers = Webhook(name="Servers", type_update=True, payload_url=url, secret=secret)
    incidents = Webhook(name="Incidents", type_create=True, type_update=True, payload_url=url, secret=secret)
    for webhook, model in ((servers, MCPServer), (incidents, MCPServerIncident)):
        webhook.validated_save()
        webhook.content_types.set([ContentType.objects.get_for_model(model)])


def add_job_hook(class_path: str) -> None:
    """Have a Job of JOBS_ROOT called with changes of servers, and with incidents."""
    # As a migration makes it.
    job, _ = refresh_job_model_from_job_class(Job, get_job(class_path, reload=True), job_queue_class=JobQueue)
    job.enabled = True
    job.validated_save()
    hook = JobHook(name="Pager", job=job, type_create=True, type_update=True)
    hook.validated_save()
    hook.content_types.set(ContentType.objects.get_for_models(MCPServer, MCPServerIncident).values())


def let_schedules_call(class_path: str) -> None:
    """Let the user of the app's own schedules run that Job, and nothing else."""
    module, _, name = class_path.rpartition(".")
    user = service_user()
    user.is_active = True
    user.save()
    constraints = {"module_name": module, "job_class_name": name}
    permission = ObjectPermission(name="Run the pager", actions=["run"], constraints=constraints)
    permission.validated_save()
    permission.object_types.set([ContentType.objects.get_for_model(Job)])
    permission.users.set([user])


def enqueue_checks() -> str:
    """Send the health check to the worker as the app's own schedule does; the id of its JobResult."""
    return str(JobResult.enqueue_job(find_job("health"), service_user(), job_kwargs={}).pk)
