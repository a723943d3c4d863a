"""Foreign text, from users, servers or Redis, made harmless for the place that shows it.

Nautobot renders what a Job logs, and some fields of its pages, as Markdown: an id such as ``![](https://evil/x.png)``
would fetch an image. A spreadsheet takes a cell that begins with ``=`` for a formula. There is one function for each
such place; each is called once, where the text is put there, and never on what the text is stored as.

`HarmlessArguments` does it for a whole logger: its arguments need no call of their own.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

# A sentence of ours that quotes an address and a few names is shorter. What is longer is no name.
SHOWN_CHARACTERS = 2000
# A value that is refused is quoted to be recognised, not to be read.
QUOTED_CHARACTERS, QUOTED_NUMBER = 200, 10**18
FORMULA_SIGNS = "=+-@\t\r＝＋－＠"  # spreadsheets take the full-width signs for the others

# Characters that mean something to Python-Markdown, which renders for Nautobot. A character reference
# shows exactly that character, and nothing that cuts the text before it is rendered brings it back to life: Nautobot
# replaces what looks like a password, and would take the backslash or the backtick that made it harmless as well.
_ACTIVE = re.compile(
    r"""
    [`*]                            # code, emphasis
    | \](?=\s?[(\[:]|\Z)            # the end of a link's or an image's text, whatever follows the argument
    | <(?!\s)                       # HTML, addresses
    | \\(?![A-Za-z0-9])             # a backslash that makes the next character, ours too, something else
    | &(?=\#?\w+;)                  # a character reference
    | (?<![^\W_])_ | _(?![^\W_])    # emphasis; inside a word an underscore is one
    """,
    re.VERBOSE,
)
# Those that do so at the beginning of a line alone: code, headers, quotes, lists, tables.
_ACTIVE_FIRST = re.compile(r"\A[ #>+=:|~-]")
_NUMBERED = re.compile(r"\A(\d+)\.")


def printable(text: str | bytes, limit: int = SHOWN_CHARACTERS) -> str:
    r"""Return text on one line with every character visible, for places that show text unchanged.

    Args:
        text: Bytes are taken for UTF-8; those that are none become ``\xff``, like control characters, the marks that
            turn the direction of writing, and lone halves of surrogate pairs.
        limit: What is longer than so many characters is cut, and ends in "…".
    """
    if isinstance(text, bytes):
        # No character has more than four bytes: what is cut off would not be shown.
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
    return "an object" if isinstance(value, Mapping) else "a list" if isinstance(value, Iterable) else "what was given"


def for_markdown(text: str | bytes, limit: int = SHOWN_CHARACTERS, *, begins_line: bool = True) -> str:
    """Escape text so that Markdown shows it unchanged.

    Args:
        text: As `printable` takes it.
        limit: Likewise.
        begins_line: Whether nothing may stand before it on its line. There some characters mean more.
    """
    shown = _ACTIVE.sub(_reference, printable(text, limit))
    return _NUMBERED.sub(r"\1&#46;", _ACTIVE_FIRST.sub(_reference, shown)) if begins_line else shown


def for_csv(value: Any) -> Any:
    """Return a value as a CSV cell; text that a spreadsheet would take for a formula gets an apostrophe in front.

    What stands before the sign and can't be seen does not hide it, since spreadsheets drop that. Numbers stay numbers.
    """
    if not isinstance(value, str):
        return value
    first = next((sign for sign in value if sign in FORMULA_SIGNS or (sign.isprintable() and not sign.isspace())), "")
    return f"'{value}" if first and first in FORMULA_SIGNS else value


class HarmlessArguments(logging.Filter):
    """Escapes the arguments of log lines for Markdown. The lines themselves are the app's own, and may be Markdown."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record's arguments; every record passes."""
        begins_line = str(record.msg).startswith("%")
        if isinstance(record.args, tuple):
            record.args = tuple(_harmless(value, begins_line and not at) for at, value in enumerate(record.args))
        elif record.args:
            record.args = {name: _harmless(value, begins_line) for name, value in record.args.items()}
        return True


def _harmless(argument: object, begins_line: bool) -> object:
    # Numbers and flags are formatted as such.
    if argument is None or isinstance(argument, int | float):
        return argument
    return for_markdown(argument if isinstance(argument, bytes) else str(argument), begins_line=begins_line)


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode()


def _reference(found: re.Match[str]) -> str:
    return f"&#{ord(found[0])};"
