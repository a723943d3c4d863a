"""Reads of Nautobot's cache by many validations in a row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.cache import DEFAULT_CACHE_ALIAS, caches
from django.core.cache.backends.base import BaseCache


@contextmanager
def cache_read_once() -> Iterator[None]:
    """Read each key of Django's default cache once in this block, in this thread.

    Each validation of an object asks the cache for the rules of Nautobot's data validation, four times an object.
    Nautobot's own ``request_cache`` does not cover these. Use this for a block of a second at most: the block does not
    see what other processes change meanwhile. It sees all that it changes itself.
    """
    cache = caches[DEFAULT_CACHE_ALIAS]
    caches[DEFAULT_CACHE_ALIAS] = reads = _ReadOnce(cache)
    try:
        yield
    finally:
        # Another one may have been set up in the block.
        if caches[DEFAULT_CACHE_ALIAS] is reads:
            caches[DEFAULT_CACHE_ALIAS] = cache


class _ReadOnce:
    """A cache that remembers what was read from it, until something other than a read is asked of it."""

    def __init__(self, cache: BaseCache) -> None:
        self._cache = cache
        self._read: dict[tuple[str, int | None], Any] = {}

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        """Return the value of a key, `default` where it has none."""
        asked = key, version
        if asked not in self._read:
            self._read[asked] = self._cache.get(key, _NOTHING, version)
        found = self._read[asked]
        return default if found is _NOTHING else found

    def __getattr__(self, name: str) -> Any:
        # Most of these are writes; what was read before one may be wrong after it.
        self._read.clear()
        return getattr(self._cache, name)

    def __contains__(self, key: str) -> bool:
        return key in self._cache


_NOTHING = object()
