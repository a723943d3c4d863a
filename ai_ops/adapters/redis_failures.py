"""The one map from what Redis, or its client, says to a sentence on what to do."""

from __future__ import annotations

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

# What an ACL must allow; the documentation of the installation has the same list, with INFO, which is optional.
COMMANDS = (
    "SCAN", "DBSIZE", "TYPE", "GET", "GETRANGE", "LINDEX", "LREM", "EXISTS", "ZRANGE", "JSON.GET", "EVAL", "SET",
    "UNLINK", "SELECT",
)  # fmt: skip


def explain(error: RedisError) -> str:
    """What to do about an error of Redis, in a sentence."""
    said = str(error).rstrip(".")
    if isinstance(error, AuthenticationError):
        return (
            f"The checkpoint Redis refused the user name or password ({said}): "
            "check LANGGRAPH_REDIS_URL, or NAUTOBOT_REDIS_USERNAME and NAUTOBOT_REDIS_PASSWORD."
        )
    if isinstance(error, NoPermissionError) or "ACL failure" in said:
        return (
            f"The checkpoint Redis user lacks a permission ({said}): grant it with ACL SETUSER; the cleanup needs "
            f"{', '.join(COMMANDS[:-1])} and {COMMANDS[-1]}, and INFO for memory_limit_mb."
        )
    if "DB index is out of range" in said:
        return (
            f"The checkpoint Redis has no such database ({said}): "
            "set LANGGRAPH_REDIS_DB, or the number at the end of LANGGRAPH_REDIS_URL, to one that it has."
        )
    if isinstance(error, ReadOnlyError) or "READONLY" in said:
        return (
            f"The checkpoint Redis is a read-only replica ({said}): "
            "point LANGGRAPH_REDIS_URL at the primary, or at Sentinel."
        )
    if isinstance(error, BusyLoadingError):
        return f"The checkpoint Redis is still loading its data ({said}): run the cleanup again when it has finished."
    if isinstance(error, RedisConnectionError | RedisTimeoutError):
        return (
            f"The checkpoint Redis can't be reached ({said}): check that it runs and that LANGGRAPH_REDIS_URL, "
            "or NAUTOBOT_REDIS_HOST and NAUTOBOT_REDIS_PORT, name it. The next run goes on from here."
        )
    return f"The checkpoint Redis refused a command ({said}): see its log; the next run goes on from here."


def is_about_the_value(error: RedisError) -> bool:
    """Whether the error says something of one key's value rather than of the server or the user."""
    if isinstance(error, NoPermissionError | ReadOnlyError | BusyLoadingError) or not isinstance(error, ResponseError):
        return False
    text = str(error)
    if "unknown command 'JSON." in text:
        # Without RedisJSON there are no JSON documents: whatever the key holds, it is none.
        return True
    return "WRONGTYPE" in text or "wrong kind of value" in text or "wrong Redis type" in text or "Path" in text
