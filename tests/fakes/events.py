"""An event broker of Nautobot that keeps what is published."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nautobot.apps.events import EventBroker, deregister_event_broker, register_event_broker


class KeepingBroker(EventBroker):
    """Keep each event, or fail at each.

    Args:
        topics: Globs of the topics to hear; all without one.
        error: Raised at each event.
    """

    def __init__(self, *topics: str, error: Exception | None = None) -> None:
        super().__init__(**({"include_topics": list(topics)} if topics else {}))
        self.error = error
        self.events: list[tuple[str, Any]] = []

    def publish(self, *, topic: str, payload: str) -> None:
        """Keep the event as JSON has it."""
        if self.error:
            raise self.error
        self.events.append((topic, json.loads(payload)))

    def topics(self) -> list[str]:
        """Return the topics of all events, in their order."""
        return [topic for topic, _ in self.events]

    def of(self, topic: str) -> list[Any]:
        """Return the bodies of the events with that topic, in their order."""
        return [payload for each, payload in self.events if each == topic]


@contextmanager
def heard(*topics: str, error: Exception | None = None) -> Iterator[KeepingBroker]:
    """Connect such a broker to Nautobot for the block."""
    broker = KeepingBroker(*topics, error=error)
    register_event_broker(broker)
    try:
        yield broker
    finally:
        deregister_event_broker(broker)
