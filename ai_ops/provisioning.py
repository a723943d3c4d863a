"""Provisioning of a new installation: statuses, default schedules and enabled Jobs.

Runs after every ``migrate``. Each provisioned object leaves a ProvisioningRecord. An object with a record belongs to
the operator: it is not created or changed again, even if it was deleted.
"""

from __future__ import annotations

import logging

from django.contrib.contenttypes.models import ContentType
from django.db import DEFAULT_DB_ALIAS, transaction
from nautobot.apps.choices import ColorChoices
from nautobot.extras.choices import JobResultStatusChoices
from nautobot.extras.models import Job, JobResult, ObjectChange, ScheduledJob, Status

from ai_ops.choices import MCPServerStatus
from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import ConfigurationError
from ai_ops.kinds import DEFAULT_SCHEDULES, KINDS
from ai_ops.models import MCPServer, ProvisioningRecord
from ai_ops.runs.installed_jobs import find_job
from ai_ops.schedules.ensure import ensure_schedule

logger = logging.getLogger(__name__)

STATUSES = {
    MCPServerStatus.HEALTHY: (ColorChoices.COLOR_GREEN, "Answers its health check"),
    MCPServerStatus.UNHEALTHY: (ColorChoices.COLOR_RED, "Does not answer its health check, or has never been checked"),
    MCPServerStatus.VULNERABLE: (
        ColorChoices.COLOR_AMBER,
        "Set by a user: agents do not use it, and it is not checked",
    ),
    MCPServerStatus.MAINTENANCE: (ColorChoices.COLOR_GREY, "Set by a user: checked, but its status does not change"),
}


def provision(sender, *, apps, using=DEFAULT_DB_ALIAS, **kwargs):
    """Provision missing objects; receives Nautobot's ``nautobot_database_ready``.

    Args:
        sender: The AppConfig of this app.
        apps: The models after the migrations that have run.
        using: The database that was migrated.
        kwargs: Other arguments of the signal, unused.
    """
    if using != DEFAULT_DB_ALIAS or not _has_tables(apps):
        return
    provision_statuses()
    if AiOpsSettings.load().provision_schedules:
        provision_schedules()
        provision_jobs()


def provision_statuses() -> None:
    """Create the statuses of MCP servers; an existing status of the same name is shared unchanged."""
    content_type = ContentType.objects.get_for_model(MCPServer)
    for name, (color, description) in STATUSES.items():
        with transaction.atomic():
            _, first_time = ProvisioningRecord.objects.get_or_create(key=f"status:{name}")
            if first_time:
                status, _ = Status.objects.get_or_create(
                    name=name, defaults={"color": color, "description": description}
                )
                status.content_types.add(content_type)


def provision_schedules() -> None:
    """Schedule and enable the Jobs, each once. A Job that is already in use stays unchanged."""
    for kind in DEFAULT_SCHEDULES:
        key = f"schedule:{kind}"
        job = find_job(kind)
        # If the row of the Job does not exist yet, the next migrate enables the Job.
        if job is None or ProvisioningRecord.objects.filter(key=key).exists():
            continue
        try:
            with transaction.atomic():
                ProvisioningRecord.objects.create(key=key)
                if reason := _why_in_use(job):
                    _warn_unscheduled(kind, job, reason)
                else:
                    ensure_schedule(kind)
        except ConfigurationError as error:
            # A schedule must not make a migrate fail.
            logger.warning("The default schedule of %s was not created: %s", job, error)


def provision_jobs() -> None:
    """Enable the Jobs that buttons request, each once. A Job that is already in use stays unchanged."""
    for kind in (each for each in KINDS.values() if each.enabled):
        job = find_job(kind.name)
        if job is None:
            continue
        with transaction.atomic():
            _, first_time = ProvisioningRecord.objects.get_or_create(key=f"job:{kind.name}")
            if not first_time or job.enabled:
                continue
            if reason := _why_in_use(job):
                logger.warning(
                    '"%s" was not enabled, since %s. To have it, enable it on its page under Jobs', job, reason
                )
                continue
            job.enabled = True
            job.validated_save()


def _has_tables(apps) -> bool:
    """Return whether this app's tables exist, because ``migrate ai_ops zero`` sends the signal too."""
    try:
        apps.get_model("ai_ops", "ProvisioningRecord")
    except LookupError:
        return False
    return True


def _why_in_use(job: Job) -> str | None:
    """Return a clause on the use of `job` before this installation; None if it was not used."""
    if schedule := ScheduledJob.objects.filter(job_model=job).first():
        return f'it has the schedule "{schedule.name}"'
    # A message that no worker has taken does not count. An earlier installation of this app may have left it.
    if JobResult.objects.filter(job_model=job).exclude(status=JobResultStatusChoices.STATUS_PENDING).exists():
        return "it has run before"
    changes = ObjectChange.objects.filter(
        changed_object_type=ContentType.objects.get_for_model(Job), changed_object_id=job.pk
    )
    return "it was edited on its page" if changes.exists() else None


def _warn_unscheduled(kind: str, job: Job, reason: str) -> None:
    logger.warning(
        '"%s" got no default schedule, since %s. To create it, run in nautobot-server nbshell: '
        'from ai_ops.schedules import ensure_schedule; ensure_schedule("%s")',
        job,
        reason,
        kind,
    )
