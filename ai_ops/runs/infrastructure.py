"""Infrastructure failures: errors that a retry may fix, and that no server and no thread causes."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import chain, repeat
from typing import TypeVar

from django.db import InterfaceError, OperationalError, connection
from django_redis.exceptions import ConnectionInterrupted
from redis.exceptions import AuthenticationError, OutOfMemoryError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ai_ops.exceptions import AiOpsError, LeaseLostError

Result = TypeVar("Result")

# An upgrade or a failover makes PostgreSQL unavailable for a minute.
PATIENCE_SECONDS = 90.0
PATIENCE_WAITS = (0.5, 1.0, 2.0, 4.0)

# The database or the cache, which Nautobot needs for every save, is unavailable or a lock timed out. Other errors are
# programming errors and are not caught.
BACKEND_ERRORS = (OperationalError, InterfaceError, RedisError, ConnectionInterrupted)

# A Redis that is loading its data, is full, or is temporarily a replica may recover in a minute. If it refuses the
# password or a command, an operator must fix it.
_PASSING = (
    OperationalError,
    InterfaceError,
    ConnectionInterrupted,
    LeaseLostError,
    RedisConnectionError,
    RedisTimeoutError,
    ReadOnlyError,
    OutOfMemoryError,
)


def backend_sentence(error: BaseException) -> str:
    """Return the error sentence for one of BACKEND_ERRORS."""
    return f"Nautobot's database or cache failed ({str(error).strip()}): check both; the next run tries again."


def is_passing(error: BaseException) -> bool:
    """Return whether a retry may help."""
    if isinstance(error, AiOpsError) and error.__cause__ is not None:
        # An error of this app names the action; its cause is the failure.
        return is_passing(error.__cause__)
    # A script raises its own error with the text of Redis.
    passed_on = isinstance(error, ResponseError) and any(word in str(error) for word in ("READONLY", "OOM command"))
    return passed_on or (isinstance(error, _PASSING) and not isinstance(error, AuthenticationError))


def with_patience(write: Callable[[], Result], is_hurried: Callable[[], bool] = lambda: False) -> Result:
    """Retry `write` for about as long as a restart of PostgreSQL takes.

    Args:
        write: A write at the end of a run, which no other run can make.
        is_hurried: Returns whether this process is ending and must not wait.

    Raises:
        OperationalError: The database was unavailable for longer, or refused the write.
    """
    ends = time.monotonic() + PATIENCE_SECONDS
    for wait in chain(PATIENCE_WAITS, repeat(PATIENCE_WAITS[-1])):
        try:
            return on_a_sound_connection(write)
        except (OperationalError, InterfaceError):
            if connection.in_atomic_block or is_hurried() or time.monotonic() + wait > ends:
                raise
            time.sleep(wait)
    raise AssertionError("The waits never end.")


def on_a_sound_connection(write: Callable[[], Result]) -> Result:
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
