"""Texts for durations and ages."""

from datetime import UTC, datetime, timedelta

import pytest

from ai_ops.logic.durations import duration
from ai_ops.logic.relative_times import age

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-3, "0 ms"),
        (0, "0 ms"),
        (0.412, "412 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (3.2, "3.2 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min"),
        (60, "1 min"),
        (252, "4 min 12 s"),
        (3_599.4, "59 min 59 s"),
        (3_599.6, "1 h"),
        (7_500, "2 h 5 min"),
        (86_399, "23 h 59 min"),
        (86_400, "1 d"),
        (273_600, "3 d 4 h"),
        (40_000_000, "462 d 23 h"),
    ],
)
def test_a_duration_has_at_most_two_units(seconds, said):
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("ago", "said"),
    [
        (timedelta(0), "just now"),
        (timedelta(seconds=9.9), "just now"),
        (timedelta(seconds=-9.9), "just now"),
        (timedelta(seconds=45), "45 s ago"),
        (timedelta(seconds=59.9), "59 s ago"),
        (timedelta(minutes=25, seconds=59), "25 min ago"),
        (timedelta(hours=2, minutes=59), "2 h ago"),
        (timedelta(hours=47), "47 h ago"),
        (timedelta(days=2), "2 days ago"),
        (timedelta(days=400), "400 days ago"),
        (timedelta(minutes=-5), "in 5 min"),
        (timedelta(days=-3), "in 3 days"),
    ],
)
def test_an_age_has_one_unit_and_a_direction(ago, said):
    assert age(NOW - ago, NOW) == said
