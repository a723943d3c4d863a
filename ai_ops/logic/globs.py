"""Globs over thread ids: validated, compiled once, and matched in time linear in the id.

The signs are those of `fnmatch`: ``*`` for any text, ``?`` for one character, ``[ab]`` and ``[!ab]`` for one of some or
none of them. Capital letters count.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

# A pattern of a person's ids is shorter. `*a*a*a...` costs the pattern's length times the id's, so both have a bound.
MAX_PATTERN_CHARACTERS = 255
# One star is enough to leave something out; ten are more than any id has parts.
MAX_STARS = 10
# A policy for a list of threads; what has more has something in common that a pattern can say.
MAX_PATTERNS = 100

_SIGNS = re.compile(r"[*?\[]")
_AFTER_SIGNS = re.compile(r"[^*?\]]*\Z")
# Signs that every saver writes as they are, and that mean nothing in a glob of Redis.
_SAME_IN_KEYS = re.compile(r"[A-Za-z0-9_.\-~:/@,+=]+")


def why_no_glob(pattern: str) -> str | None:
    """Return a sentence that says why `pattern` is no valid glob over thread ids; None if it is valid."""
    if not pattern:
        return "A pattern is empty: enter a glob such as user-42-*."
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        return f"A pattern has {len(pattern)} characters: shorten it to {MAX_PATTERN_CHARACTERS}."
    if "\0" in pattern or "\n" in pattern or "\r" in pattern:
        return "A pattern has a line break or a NUL in it: no glob over thread ids has."
    if pattern.count("*") > MAX_STARS:
        return f"A pattern has {pattern.count('*')} stars: use at most {MAX_STARS}."
    return None


def literal_start(pattern: str) -> str:
    """Return the literal text with which every match of `pattern` begins."""
    found = _SIGNS.search(pattern)
    return pattern[: found.start()] if found else pattern


def literal_end(pattern: str) -> str:
    """Return the literal text with which every match of `pattern` ends."""
    found = _AFTER_SIGNS.search(pattern)
    return found[0] if found else ""


def is_exact(pattern: str) -> bool:
    """Return whether `pattern` matches only itself."""
    return _SIGNS.search(pattern) is None


def is_start(pattern: str) -> bool:
    """Return whether `pattern` matches every id with a certain beginning, such as ``user-42-*``."""
    return pattern.endswith("*") and is_exact(pattern[:-1])


def is_end(pattern: str) -> bool:
    """Return whether `pattern` matches every id with a certain ending, such as ``*-archive``."""
    return pattern.startswith("*") and is_exact(pattern[1:])


@lru_cache(maxsize=512)
def compiled(pattern: str) -> re.Pattern[str]:
    """Return `pattern` as a regular expression for use with `match`."""
    return re.compile(fnmatch.translate(pattern))


def any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    """Return one expression for several patterns; the number of the matching group is that of the pattern, from 1.

    The first that matches counts.
    """
    return re.compile("|".join(f"{fnmatch.translate(each)}()" for each in patterns) or r"(?!)")


def matches_any(patterns: Sequence[str], names: Iterable[str]) -> bool:
    """Return whether one of the patterns matches one of the names."""
    return any(compiled(pattern).match(name) for name in names for pattern in patterns)


def split_lines(text: str) -> list[str]:
    """Split a text with one pattern per line, without blanks at the ends of lines."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def common_text(pattern: str) -> str:
    """Return the longest text in every match of `pattern` made of characters that Redis keys do not escape.

    Empty where there is none. What comes after a bracket is left out: where it ends is hard to say.
    """
    return longest_plain(*re.split(r"[*?]", pattern.partition("[")[0]))


def longest_plain(*texts: str) -> str:
    """Return the longest part of the texts that Redis keys do not escape; empty if there is none."""
    return max((part for text in texts for part in _SAME_IN_KEYS.findall(text)), key=len, default="")
