"""A number in the shared cache by which every process knows whether its MCP client is still right.

A process remembers under which generation it built its client and compares before each use. The number
is never compared with less or greater, only with equal, so it must never return to a value that some
process may still remember, not even after the cache was flushed, evicted the key or was replaced. A
generation that has to be made anew therefore starts at the microsecond it is made: ahead of every number
before it, which began at an earlier microsecond and grew by one with each flip.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from django.core.cache import cache
from django_redis.exceptions import ConnectionInterrupted
from redis.exceptions import RedisError

from ai_ops.exceptions import AgentCacheError

GENERATION_KEY = "ai_ops.mcp_client_generation"


def current_generation() -> int:
    """The generation that a client built from now on belongs to.

    Read it before reading what the client is built from: what changes in between then makes the client
    look old, and never makes an old client look current.

    Raises:
        AgentCacheError: The shared cache could not be read.
    """
    with _cache_errors():
        return _known(cache.get_or_set(GENERATION_KEY, _unseen, timeout=None))


def clear_mcp_cache() -> int:
    """Make every process drop its MCP client before its next use, and return the new generation.

    Call it after the change is committed, or a process could build a client from the old rows under the
    new generation.

    Raises:
        AgentCacheError: The shared cache could not be written; clients stay as they are.
    """
    with _cache_errors():
        try:
            return _known(cache.incr(GENERATION_KEY))
        except ValueError:
            # No number at all. Whoever makes one, this process or another, makes one nobody has seen.
            return _known(cache.get_or_set(GENERATION_KEY, _unseen, timeout=None))


def _unseen() -> int:
    """Microseconds since 1970. Not nanoseconds: django-redis adds in Lua, which is exact up to 2**53 only."""
    return time.time_ns() // 1000


def _known(generation: int | None) -> int:
    """Turn the None with which a cache that is told to ignore its errors answers into an error."""
    if generation is None:
        raise AgentCacheError(
            "The shared cache did not answer, so agents keep their MCP clients: check Nautobot's Redis."
        )
    return generation


@contextmanager
def _cache_errors() -> Iterator[None]:
    try:
        yield
    except (RedisError, ConnectionInterrupted) as error:
        raise AgentCacheError(
            f"The shared cache failed ({error}), so agents keep their MCP clients: check Nautobot's Redis."
        ) from error
