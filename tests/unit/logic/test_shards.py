"""Division of a fleet into shards."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from uuid import UUID

import pytest

from ai_ops.logic.shards import Shard, divided

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("servers", "size", "sizes"),
    [
        (0, 10, []),
        (1, 10, [1]),
        (10, 10, [10]),
        (11, 10, [5, 6]),
        (25, 10, [8, 8, 9]),
        (3, 1, [1, 1, 1]),
        (10_000, 5_000, [5_000, 5_000]),
    ],
)
def test_a_fleet_is_divided_into_as_few_equal_shards_as_will_do(servers, size, sizes):
    assert [count for _, count in divided([UUID(int=number) for number in range(servers)], size, NOON)] == sizes


def test_each_server_is_in_one_shard_whatever_the_order_and_nobody_is_between_the_keys_of_two():
    keys = [UUID(int=number * 7919 % 10_007) for number in range(1, 100)]
    shards = [shard for shard, _ in divided(keys, 8, NOON)]
    for key in keys:
        assert sum(shard.first <= key <= shard.last for shard in shards) == 1
    assert all(one.last < other.first for one, other in itertools.pairwise(shards))


def test_a_shard_is_written_as_text_and_read_again():
    shard = Shard(UUID(int=1), UUID(int=2), NOON)
    assert str(shard) == (
        "00000000-0000-0000-0000-000000000001/00000000-0000-0000-0000-000000000002/2026-05-01T12:00:00+00:00"
    )
    assert Shard.parse(str(shard)) == shard


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1/4",
        f"{UUID(int=2)}/{UUID(int=1)}/2026-05-01T12:00:00+00:00",
        f"{UUID(int=1)}/{UUID(int=2)}/2026-05-01T12:00:00",
        f"{UUID(int=1)}/{UUID(int=2)}/noon",
    ],
)
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(ValueError, match="is not a shard"):
        Shard.parse(text)
