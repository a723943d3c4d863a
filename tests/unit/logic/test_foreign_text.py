"""Text of others is shown as what it is, wherever it is shown."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_ops.logic.foreign_text import HarmlessArguments, for_csv, for_markdown, printable


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠"])
@pytest.mark.parametrize("before", ["", " ", "\ufeff", "\u200b", "\n", "\xa0"])
def test_a_cell_that_a_spreadsheet_would_take_for_a_formula_gets_an_apostrophe(sign, before):
    assert for_csv(f"{before}{sign}1+1").startswith("'")


@pytest.mark.parametrize("value", ["user-1", "1=1", "", " ", "a\tb", "'=1", None, -5, -1.5, 0, True])
def test_any_other_cell_stays_as_it_is(value):
    assert for_csv(value) == value


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("user_1-chat:42.b", "user_1-chat:42.b"),
        ("two\nlines", "two\\nlines"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        (b"caf\xc3\xa9 \xff", "café \\xff"),
        ("\ud800", "\\ud800"),
        ("x" * 3000, "x" * 1999 + "…"),
        (b"\xf0\x9f\xa7\xb5" * 3000, "🧵" * 1999 + "…"),
    ],
)
def test_printable_text_is_one_line_of_visible_characters(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize(
    "text", ["user_1-chat", "a -> b", "<= 5", "a:__empty__x"[:2], 'CONFIG["ai_ops"] is', "C:\\temp"]
)
def test_text_without_markdown_in_it_is_not_changed(text):
    assert for_markdown(text).replace("&#60;", "<") == text


@given(st.text() | st.binary())
def test_what_is_cut_short_is_never_longer_than_allowed(text):
    assert len(printable(text, 10)) <= 10 * len("\\U0001f9f5")


def test_a_logger_makes_its_arguments_harmless_and_leaves_numbers_to_be_formatted():
    record = logging.LogRecord("a", 20, "f", 1, "%s [page](/x) %d %.1f %s", ("![](http://e/x)", 3, 0.5, b"*b*"), None)
    assert HarmlessArguments().filter(record)
    assert record.getMessage() == "!&#91;](http://e/x)".replace("&#91;]", "[&#93;") + " [page](/x) 3 0.5 &#42;b&#42;"


def test_named_arguments_are_made_harmless_too():
    record = logging.LogRecord("a", 20, "f", 1, "%(name)s", ({"name": "<b>"},), None)
    assert HarmlessArguments().filter(record)
    assert record.getMessage() == "&#60;b>"


def test_in_the_middle_of_a_line_less_is_markdown():
    record = logging.LogRecord("a", 20, "f", 1, "Stopped%s at %s", (" by the limit", "- 1. #"), None)
    assert HarmlessArguments().filter(record)
    assert record.getMessage() == "Stopped by the limit at - 1. #"
