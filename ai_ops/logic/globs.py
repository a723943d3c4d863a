"""Globs for thread ids: validated, compiled once, and matched in linear time.

The syntax is that of `fnmatch`: ``*`` for any text, ``?`` for one character, ``[ab]`` for one of these characters and
``[!ab]`` for any other character. Matching is case-sensitive.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from ai_ops.logic.arguments import is_storable

# A pattern for the ids of a user is shorter. Matching `*a*a*a...` takes time in proportion to the product of the
# lengths, so both are bounded.
MAX_PATTERN_CHARACTERS = 255
# No id has more than ten parts to skip.
MAX_STARS = 10
# Enough for a list of threads. A longer list has a common part that one pattern can match.
MAX_PATTERNS = 100

_SIGNS = re.compile(r"[*?\[]")
_AFTER_SIGNS = re.compile(r"[^*?\]]*\Z")
# Characters that every saver writes unescaped, and that are not special in a Redis glob.
_SAME_IN_KEYS = re.compile(r"[A-Za-z0-9_.\-~:/@,+=]+")


def why_no_glob(pattern: str) -> str | None:
    """Return the reason why `pattern` is not a valid glob for thread ids, as a sentence; None if it is valid."""
    if not pattern:
        return "A pattern is empty: enter a glob such as user-42-*."
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        return f"A pattern has {len(pattern)} characters: shorten it to {MAX_PATTERN_CHARACTERS}."
    if "\0" in pattern or "\n" in pattern or "\r" in pattern:
        return "A pattern must not contain a line break or a NUL."
    if not is_storable(pattern):
        return "A pattern must not contain an unpaired surrogate, which is half of a character."
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
    """Return one expression for several patterns; the number of the matching group is the pattern's number, from 1.

    The first matching pattern counts.
    """
    return re.compile("|".join(f"{fnmatch.translate(each)}()" for each in patterns) or r"(?!)")


def matches_any(patterns: Sequence[str], names: Iterable[str]) -> bool:
    """Return whether one of the patterns matches one of the names."""
    return any(compiled(pattern).match(name) for name in names for pattern in patterns)


def split_lines(text: str) -> list[str]:
    """Split a text with one pattern per line, and strip the lines."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def common_text(pattern: str) -> str:
    """Return the longest text that is in every match of `pattern` and not escaped in Redis keys.

    Empty if there is none. The text after a bracket is ignored, because the end of the bracket is hard to find.
    """
    return longest_plain(*re.split(r"[*?]", pattern.partition("[")[0]))


def longest_plain(*texts: str) -> str:
    """Return the longest part of the texts that is not escaped in Redis keys; empty if there is none."""
    return max((part for text in texts for part in _SAME_IN_KEYS.findall(text)), key=len, default="")
