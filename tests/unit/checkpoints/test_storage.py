"""Counts of threads, without a Redis."""

from __future__ import annotations

import pytest

from ai_ops.checkpoints.logic.keys import KeyParser
from ai_ops.checkpoints.logic.retention import DAY
from ai_ops.checkpoints.logic.storage import (
    SIZED_KEYS,
    SIZED_KEYS_PER_THREAD,
    SIZED_THREADS,
    StorageTally,
    age_bars,
    shown_id,
)
from ai_ops.checkpoints.logic.threads import group_threads

NOW = 1_800_000_000.0


def plain(thread: str, days: float, number: int = 0) -> bytes:
    milliseconds = int((NOW - days * DAY) * 1000) + number
    digits = f"{milliseconds:012x}"
    return f"checkpoint:{thread}:{digits[:8]}-{digits[8:]}-7000-8000-{number:012d}".encode()


def tally_of(*keys: bytes, pins: frozenset[str] = frozenset()) -> StorageTally:
    parser = KeyParser(NOW)
    tally = StorageTally(NOW, pins)
    tally.add(group_threads(filter(None, map(parser.parse, keys))))
    return tally


@pytest.mark.parametrize(
    ("days", "unit", "labels"),
    [
        ({}, "day", ["0"]),
        ({0: 1}, "day", ["0"]),
        ({3: 1}, "day", ["0", "1", "2", "3"]),
        ({30: 1}, "day", [str(day) for day in range(31)]),
        ({31: 1}, "week", [str(week) for week in range(5)]),
        ({52 * 7 + 6: 1}, "week", [str(week) for week in range(53)]),
        ({53 * 7: 1}, "week", [*[str(week) for week in range(52)], "52+"]),
        ({3650: 1}, "week", [*[str(week) for week in range(52)], "52+"]),
    ],
)
def test_bars_are_days_up_to_a_month_else_weeks_up_to_a_year(days, unit, labels):
    found, bars = age_bars(days, {})
    assert (found, [bar["label"] for bar in bars]) == (unit, labels)
    assert sum(bar["keys"] for bar in bars) == sum(days.values())
    assert bars[-1]["keys"] == sum(days.values())


def test_a_thread_is_as_old_as_its_newest_checkpoint_and_keys_are_as_old_as_they_are():
    _, bars = tally_of(plain("a", 5.5), plain("a", 2.5)).bars()
    assert [(bar["keys"], bar["threads"]) for bar in bars] == [(0, 0), (0, 0), (1, 1), (0, 0), (0, 0), (1, 0)]


def test_what_is_remembered_does_not_grow_with_the_number_of_keys():
    tally = tally_of(*[plain(f"t{number}", number / 100, each) for number in range(300) for each in range(100)])
    assert len(tally.sample()) == SIZED_KEYS
    assert len(tally.candidates()) == SIZED_THREADS * SIZED_KEYS_PER_THREAD
    assert len(tally.oldest()) == len(tally.largest({})) == 10


def test_the_size_of_a_thread_is_scaled_from_its_measured_keys():
    keys = [plain("a", 1, each) for each in range(100)]
    tally = tally_of(*keys)
    assert tally.largest(dict.fromkeys(keys, 7))[0]["bytes"] == 700
    assert tally.largest({})[0]["bytes"] is None


def test_a_pin_is_missing_unless_something_may_be_of_its_thread():
    tally = tally_of(plain("a", 1), plain("a:b", 1), pins=frozenset({"a", "a:b", "c"}))
    assert tally.missing_pins == {"c"}


@pytest.mark.parametrize(
    ("name", "text"),
    [(b"a\x00b", "a\\x00b"), (b"\xff", "\\xff"), ("ü".encode(), "ü"), (b"x" * 121, "x" * 119 + "…")],
)
def test_an_id_is_shown_as_text_that_every_database_takes(name, text):
    assert shown_id(name) == text
