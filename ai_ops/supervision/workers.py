"""The tasks that Celery's workers report."""

from __future__ import annotations

from collections.abc import Collection

from celery import Celery
from kombu.exceptions import OperationalError
from nautobot.core.celery import app as nautobot_celery_app
from redis.exceptions import RedisError

from ai_ops.exceptions import WorkersUnreachableError

# Seconds to wait for answers. Workers answer within milliseconds.
ANSWER_SECONDS = 1.0


def known_tasks(ids: Collection[str], app: Celery = nautobot_celery_app) -> frozenset[str]:
    """Return the tasks in `ids` that a worker runs or has received, with one query for all.

    If no worker answers, no task is returned, as in Nautobot when a user cancels a Job, because dead workers do not
    answer. A worker that is alive but too slow has lost its lease and can't write.

    Args:
        ids: Ids of tasks, the same as those of their JobResults.
        app: The Celery app whose workers to ask.

    Raises:
        WorkersUnreachableError: The broker can't be reached.
    """
    if not ids:
        return frozenset()
    try:
        answers = app.control.inspect(timeout=ANSWER_SECONDS).query_task(sorted(ids))
    except (OperationalError, RedisError, OSError) as error:
        raise WorkersUnreachableError(
            f"Celery's broker can't be reached ({str(error).strip()}), so it is not known which tasks are alive."
        ) from error
    return frozenset(task for tasks in (answers or {}).values() for task in tasks)
