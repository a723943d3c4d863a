"""The scripts that delete: only keys of the expected types go, and each other key is reported."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
import redis

from ai_ops.checkpoints.redis.deleter import TYPES, VALKEY_WRITES_TYPE
from ai_ops.checkpoints.redis.scripts import DROP_KEYS, DROP_POINTERS, GONE, OF_ANOTHER_TYPE

WRITERS = {
    "text": lambda client, key: client.set(key, "{}"),
    "empty text": lambda client, key: client.set(key, ""),
    "json": lambda client, key: client.json().set(key, "$", {}),
    "list": lambda client, key: client.rpush(key, "a"),
    "zset": lambda client, key: client.zadd(key, {"a": 0}),
    "set": lambda client, key: client.sadd(key, "a"),
    "hash": lambda client, key: client.hset(key, "a", "b"),
    "nothing": lambda client, key: None,
}
# Runs of one type, as the savers write them, and any order.
ORDERS = [
    ["text"] * 6, ["json"] * 6, ["zset"] * 6, ["nothing"] * 3, ["empty text"] * 3,
    ["text", "text", "hash", "text", "empty text", "text", "nothing", "json", "text"],
    ["json", "text", "text", "json", "zset", "zset", "set", "set", "zset", "list", "zset"],
    *(random.Random(seed).choices(list(WRITERS), k=12) for seed in range(40)),
]  # fmt: skip


@pytest.mark.parametrize("dryrun", [False, True])
def test_a_key_goes_if_its_type_is_expected_and_is_reported_otherwise(
    checkpoint_redis: redis.Redis, dryrun: bool
) -> None:
    expected_types = [*TYPES.values(), VALKEY_WRITES_TYPE]
    for number, (first, second) in enumerate(pairwise(ORDERS)):
        checkpoint_redis.flushall()
        parts = (first, expected_types[number % len(expected_types)]), (second, expected_types[number // 7])
        keys, words, replies, gone = [], [], [], set()
        for names, types in parts:
            words += [len(names), types]
            for name in names:
                key = b"key-%d" % len(keys)
                WRITERS[name](checkpoint_redis, key)
                kind = checkpoint_redis.type(key)
                if b"," + kind + b"," in types:
                    gone.add(key)
                else:
                    replies += [len(keys), GONE if kind == b"none" else OF_ANOTHER_TYPE]
                keys.append(key)
        before = set(checkpoint_redis.keys())
        assert checkpoint_redis.eval(DROP_KEYS, len(keys), *keys, int(dryrun), *words) == replies, parts
        assert set(checkpoint_redis.keys()) == (before if dryrun else before - gone), parts


def test_all_pointers_of_a_thread_go_or_none_however_many_there_are(checkpoint_redis: redis.Redis) -> None:
    counts = [1, 2500, 2, 1200, 3]
    keys = [b"key-%d" % number for number in range(sum(counts))]
    checkpoint_redis.mset(dict.fromkeys(keys, "value"))
    # Each second thread has a pointer that moved on.
    ends = [sum(counts[: place + 1]) for place in range(len(counts))]
    for place in (1, 3):
        checkpoint_redis.set(keys[ends[place] - 1], "another value")
    words = [0, len(counts), *counts, *["value"] * len(keys)]
    assert checkpoint_redis.eval(DROP_POINTERS, len(keys), *keys, *words) == [1, 0, 1, 0, 1]
    assert set(checkpoint_redis.keys()) == {*keys[1:2501], *keys[2503:3703]}
