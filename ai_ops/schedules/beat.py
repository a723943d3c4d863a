"""The heartbeat of Celery beat, in the shared cache of Nautobot's processes.

Beat asks the database in each of its rounds, at most five seconds apart, whether a schedule has changed. In beat's
process this app records that a query returned, with a Django query wrapper. The last run of a schedule says less: a
pause erases it, and it may be due only once a day.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.core.cache import cache
from django.db import connection
from django_redis.exceptions import ConnectionInterrupted
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

ALIVE_KEY, SEEN_KEY = "ai_ops.beat.alive", "ai_ops.beat.seen"
# Seconds between two heartbeats; beat's rounds are shorter.
EVERY_SECONDS = 10.0
# Seconds for which a heartbeat is valid, because beat may wait for a slow database or be restarted. The expiry of the
# key measures them, so that the clocks of two hosts need not agree.
ALIVE_SECONDS = 60
SEEN_SECONDS = 7 * 86_400


class Heartbeat:
    """Wraps the queries of the thread in which beat makes its rounds."""

    def __init__(self) -> None:
        self._next = 0.0
        self._away = False

    def __call__(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        """Run the query; record a heartbeat when it returns."""
        result = execute(sql, params, many, context)
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY_SECONDS
            self._write_heartbeat()
        return result

    def _write_heartbeat(self) -> None:
        try:
            cache.set(ALIVE_KEY, True, ALIVE_SECONDS)
            cache.set(SEEN_KEY, time.time(), SEEN_SECONDS)
            self._away = False
        except (RedisError, ConnectionInterrupted, OSError) as error:
            if not self._away:
                logger.warning("Beat could not write its heartbeat: the cache is unavailable (%s)", error)
            self._away = True


def follow_beat(**_: Any) -> None:
    """Start beat's heartbeat; receives Celery's `beat_init` in beat's main thread."""
    if not any(isinstance(each, Heartbeat) for each in connection.execute_wrappers):
        connection.execute_wrappers.append(Heartbeat())


@dataclass(frozen=True)
class Sign:
    """The last heartbeat of beat.

    Attributes:
        fresh: Whether it is at most a minute old.
        given: Its time, by the clock of beat's host.
    """

    fresh: bool
    given: datetime


def last_sign() -> Sign | None:
    """Return beat's last heartbeat; None if the cache has none."""
    try:
        found = cache.get_many([ALIVE_KEY, SEEN_KEY])
    except (RedisError, ConnectionInterrupted, OSError) as error:
        logger.warning("Beat's heartbeat could not be read from the cache: %s", error)
        return None
    return Sign(ALIVE_KEY in found, datetime.fromtimestamp(found[SEEN_KEY], UTC)) if SEEN_KEY in found else None
