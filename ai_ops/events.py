"""Events for observers, sent through Nautobot's event brokers."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from nautobot.apps.events import publish_event

TOPIC_RUN_FAILED = "ai_ops.run.failed"
TOPIC_RUN_DEAD = "ai_ops.run.dead"
TOPIC_RUN_RESCUED = "ai_ops.run.rescued"
TOPIC_SCHEDULE_LATE = "ai_ops.schedule.late"
TOPIC_CHECKED = "ai_ops.mcp.checked"


def publish(topic: str, payload: dict[str, Any]) -> None:
    """Publish after the commit; a broker that fails is logged with its traceback and holds up nothing."""
    # Not a partial: Django logs a failure under the function's name, which a partial has not.
    transaction.on_commit(lambda: publish_event(topic=topic, payload=payload), robust=True)
