"""The quiet time: which times of the day are in it."""

from __future__ import annotations

from datetime import time

import pytest

from ai_ops.logic.quiet_time import EXAMPLE, is_quiet, is_span


@pytest.mark.parametrize(
    ("span", "at", "quiet"),
    [
        ("22:00-06:00", "21:59", False),
        ("22:00-06:00", "22:00", True),
        ("22:00-06:00", "00:00", True),
        ("22:00-06:00", "05:59", True),
        ("22:00-06:00", "06:00", False),
        ("08:30-09:00", "08:30", True),
        ("08:30-09:00", "09:00", False),
        ("08:30-09:00", "23:00", False),
        ("", "03:00", False),
    ],
)
def test_a_time_is_in_the_span_from_its_beginning_up_to_its_end(span, at, quiet):
    assert is_quiet(span, time.fromisoformat(at)) is quiet


@pytest.mark.parametrize(
    "text", ["22-6", "22:00", "24:00-06:00", "22:00-22:00", "22:60-06:00", " 22:00-06:00", 22, None]
)
def test_what_is_no_span_is_told(text):
    assert not is_span(text)


def test_the_example_is_one():
    assert is_span(EXAMPLE)
