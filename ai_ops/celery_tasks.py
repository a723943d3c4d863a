"""The maintenance tasks: plain functions that gather, decide, apply and report.

The Jobs, the schedules, REST and a Python shell all call these.
"""

from __future__ import annotations

from celery.utils.log import get_task_logger

# Only loggers below Celery's task logger reach a Job's log; from a shell they print like any other.
logger = get_task_logger(__name__)
