"""Retries of runs: how long the waits are, and when there is none any more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_ops.runs.retries import BACKOFF_BASE_SECONDS, BACKOFF_CAP_SECONDS, GiveUp, TryAgain, after_failure

ALMOST_ONE = 1 - 2**-53


@pytest.mark.parametrize(
    ("attempt", "bound"),
    [
        (1, 30),
        (2, 60),
        (3, 120),
        (7, 1920),
        (8, 3600),  # 3840 without the cap
        (9, 3600),
        (40, 3600),
    ],
)
def test_the_bound_of_a_wait_doubles_up_to_an_hour(attempt, bound):
    assert after_failure(attempt, 100, lambda: 0.5) == TryAgain(bound / 2)
    assert after_failure(attempt, 100, lambda: 0.0) == TryAgain(0.0)


def test_the_last_attempt_is_followed_by_none():
    assert isinstance(after_failure(4, 5, lambda: 0.5), TryAgain)
    assert after_failure(5, 5, lambda: 0.5) == GiveUp("tried 5 time(s), which is the limit")
    assert isinstance(after_failure(6, 5, lambda: 0.5), GiveUp)
    assert isinstance(after_failure(1, 1, lambda: 0.5), GiveUp)


@given(st.integers(1, 200), st.floats(0, ALMOST_ONE))
def test_no_wait_is_longer_than_the_cap(attempt, drawn):
    decided = after_failure(attempt, 1000, lambda: drawn)
    assert isinstance(decided, TryAgain)
    assert 0 <= decided.seconds <= min(BACKOFF_CAP_SECONDS, BACKOFF_BASE_SECONDS * 2 ** (attempt - 1))
