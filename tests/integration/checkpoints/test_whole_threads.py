"""Whole threads that are deleted together fare as each of them would alone, whatever happens meanwhile."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
import redis

from ai_ops.checkpoints.logic.fast_path import QuickKeys
from ai_ops.checkpoints.logic.keys import KeyParser
from ai_ops.checkpoints.logic.retention import DAY, RetentionPolicy
from ai_ops.checkpoints.logic.whole_threads import WholeThreads
from ai_ops.checkpoints.redis.store import CheckpointStore
from development.bench_cleanup import LAYOUTS

THREADS = 12
POINTERS = {"ValkeySaver": "thread:{user-%d}:", "RedisSaver": "checkpoint_latest:user-%d:__empty__"}


def written(layout: str) -> list[tuple[Any, ...]]:
    """The commands that write some old threads."""
    return [command for number in range(THREADS) for command in LAYOUTS[layout](number, 60)]


def a_pointer_moves_on(client: redis.Redis, layout: str, keys: Sequence[bytes]) -> None:
    if layout == "ValkeySaver":
        client.lpush(POINTERS[layout] % 3, "a-newer-checkpoint")
    elif layout in POINTERS:
        client.set(POINTERS[layout] % 3, "checkpoint:user-3:__empty__:a-newer-checkpoint")


def a_pointer_is_of_another_type(client: redis.Redis, layout: str, keys: Sequence[bytes]) -> None:
    if layout in POINTERS:
        client.delete(POINTERS[layout] % 5)
        client.sadd(POINTERS[layout] % 5, "a member")


def two_keys_are_of_another_type(client: redis.Redis, layout: str, keys: Sequence[bytes]) -> None:
    for key in (keys[0], keys[-2]):
        client.delete(key)
        client.sadd(key, "a member")


def some_keys_are_gone(client: redis.Redis, layout: str, keys: Sequence[bytes]) -> None:
    client.delete(*keys[4:7])


def all_of_these(client: redis.Redis, layout: str, keys: Sequence[bytes]) -> None:
    for each in (a_pointer_moves_on, a_pointer_is_of_another_type, two_keys_are_of_another_type, some_keys_are_gone):
        each(client, layout, keys)


def nothing(client: redis.Redis, layout: str, keys: Sequence[bytes]) -> None:
    """Leave all as it was decided on."""


@pytest.mark.parametrize("layout", ["plain", "ValkeySaver", "RedisSaver"])
@pytest.mark.parametrize("dryrun", [False, True])
def test_threads_that_are_deleted_together_fare_as_each_would_alone(
    checkpoint_redis: redis.Redis, monkeypatch: pytest.MonkeyPatch, layout: str, dryrun: bool
) -> None:
    commands, now = written(layout), time.time()
    keys = sorted({command[1].encode() for command in commands})
    parser = KeyParser(now)
    policy = RetentionPolicy(30 * DAY, 30 * DAY)
    (threads,) = QuickKeys(parser).decide(b"\n".join(keys), (), policy, now).expired
    assert len(threads) == THREADS
    store = CheckpointStore(checkpoint_redis, parser, sleep=lambda seconds: None)

    def outcomes_of(deletions: Any, meanwhile: Any, parts: int = 0) -> tuple[list[Any], set[bytes]]:
        checkpoint_redis.delete(*keys)
        for command in commands:
            checkpoint_redis.execute_command(*command)
        meanwhile(checkpoint_redis, layout, keys)
        under_way = [store.apply(each, dryrun=dryrun) for each in (deletions.parts(parts) if parts else [deletions])]
        outcomes = [outcome for each in under_way for outcome in each()]
        return outcomes, set(checkpoint_redis.keys("*"))

    happenings = (
        nothing, a_pointer_moves_on, a_pointer_is_of_another_type, two_keys_are_of_another_type, some_keys_are_gone,
        all_of_these,
    )  # fmt: skip
    for keys_per_command in (100, 8, 3):
        monkeypatch.setattr("ai_ops.checkpoints.redis.deleter.KEYS_PER_COMMAND", keys_per_command)
        for meanwhile in happenings:
            alone, left = outcomes_of(list(threads), meanwhile)
            assert outcomes_of(threads, meanwhile) == (alone, left), (meanwhile.__name__, keys_per_command)
            assert outcomes_of(threads, meanwhile, parts=5) == (alone, left), (meanwhile.__name__, keys_per_command)
            if meanwhile is nothing:
                assert sum(each.deleted for each in alone) == len(keys) == sum(threads.sizes)
                assert bool(left) == dryrun


def test_the_next_pointers_go_before_the_documents_so_that_redis_is_not_waited_for(
    checkpoint_redis: redis.Redis,
) -> None:
    for command in written("ValkeySaver"):
        checkpoint_redis.execute_command(*command)
    now = time.time()
    parser, policy = KeyParser(now), RetentionPolicy(30 * DAY, 30 * DAY)
    store = CheckpointStore(checkpoint_redis, parser, sleep=lambda seconds: None)
    keys = b"\n".join(checkpoint_redis.keys("*"))
    (threads,) = QuickKeys(parser).decide(keys, (), policy, now).expired
    first, second = threads.parts(THREADS // 2)

    def left() -> list[list[bool]]:
        """Return of each part whether its first and last pointers and documents are there."""
        store.redis.settle()
        parts = [(each.pointers, each.shares[0].keys) for each in (first, second)]
        return [[bool(checkpoint_redis.exists(some[0], some[-1])) for some in part] for part in parts]

    outcomes = store.apply(first, dryrun=False)
    assert left() == [[False, True], [True, True]]
    store.apply(second, dryrun=False)
    assert left() == [[False, False], [False, True]]
    assert [each.deleted for each in outcomes()] == first.sizes
    assert left() == [[False, False], [False, True]], "only what is asked for is waited for"


def test_parts_of_threads_have_the_same_deletions_as_all_of_them() -> None:
    now = time.time()
    keys = [command[1].encode() for command in written("RedisSaver")]
    policy = RetentionPolicy(30 * DAY, 30 * DAY)
    (threads,) = QuickKeys(KeyParser(now)).decide(b"\n".join(dict.fromkeys(keys)), (), policy, now).expired
    for size in (1, 5, THREADS, 2 * THREADS):
        parts = list(threads.parts(size))
        assert all(isinstance(part, WholeThreads) and len(part) <= size for part in parts)
        assert [each for part in parts for each in part] == list(threads)
        assert [size for part in parts for size in part.sizes] == [each.size for each in threads]
