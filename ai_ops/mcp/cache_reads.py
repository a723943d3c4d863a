"""Fewer reads of Nautobot's cache during many validations in a row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.cache import DEFAULT_CACHE_ALIAS, caches
from django.core.cache.backends.base import BaseCache


@contextmanager
def cache_read_once() -> Iterator[None]:
    """Read each key of Django's default cache once in this block, in this thread.

    Each validation of an object reads the rules of Nautobot's data validation from the cache, four times per object.
    Nautobot's own ``request_cache`` does not cover these reads. Use this for a block of at most a second, because the
    block does not see changes by other processes. It sees its own changes.
    """
    cache = caches[DEFAULT_CACHE_ALIAS]
    caches[DEFAULT_CACHE_ALIAS] = reads = _ReadOnce(cache)
    try:
        yield
    finally:
        # Other code may have replaced the cache in the block.
        if caches[DEFAULT_CACHE_ALIAS] is reads:
            caches[DEFAULT_CACHE_ALIAS] = cache


class _ReadOnce:
    """A cache that keeps the values of its reads until any other call."""

    def __init__(self, cache: BaseCache) -> None:
        self._cache = cache
        self._read: dict[tuple[str, int | None], Any] = {}

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        """Return the value of a key, or `default` if it has none."""
        asked = key, version
        if asked not in self._read:
            self._read[asked] = self._cache.get(key, _NOTHING, version)
        found = self._read[asked]
        return default if found is _NOTHING else found

    def __getattr__(self, name: str) -> Any:
        # Most of these calls are writes, after which earlier reads may be wrong.
        self._read.clear()
        return getattr(self._cache, name)

    def __contains__(self, key: str) -> bool:
        return key in self._cache


_NOTHING = object()
