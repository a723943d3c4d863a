"""Nautobot Jobs: form variables, log lines and the outcome; the work is in ``ai_ops.celery_tasks``."""

from nautobot.apps.jobs import register_jobs

jobs = []
register_jobs(*jobs)
