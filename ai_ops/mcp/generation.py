"""The generation: a number with which each process checks whether its agents' clients are up to date.

`ai_ops.models.AgentGeneration` stores it in PostgreSQL, where it increases in the transaction that changes a server,
and in the shared cache, where it is read at the start of each request. A process remembers the generation of its tools
and compares for equality.
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
    """Return the current generation, from the database if the cache is unavailable.

    Read it before reading the servers for the tools. A change in between then makes the tools look old, but old tools
    never look current.
    """
    try:
        mirrored = cache.get(AgentGeneration.MIRROR_KEY)
    except _CACHE_ERRORS:
        return AgentGeneration.current()
    if mirrored is not None:
        return mirrored
    number = AgentGeneration.current()
    with suppress(*_CACHE_ERRORS):
        # Only if there is still none, because the value of another writer is newer.
        cache.add(AgentGeneration.MIRROR_KEY, number, AgentGeneration.MIRROR_SECONDS)
    return number


def clear_mcp_cache() -> int:
    """Make every process reload its agents' tools at its next request; return the new generation.

    Saving or deleting an MCPServer does this automatically; ``QuerySet.update()``, ``bulk_update()`` and
    ``bulk_create()`` do not. Inside a transaction it takes effect at the commit.
    """
    with transaction.atomic():
        AgentGeneration.bump()
        return AgentGeneration.current()


def publish_generation() -> None:
    """Copy the database's generation to the shared cache.

    Raises:
        AgentCacheError: The cache could not be written.
    """
    try:
        AgentGeneration.mirror()
    except _CACHE_ERRORS as error:
        raise AgentCacheError(
            f"The shared cache failed ({error}), so agents may notice the changes up to "
            f"{AgentGeneration.MIRROR_SECONDS} s late: check Nautobot's Redis."
        ) from error
