"""The tasks of Celery's workers, as the workers report them."""

from __future__ import annotations

from collections.abc import Collection

from celery import Celery
from kombu.exceptions import OperationalError
from nautobot.core.celery import app as nautobot_celery_app
from redis.exceptions import RedisError

from ai_ops.exceptions import WorkersUnreachableError

# Workers answer within milliseconds, and all that will have answered by then are waited for.
ANSWER_SECONDS = 1.0


def known_tasks(ids: Collection[str], app: Celery = nautobot_celery_app) -> frozenset[str]:
    """Return those of the tasks that a worker runs or has received. One query covers all.

    Where no worker answers, none is known, as Nautobot has it when a user cancels a Job: workers that are gone
    answer like that. One that is there all the same, and too slow, has lost its lease and writes nothing.

    Args:
        ids: Ids of tasks, which are those of their JobResults.
        app: Whose workers are asked.

    Raises:
        WorkersUnreachableError: They could not be asked at all.
    """
    if not ids:
        return frozenset()
    try:
        answers = app.control.inspect(timeout=ANSWER_SECONDS).query_task(sorted(ids))
    except (OperationalError, RedisError, OSError) as error:
        raise WorkersUnreachableError(
            f"Celery's broker can't be reached ({str(error).strip()}): which tasks are alive is not known."
        ) from error
    return frozenset(task for tasks in (answers or {}).values() for task in tasks)
