"""Set-up of Nautobot's webhooks and Job hooks for incidents.

Nautobot calls a webhook when an incident is opened, acknowledged, escalated or closed. Its body is a Nautobot template
that this module creates for the receiver. It can be changed on the page of the webhook.
"""

from __future__ import annotations

import json
from importlib import resources
from urllib.parse import urlsplit

from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ValidationError
from django.db import transaction
from nautobot.extras.models import Job, Webhook
from nautobot.users.models import ObjectPermission

from ai_ops.exceptions import ConfigurationError
from ai_ops.logic.foreign_text import shown
from ai_ops.models import MCPServerIncident
from ai_ops.runs.service_user import SERVICE_USER, service_user

# The receivers, and whether each needs a body template. Without one Nautobot sends the change as JSON.
SLACK, TEAMS, PAGERDUTY, PLAIN = "slack", "teams", "pagerduty", "plain"
RECEIVERS = (SLACK, TEAMS, PAGERDUTY, PLAIN)
PAGERDUTY_URL = "https://events.pagerduty.com/v2/enqueue"


def body_of(receiver: str, *, routing_key: str = "", nautobot_url: str = "") -> str:
    """Return the template of the body for a receiver; empty for a plain one.

    Args:
        receiver: One of RECEIVERS.
        routing_key: Integration key of the PagerDuty service.
        nautobot_url: Public address of Nautobot, for a link to the incident; without it there is no link.

    Raises:
        ConfigurationError: There is no such receiver, or a value is missing or invalid.
    """
    if receiver not in RECEIVERS:
        raise ConfigurationError(f"There is no receiver {shown(receiver)}: give one of {', '.join(RECEIVERS)}.")
    if receiver == PLAIN:
        return ""
    if receiver == PAGERDUTY and not routing_key:
        raise ConfigurationError("PagerDuty needs the integration key of a service: give it as routing_key.")
    if nautobot_url and urlsplit(nautobot_url).scheme not in ("http", "https"):
        raise ConfigurationError(f"{shown(nautobot_url)} is not an address of Nautobot: begin it with https://.")
    texts = resources.files(__package__) / "bodies"
    common = (texts / "common.j2").read_text()
    values = (
        f"{{% set routing_key = {_literal(routing_key)} %}}{{% set nautobot = {_literal(nautobot_url.rstrip('/'))} %}}"
    )
    return values + common + (texts / f"{receiver}.json.j2").read_text()


def add_receiver(
    receiver: str, url: str, *, name: str | None = None, routing_key: str = "", nautobot_url: str = "", secret: str = ""
) -> Webhook:
    """Create or update a webhook that notifies a receiver of incidents.

    Args:
        receiver: One of RECEIVERS.
        url: Address of the receiver.
        name: Name of the webhook; by default it is derived from the receiver.
        routing_key: As `body_of` takes it.
        nautobot_url: As `body_of` takes it.
        secret: Key with which Nautobot signs the body, in the header ``X-Hook-Signature``.

    Raises:
        ConfigurationError: Nautobot refuses the webhook, for the reason in the message. Nothing was changed.
    """
    body = body_of(receiver, routing_key=routing_key, nautobot_url=nautobot_url)
    name = name or f"AI Ops incidents to {receiver}"
    with transaction.atomic():
        webhook = Webhook.objects.filter(name=name).first() or Webhook(name=name)
        webhook.payload_url = url
        webhook.body_template = body
        webhook.type_create = webhook.type_update = webhook.enabled = True
        webhook.secret = secret
        try:
            webhook.validated_save()
        except ValidationError as error:
            raise ConfigurationError(f"The webhook can't be made: {' '.join(error.messages)}") from error
        webhook.content_types.set([ContentType.objects.get_for_model(MCPServerIncident)])
    return webhook


def allow_job_hook(class_path: str) -> ObjectPermission:
    """Permit the app's scheduled runs to call the Job of a Job hook, but no other Job.

    This makes the user of the schedules active, as Nautobot requires. The user has no password.

    Args:
        class_path: Class path of the Job, such as "pager.Pager".

    Raises:
        ConfigurationError: Nautobot has no such Job, or the Job is not a JobHookReceiver.
    """
    module, _, class_name = class_path.rpartition(".")
    job = Job.objects.filter(module_name=module, job_class_name=class_name).first()
    if job is None:
        raise ConfigurationError(
            f"Nautobot has no Job {shown(class_path)}: give module and class, and run nautobot-server post_upgrade."
        )
    if not job.is_job_hook_receiver:
        raise ConfigurationError(f"{job} can't be called by a Job hook: it must be a JobHookReceiver.")
    with transaction.atomic():
        user = service_user()
        if not user.is_active:
            user.is_active = True
            user.save()
        permission, _ = ObjectPermission.objects.update_or_create(
            name=f"{SERVICE_USER} runs {class_path}"[:100],
            defaults={
                "enabled": True,
                "actions": ["run"],
                "constraints": {"module_name": module, "job_class_name": class_name},
            },
        )
        permission.object_types.set([ContentType.objects.get_for_model(Job)])
        permission.users.add(user)
    return permission


def _literal(text: str) -> str:
    """Return `text` as a Jinja string literal, for which JSON's syntax is valid."""
    return json.dumps(text)
