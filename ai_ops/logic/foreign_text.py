"""Escaping of foreign text, from users, servers or Redis, for the format in which it is shown.

Nautobot renders log lines of Jobs, and some fields on pages, as Markdown: an id such as ``![](https://evil/x.png)``
would load an image. A spreadsheet reads a cell that begins with ``=`` as a formula. There is one function for each
format. Call it once, where the text is inserted, and never before the text is stored.

`HarmlessArguments` escapes the arguments of all lines of a logger.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

# A sentence of the app with an address and a few names is shorter. A longer text is not a name.
SHOWN_CHARACTERS = 2000
# A refused value is quoted only so that the user recognises it.
QUOTED_CHARACTERS, QUOTED_NUMBER = 200, 10**18
FORMULA_SIGNS = "=+-@\t\r＝＋－＠"  # spreadsheets take the full-width signs for the others

# Special characters of Python-Markdown, which Nautobot uses. They are replaced by character references, which remain
# valid if the text is cut before rendering. Nautobot replaces text that looks like a password, and could remove an
# escaping backslash or backtick with it.
_ACTIVE = re.compile(
    r"""
    [`*]                            # code, emphasis
    | \](?=\s?[(\[:]|\Z)            # the end of the text of a link or an image, before any text
    | <(?!\s)                       # HTML, addresses
    | \\(?![A-Za-z0-9])             # a backslash that makes the next character, ours too, something else
    | &(?=\#?\w+;)                  # a character reference
    | (?<![^\W_])_ | _(?![^\W_])    # emphasis; inside a word an underscore is one
    """,
    re.VERBOSE,
)
# Characters that are special only at the start of a line: code, headers, quotes, lists, tables.
_ACTIVE_FIRST = re.compile(r"\A[ #>+=:|~-]")
_NUMBERED = re.compile(r"\A(\d+)\.")


def printable(text: str | bytes, limit: int = SHOWN_CHARACTERS) -> str:
    r"""Return text on one line with every character visible, for places that show text unchanged.

    Args:
        text: Bytes are decoded as UTF-8. Invalid bytes become ``\xff``; so do control characters, marks that change the
            direction of writing, and unpaired surrogates.
        limit: Maximum number of characters. A longer text is cut and ends in "…".
    """
    if isinstance(text, bytes):
        # A character has at most four bytes, so the bytes after this would not be shown.
        text = text[: 4 * (limit + 1)].decode(errors="backslashreplace")
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return text if text.isprintable() else "".join(map(_visible, text))


def shown(value: object) -> str:
    """Return a user's value as quoted in a sentence: bounded, and not in Python's notation."""
    if isinstance(value, str | bytes):
        return f'"{printable(value, QUOTED_CHARACTERS)}"'
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < QUOTED_NUMBER):
        return str(value)
    if isinstance(value, int):
        return "a number of that size"
    return "an object" if isinstance(value, Mapping) else "a list" if isinstance(value, Iterable) else "the given value"


def for_markdown(text: str | bytes, limit: int = SHOWN_CHARACTERS, *, begins_line: bool = True) -> str:
    """Escape text so that Markdown shows it unchanged.

    Args:
        text: As `printable` takes it.
        limit: As `printable` takes it.
        begins_line: Whether the text may be at the start of a line, where more characters are special.
    """
    shown = _ACTIVE.sub(_reference, printable(text, limit))
    return _NUMBERED.sub(r"\1&#46;", _ACTIVE_FIRST.sub(_reference, shown)) if begins_line else shown


def for_csv(value: Any) -> Any:
    """Return a value as a CSV cell. Text that a spreadsheet would read as a formula gets an apostrophe as prefix.

    Invisible characters before the sign are skipped, since spreadsheets drop them. Numbers stay numbers.
    """
    if not isinstance(value, str):
        return value
    first = next((sign for sign in value if sign in FORMULA_SIGNS or (sign.isprintable() and not sign.isspace())), "")
    return f"'{value}" if first and first in FORMULA_SIGNS else value


class HarmlessArguments(logging.Filter):
    """Escapes the arguments of log lines for Markdown. The format strings are the app's own and may be Markdown."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Escape the arguments of the record; every record passes."""
        begins_line = str(record.msg).startswith("%")
        if isinstance(record.args, tuple):
            record.args = tuple(_harmless(value, begins_line and not at) for at, value in enumerate(record.args))
        elif record.args:
            record.args = {name: _harmless(value, begins_line) for name, value in record.args.items()}
        return True


def _harmless(argument: object, begins_line: bool) -> object:
    # Numbers and booleans keep their types for formatting.
    if argument is None or isinstance(argument, int | float):
        return argument
    return for_markdown(argument if isinstance(argument, bytes) else str(argument), begins_line=begins_line)


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode()


def _reference(found: re.Match[str]) -> str:
    return f"&#{ord(found[0])};"
