"""Worlds of keys that are made once: conversations take a hundred times as long as their keys."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import redis

_made: dict[Hashable, dict[bytes, bytes]] = {}


def everything(client: redis.Redis) -> dict[bytes, bytes]:
    """Return all keys, with their values as DUMP writes them."""
    keys = list(client.scan_iter(count=1000))
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.dump(key)
        return dict(zip(keys, pipeline.execute(), strict=True))


def write(client: redis.Redis, name: Hashable, make: Callable[[], object]) -> None:
    """Call `make` to write a world, and write the same keys at later calls with this name.

    The keys of a world must be new: of one that was there before nothing is kept.
    """
    if name not in _made:
        before = everything(client)
        make()
        _made[name] = {key: value for key, value in everything(client).items() if key not in before}
        return
    with client.pipeline(transaction=False) as pipeline:
        for key, value in _made[name].items():
            pipeline.restore(key, 0, value)
        pipeline.execute()
