"""Notifications: ready-made webhooks, and Job hooks that scheduled runs may call."""

from ai_ops.notifications.hooks import RECEIVERS, add_receiver, allow_job_hook, body_of

__all__ = ("RECEIVERS", "add_receiver", "allow_job_hook", "body_of")
