"""Keys go in by the scan and come out thread by thread."""

from __future__ import annotations

import pytest

from ai_ops.adapters import key_spool
from ai_ops.adapters.checkpoint_store import batches
from ai_ops.adapters.key_spool import KeySpool
from ai_ops.core.checkpoint_keys import CheckpointKey, KeyParser

ID = b"1ec9414c-232a-6b00-b3c8-9e6bdeced846"


def keys_of(threads: int) -> list[CheckpointKey]:
    parse = KeyParser(1_780_000_000.0).parse
    raw = [b"checkpoint:t%d:%s:%s" % (number % threads, space, ID) for number in range(3_000) for space in (b"", b"c")]
    return [key for key in map(parse, raw) if key is not None]


@pytest.mark.parametrize("expected", [0, 10, 100_000, 10**9])
def test_what_goes_in_comes_out_with_each_thread_in_one_part(expected: int) -> None:
    keys = keys_of(100)
    with KeySpool(expected) as spool:
        for some in batches(keys, 250):
            spool.add(some)
        parts = list(spool)
    assert sorted(key for part in parts for key in part) == sorted(keys)
    homes: dict[bytes, set[int]] = {}
    for number, part in enumerate(parts):
        for key in part:
            homes.setdefault(key.thread, set()).add(number)
    assert all(len(numbers) == 1 for numbers in homes.values())
    assert len(parts) > 1 or expected < key_spool.KEYS_PER_PARTITION


def test_a_scan_that_begins_anew_forgets_what_it_had() -> None:
    with KeySpool(10**6) as spool:
        spool.add(keys_of(5))
        spool.clear()
        spool.add(keys_of(1)[:1])
        assert [key for part in spool for key in part] == keys_of(1)[:1]
