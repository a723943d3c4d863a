"""Retention policies: their durations and patterns, and the policy that holds for a thread."""

from __future__ import annotations

import fnmatch
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_ops.logic.globs import MAX_STARS, why_no_glob
from ai_ops.logic.policies import FOREVER, NO_POLICY, Policy, PolicyIndex, duration_text, read_duration


@pytest.mark.parametrize(
    ("text", "seconds", "shown"),
    [
        ("1h", 3600, "1 hour"),
        ("12 hours", 43_200, "12 hours"),
        (" 24 H ", 86_400, "1 day"),
        ("30 days", 2_592_000, "30 days"),
        ("36 hours", 129_600, "36 hours"),
        ("3650d", 315_360_000, "3650 days"),
        ("forever", FOREVER, "forever"),
        ("For ever", FOREVER, "forever"),
    ],
)
def test_a_retention_is_read_and_shown(text, seconds, shown):
    assert read_duration(text) == seconds
    assert duration_text(seconds) == shown
    assert read_duration(shown) == seconds


@pytest.mark.parametrize(
    "text", ["", "0 hours", "0 days", "30", "-1 days", "3651 days", "1.5 days", "99999999 days", "x"]
)
def test_what_is_no_retention_is_refused_with_a_sentence(text):
    with pytest.raises(ValueError, match=r"^Enter .*\.$"):
        read_duration(text)


@pytest.mark.parametrize("pattern", ["", "x" * 256, "a\nb", "a\0b", "*a" * (MAX_STARS + 1)])
def test_what_is_no_pattern_is_refused_with_a_sentence(pattern):
    assert (why_no_glob(pattern) or "").endswith(".")


letters = st.text(alphabet="ab-*?[]!{}:ü\n", max_size=8)
patterns = st.lists(letters.filter(lambda text: why_no_glob(text) is None), min_size=1, max_size=3)


@given(st.lists(patterns, max_size=6), st.lists(letters, max_size=8))
def test_the_first_policy_that_matches_holds_whatever_the_patterns(all_patterns, names):
    index = PolicyIndex([Policy(str(rank), tuple(some)) for rank, some in enumerate(all_patterns)])
    for name in names:
        matching = [
            rank for rank, some in enumerate(all_patterns) if any(fnmatch.fnmatchcase(name, each) for each in some)
        ]
        assert index.ranks_of_each([name.encode()]) == [min(matching, default=NO_POLICY)]
        braced = b"{" + name.encode() + b"}"
        assert index.ranks_of_braced([braced]) == index.ranks_of_each([braced])


def test_hostile_names_and_patterns_cost_little():
    """Eight kilobytes of a letter against the patterns that make a naive matcher try each way to divide them."""
    policies = [Policy(str(number), ("*a" * MAX_STARS + "b", "*[!b]" * MAX_STARS + "b")) for number in range(50)]
    index = PolicyIndex(policies)
    started = time.process_time()
    assert index.ranks_of_each([b"a" * 8192]) == [NO_POLICY]
    assert index.ranks_of_each([b"\xff\xfe" * 4096]) == [NO_POLICY]
    assert time.process_time() - started < 30, "hours, if each way were tried"


def test_fifty_policies_cost_no_more_than_a_few_look_ups():
    names = [f"team-{number % 60:02}-{number}".encode() for number in range(5_000)]

    def timed(policies):
        index = PolicyIndex(
            [Policy(str(number), (f"team-{number:02}-*", f"bot-{number}")) for number in range(policies)]
        )
        started = time.process_time()
        return index.ranks_of_each(names), time.process_time() - started

    found, fifty = timed(50)
    assert found[:60] == [*range(50), *[NO_POLICY] * 10]
    assert fifty < 10 * min(timed(1)[1] for _ in range(3)), "a look at each would take fifty times as long"
