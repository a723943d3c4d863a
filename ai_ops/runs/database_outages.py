"""Outages of Nautobot's database: lost connections, the last writes of a run, and the Job log meanwhile.

Django opens a connection at the start of a Job and keeps it. While a run waits for servers, for Redis or between
rounds, a firewall, a pooler or PostgreSQL's `idle_session_timeout` may close it. Django checks connections only once in
each web request. A run checks them after every pause.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from typing import TypeVar

from celery import current_task
from django.db import DatabaseError, InterfaceError, OperationalError, connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from nautobot.core.celery.log import NautobotDatabaseHandler

from ai_ops.runs.logs import get_logger

logger = get_logger(__name__)

Result = TypeVar("Result")

# An upgrade or a failover makes PostgreSQL unavailable for a minute.
PATIENCE_SECONDS = 90.0
PATIENCE_WAITS = (0.5, 1.0, 2.0, 4.0)

# The loggers of the Job's log. The second receives printed output, such as the traceback of a line that could not be
# written. This traceback can't be written either.
DATABASE_LOGGERS = ("celery.task", "celery.redirected")
# Minimum number of seconds between two tests of a connection, which the server answers immediately.
LOOK_SECONDS = 1.0
# Minimum number of seconds between two attempts to reach an unavailable database. Each may take a long time.
AWAY_SECONDS = 10.0


def replace_lost_connections() -> None:
    """Close the connections of this thread that the server has closed.

    The next query opens a new connection. Within a transaction nothing is replaced, because the transaction has failed.
    """
    for each in connections.all(initialized_only=True):
        if each.connection is not None and not each.in_atomic_block and not each.is_usable():
            each.close()


class _CheckAfterPauses:
    """Django's check of a connection before a query, made after each pause rather than once a request.

    It replaces the connection's `close_if_health_check_failed`, which Django calls before each query and at the start
    and the end of a transaction. It does nothing within a transaction, or while a connection is being opened, because
    its query would then begin a transaction.
    """

    def __init__(self, of: BaseDatabaseWrapper) -> None:
        self._connection = of
        self._checked_by_request = of.health_check_enabled
        self._seen = of.connection
        self._used = time.monotonic()
        of.close_if_health_check_failed = self

    def __call__(self) -> None:
        of = self._connection
        may_ask = of.autocommit and not of.in_atomic_block and of.connection is self._seen
        if may_ask and time.monotonic() - self._used >= LOOK_SECONDS:
            of.health_check_enabled, of.health_check_done = True, False
        type(of).close_if_health_check_failed(of)
        self._seen, self._used = of.connection, time.monotonic()

    def end(self) -> None:
        """Restore Django's own check."""
        del self._connection.__dict__["close_if_health_check_failed"]
        self._connection.health_check_enabled = self._checked_by_request


@contextmanager
def connections_checked_after_pauses() -> Iterator[None]:
    """Replace connections of this thread that were lost during a wait, within this block, before they are used again.

    This covers every kind of wait, without help from the code that waits.
    """
    unchecked = [each for each in connections.all() if "close_if_health_check_failed" not in each.__dict__]
    checks = [_CheckAfterPauses(each) for each in unchecked]
    try:
        yield
    finally:
        for check in checks:
            check.end()


def retry_write(write: Callable[[], Result], is_ending: Callable[[], bool] = lambda: False) -> Result:
    """Retry `write` for about as long as a restart of PostgreSQL takes.

    Args:
        write: A write at the end of a run, which no other run can make.
        is_ending: Returns whether this process is ending and must not wait.

    Raises:
        OperationalError: The database was unavailable for longer, or refused the write.
    """
    ends = time.monotonic() + PATIENCE_SECONDS
    for wait in chain(PATIENCE_WAITS, repeat(PATIENCE_WAITS[-1])):
        try:
            return retry_on_new_connection(write)
        except (OperationalError, InterfaceError):
            if connection.in_atomic_block or is_ending() or time.monotonic() + wait > ends:
                raise
            time.sleep(wait)
    raise AssertionError("The waits never end.")


def retry_on_new_connection(write: Callable[[], Result]) -> Result:
    """Call `write`, and retry once on a new connection if the database closed the old one.

    Django keeps a broken connection until the Job has ended. A write at the end of a run would fail on it, even if the
    database has been back for a long time.
    """
    try:
        return write()
    except (OperationalError, InterfaceError):
        if connection.in_atomic_block or connection.is_usable():
            raise
        connection.close()
        return write()


class LogGuard(logging.Filter):
    """Withholds lines that Nautobot's log handler could not write; the worker's own log has all lines.

    Each line would fail with a traceback, and each line of the traceback would fail too.
    """

    def __init__(self) -> None:
        super().__init__()
        self._next_look = 0.0
        self._away = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the database can take the line; test it at intervals, and log once that it is unavailable."""
        if not current_task or getattr(record, "skip_db_logging", False):
            return True
        if connection.needs_rollback:
            return False
        now = time.monotonic()
        if now >= self._next_look:
            # Set before the test, because the log line about the unavailable database passes this filter too.
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
                _log_unavailable(
                    "Nautobot's database is unavailable (%s): until it is back, only the worker's log has these lines",
                    error,
                )


def _log_unavailable(message: str, error: BaseException) -> None:
    logger.error(message, str(error).strip(), extra={"skip_db_logging": True})


def job_log_handlers() -> list[logging.Handler]:
    """Return the handlers of Nautobot for the Job's log."""
    return [
        handler
        for name in DATABASE_LOGGERS
        for handler in logging.getLogger(name).handlers
        if isinstance(handler, NautobotDatabaseHandler)
    ]


@contextmanager
def guarded_job_log() -> Iterator[None]:
    """Prevent failures of the Job's log within this block while the database is unavailable."""
    guard = LogGuard()
    handlers = job_log_handlers()
    for handler in handlers:
        handler.addFilter(guard)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(guard)
