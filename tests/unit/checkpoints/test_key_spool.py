"""Keys go in by the scan and come out thread by thread."""

from __future__ import annotations

import pytest

from ai_ops.checkpoints.logic.keys import CheckpointKey, KeyParser
from ai_ops.checkpoints.redis import key_spool
from ai_ops.checkpoints.redis.key_spool import KeySpool
from ai_ops.logic.batches import batches

ID = b"1ec9414c-232a-6b00-b3c8-9e6bdeced846"


def threads_of(keys):
    return [key.split(b":")[1] for key in keys]


def keys_of(threads: int) -> list[CheckpointKey]:
    parse = KeyParser(1_780_000_000.0).parse
    raw = [b"checkpoint:t%d:%s:%s" % (number % threads, space, ID) for number in range(3_000) for space in (b"", b"c")]
    return [key for key in map(parse, raw) if key is not None]


@pytest.mark.parametrize("expected", [0, 10, 100_000, 10**9])
def test_what_goes_in_comes_out_with_each_thread_in_one_part(expected: int) -> None:
    keys = keys_of(100)
    with KeySpool(expected, threads_of) as spool:
        for some in batches(keys, 250):
            spool.add(some)
        parts = list(spool)
    assert not any(part.text for part in parts)
    assert sorted(key for part in parts for key in part.keys) == sorted(keys)
    homes: dict[bytes, set[int]] = {}
    for number, part in enumerate(parts):
        for key in part.keys:
            homes.setdefault(key.thread, set()).add(number)
    assert all(len(numbers) == 1 for numbers in homes.values())
    assert len(parts) > 1 or expected < key_spool.KEYS_PER_PARTITION


def test_a_scan_that_begins_anew_forgets_what_it_had() -> None:
    with KeySpool(10**6, threads_of) as spool:
        spool.add(keys_of(5))
        spool.clear()
        spool.add(keys_of(1)[:1])
        assert [key for part in spool for key in part.keys] == keys_of(1)[:1]


@pytest.mark.parametrize("memory", [0, 10_000, key_spool.MEMORY_BYTES])
def test_keys_as_they_are_and_keys_taken_apart_meet_in_memory_and_on_disk(
    memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_spool, "MEMORY_BYTES", memory)
    keys = keys_of(1_000)
    raw = [b"checkpoint:t%d:%s" % (number, ID) for number in range(1_000)] * 2
    with KeySpool(100_000, threads_of) as spool:
        for some in batches(zip(raw, keys, strict=False), 250):
            spool.add_text([text for text, _ in some], threads_of([text for text, _ in some]))
            spool.add([key for _, key in some])
        spool.add_text([b"left out"], [b""])
        parts = list(spool)
    assert sorted(line for part in parts for line in part.text.split(b"\n") if line) == sorted(raw)
    assert sorted(key for part in parts for key in part.keys) == sorted(keys[: len(raw)])
    for part in parts:
        names = {line.split(b":")[1] for line in part.text.split(b"\n") if line}
        assert names == {key.thread for key in part.keys}


@pytest.mark.parametrize(("limit", "value"), [("MOST_BYTES", 20_000), ("MOST_KEYS", 100)])
@pytest.mark.parametrize("expected", [0, 100_000])
def test_a_part_of_many_keys_or_long_ones_is_divided(
    limit: str, value: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, small in ((limit, value), ("BUFFERED_KEYS", 10), ("KEYS_PER_PARTITION", 20)):
        monkeypatch.setattr(key_spool, name, small)
    keys = keys_of(500)
    raw = [b"checkpoint:t%d:%s" % (number % 500, ID) for number in range(2_000)]
    with KeySpool(expected // 5_000, threads_of) as spool:
        spool.add_text(raw, threads_of(raw))
        spool.add(keys)
        parts = list(spool)
    assert sorted(line for part in parts for line in part.text.split(b"\n") if line) == sorted(raw)
    assert sorted(key for part in parts for key in part.keys) == sorted(keys)
    threads = [
        {*threads_of(filter(None, part.text.split(b"\n"))), *(key.thread for key in part.keys)} for part in parts
    ]
    assert sum(map(len, threads)) == 500, "each in one part"
    assert max(len(part.text) + sum(len(key.key) for key in part.keys) for part in parts) < 20_000


def test_a_thread_that_is_too_large_for_a_part_has_one_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_spool, "MOST_KEYS", 100)
    keys = keys_of(1)
    with KeySpool(0, threads_of) as spool:
        spool.add(keys)
        spool.add(keys_of(3_000)[:1000])
        parts = list(spool)
    assert max(len(part.keys) for part in parts) >= len(keys)
    assert sum(len(part.keys) for part in parts) == len(keys) + 1000


def test_what_waits_to_be_packed_is_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_spool, "BUFFERED_BYTES", 10_000)
    with KeySpool(10**9, threads_of) as spool:
        for number in range(1_000):
            key = b"checkpoint:t%d:%s" % (number, b"n" * 500)
            spool.add_text([key], threads_of([key]))
            assert sum(len(text) for texts in spool._text for text in texts) < 11_000
