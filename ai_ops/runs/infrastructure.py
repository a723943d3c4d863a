"""Infrastructure failures: errors that a retry may fix, and that no server and no thread causes."""

from __future__ import annotations

from django.db import InterfaceError, OperationalError
from django_redis.exceptions import ConnectionInterrupted
from redis.exceptions import AuthenticationError, OutOfMemoryError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ai_ops.exceptions import AiOpsError, LeaseLostError

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
