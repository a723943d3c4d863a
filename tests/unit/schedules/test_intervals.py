"""Intervals as crontabs, and what tells whether beat lives."""

from datetime import UTC, datetime, timedelta

import pytest

from ai_ops.schedules.intervals import crontab_of
from ai_ops.schedules.lateness import GRACE, scheduler_runs

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("seconds", "crontab"),
    [
        (60, "* * * * *"),
        (300, "*/5 * * * *"),
        (1800, "*/30 * * * *"),
        (3600, "0 * * * *"),
        (7200, "0 */2 * * *"),
        (43_200, "0 */12 * * *"),
        (86_400, "0 0 * * *"),
        (604_800, "0 0 * * 0"),
    ],
)
def test_an_interval_that_a_crontab_can_say_is_that_crontab(seconds, crontab):
    assert crontab_of(seconds) == crontab


@pytest.mark.parametrize(
    ("seconds", "near"),
    [
        (0, "Give 60, or"),
        (-300, "Give 60, or"),
        (30, "Give 60, or"),
        (90, "Give 60 or 120, or"),
        (420, "Give 360 or 600, or"),  # */7 takes four minutes at the end of each hour
        (5400, "Give 3600 or 7200, or"),
        (18_000, "Give 14400 or 21600, or"),
        (172_800, "Give 86400 or 604800, or"),
        (10**9, "Give 604800, or"),
    ],
)
def test_an_interval_that_no_crontab_can_say_is_refused_with_what_can_be_said(seconds, near):
    with pytest.raises(ValueError, match=near):
        crontab_of(seconds)


@pytest.mark.parametrize("seconds", ["300", 300.0, True, None])
def test_an_interval_is_a_whole_number(seconds):
    with pytest.raises(ValueError, match="whole number of seconds"):
        crontab_of(seconds)


@pytest.mark.parametrize(
    ("last", "due", "runs"),
    [
        (None, NOON, False),  # it never started anything
        (NOON, None, False),  # nothing is scheduled, so nothing tells
        (NOON - MINUTE, NOON, True),
        (NOON - MINUTE, NOON - GRACE, True),
        (NOON - 2 * GRACE, NOON - GRACE - MINUTE, False),
        (NOON - MINUTE, NOON - 2 * GRACE, True),  # one schedule is late, and another was started since
        (NOON - timedelta(hours=20), NOON + timedelta(hours=4), True),  # once a day is often enough for a daily one
    ],
)
def test_beat_lives_while_it_starts_what_is_due(last, due, runs):
    assert scheduler_runs(last, due, NOON) is runs
