"""Connections to Nautobot's database that were lost during a wait, and the Job log while the database is away.

Django opens a connection at the start of a Job and keeps it. A run waits for servers, for Redis and between rounds; a
firewall, a pooler or PostgreSQL's own `idle_session_timeout` may hang up meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from celery import current_task
from django.db import DatabaseError, InterfaceError, connection, connections
from nautobot.core.celery.log import NautobotDatabaseHandler

from ai_ops.runs.logs import get_logger

logger = get_logger(__name__)

# The loggers whose lines go to the Job's log: the second is what is printed, such as the traceback of a line that
# could not be written, which then can't be written either.
DATABASE_LOGGERS = ("celery.task", "celery.redirected")
# A question that the server answers at once, asked no more often than this.
LOOK_SECONDS = 1.0
# A database that is away is asked again only so often: each time may take as long as the network lets it.
AWAY_SECONDS = 10.0


def replace_lost_connections() -> None:
    """Close this thread's connections that the server has hung up on; call it after a wait.

    The next query opens a new one. Within a transaction nothing can be replaced: that has failed.
    """
    for each in connections.all(initialized_only=True):
        if each.connection is not None and not each.in_atomic_block and not each.is_usable():
            each.close()


class LogGuard(logging.Filter):
    """Keeps lines from Nautobot's log handler that it could not write; the worker's own log has them all.

    Each of them would fail with a traceback, each line of which would fail in turn.
    """

    def __init__(self) -> None:
        super().__init__()
        self._next_look = 0.0
        self._away = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the database takes the line; look for it now and then, and say once that it is away."""
        if not current_task or getattr(record, "skip_db_logging", False):
            return True
        if connection.needs_rollback:
            return False
        now = time.monotonic()
        if now >= self._next_look:
            # Before it is looked for: to say that it is away comes here again.
            self._next_look = now + AWAY_SECONDS
            self._look()
            self._next_look = time.monotonic() + (AWAY_SECONDS if self._away else LOOK_SECONDS)
        return not self._away

    def _look(self) -> None:
        was_away = self._away
        try:
            replace_lost_connections()
            # The alias through which Nautobot writes Job logs is another connection to the same database.
            connection.ensure_connection()
            self._away = False
        except (DatabaseError, InterfaceError) as error:
            self._away = True
            if not was_away:
                _tell("Nautobot's database is away (%s): until it is back, lines are in the worker's log alone", error)


def _tell(message: str, error: BaseException) -> None:
    logger.error(message, str(error).strip(), extra={"skip_db_logging": True})


def job_log_handlers() -> list[logging.Handler]:
    """Return the handlers of Nautobot that write lines to the Job's log."""
    return [
        handler
        for name in DATABASE_LOGGERS
        for handler in logging.getLogger(name).handlers
        if isinstance(handler, NautobotDatabaseHandler)
    ]


@contextmanager
def guarded_job_log() -> Iterator[None]:
    """Let no line of the Job's log fail within this block because the database is away."""
    guard = LogGuard()
    handlers = job_log_handlers()
    for handler in handlers:
        handler.addFilter(guard)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(guard)
