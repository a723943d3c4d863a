"""The trend in words."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from ai_ops.checkpoints.logic.trend import days_to_limit, limit_sentence, slope

MIB = 1024 * 1024


def days(*used):
    return [(date(2026, 11, 1) + timedelta(days=number), each) for number, each in enumerate(used)]


def test_the_slope_is_that_of_the_line_that_fits_best():
    assert slope([(0, 1), (1, 3), (2, 5)]) == 2
    assert slope([(0, 1), (1, 1), (2, 4), (3, 4)]) == pytest.approx(1.2)
    assert slope([(5, 7)]) == 0


@pytest.mark.parametrize(
    ("used", "limit", "said"),
    [
        ((10, 20, 30, 40), 100, "in about 6 days, on 2026-11-10"),
        ((40, 40, 40), 100, "does not reach"),
        ((40, 30, 20), 100, "does not reach"),
        ((40, None, 41, 42), 1_000_000, "does not reach"),
        ((40, 41), 100, "after 3 days"),
        ((98, 99, 100), 100, "has reached"),
        ((98, 99, 100), None, "no maxmemory"),
    ],
)
def test_the_sentence_says_when_the_limit_is_reached(used, limit, said):
    known = [None if each is None else each * MIB for each in used]
    assert said in limit_sentence(days(*known), limit and limit * MIB)


@pytest.mark.parametrize(
    ("used", "limit", "left"),
    [
        ((10, 20, 30, 40), 100, 6),
        ((40, 40, 40), 100, None),
        ((98, 99, 100), 100, 0),
        ((1, 2), 3, None),
        ((1, 2, 3), None, None),
    ],
)
def test_the_days_to_the_limit_are_those_of_the_sentence(used, limit, left):
    assert days_to_limit(days(*used), limit) == left
