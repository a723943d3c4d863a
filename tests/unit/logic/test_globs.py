"""Globs over thread ids, and the text by which Redis leaves out other keys."""

from __future__ import annotations

import fnmatch
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_ops.logic.globs import common_text, literal_end, literal_start, longest_plain


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("user-42-*", "user-42-"),
        ("*-archive", "-archive"),
        ("a*longer?b", "longer"),
        ("a[bc]defgh", "a"),
        ("*", ""),
        ("[ab]*", ""),
        ("a b{c}d*", "a"),
        ("münchen", "nchen"),
    ],
)
def test_the_common_text_is_the_longest_that_all_matches_have(pattern, text):
    assert common_text(pattern) == text


@given(st.text(alphabet="ab-{} é*?[]!", max_size=8), st.text(alphabet="ab-{} é]!", max_size=8))
def test_every_match_has_it_as_it_is_and_in_the_keys_of_the_compact_saver(pattern, name):
    if fnmatch.fnmatchcase(name, pattern):
        assert common_text(pattern) in name
        assert common_text(pattern) in quote(name, safe=":/@,+=~")


@given(st.text(alphabet="ab[]!*?", max_size=6), st.text(alphabet="ab[]!", max_size=6))
def test_every_match_begins_and_ends_as_the_pattern_does(pattern, name):
    if fnmatch.fnmatchcase(name, pattern):
        assert name.startswith(literal_start(pattern))
        assert name.endswith(literal_end(pattern))


def test_of_several_texts_the_longest_part_counts():
    assert longest_plain("a b", "", "{cd}") == "cd"
    assert longest_plain() == ""
