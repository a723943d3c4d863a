"""The generation: a number that tells each process whether its agents' clients are still up to date.

`ai_ops.models.AgentGeneration` keeps it: in PostgreSQL, where it grows in the transaction that changes a
server, and in the shared cache, where it is looked up at the start of each request. A process remembers
under which generation it built its tools and compares for equality.
"""

from __future__ import annotations

from contextlib import suppress

from django.core.cache import cache
from django.db import transaction
from django_redis.exceptions import ConnectionInterrupted
from redis.exceptions import RedisError

from ai_ops.exceptions import AgentCacheError
from ai_ops.models import AgentGeneration

_CACHE_ERRORS = (RedisError, ConnectionInterrupted)


def current_generation() -> int:
    """Return the current generation, from the database if the cache is unreachable.

    Read it before reading what the tools are built from: what changes in between then makes them look
    old, and never makes old ones look current.
    """
    try:
        mirrored = cache.get(AgentGeneration.MIRROR_KEY)
    except _CACHE_ERRORS:
        return AgentGeneration.current()
    if mirrored is not None:
        return mirrored
    number = AgentGeneration.current()
    with suppress(*_CACHE_ERRORS):
        # Only where there is still none: what a writer has put there meanwhile is newer.
        cache.add(AgentGeneration.MIRROR_KEY, number, AgentGeneration.MIRROR_SECONDS)
    return number


def clear_mcp_cache() -> int:
    """Make every process reload its agents' tools at its next request; return the new generation.

    Saving or deleting an MCPServer does this by itself; ``QuerySet.update()``, ``bulk_update()`` and
    ``bulk_create()`` don't. Inside a transaction it takes effect when that is committed.
    """
    with transaction.atomic():
        AgentGeneration.bump()
        return AgentGeneration.current()


def publish_generation() -> None:
    """Copy the database's generation to the shared cache.

    Raises:
        AgentCacheError: It could not be written.
    """
    try:
        AgentGeneration.mirror()
    except _CACHE_ERRORS as error:
        raise AgentCacheError(
            f"The shared cache failed ({error}), so agents learn of the changes up to "
            f"{AgentGeneration.MIRROR_SECONDS} s late: check Nautobot's Redis."
        ) from error
