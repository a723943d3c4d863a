"""Rules for the arguments of functions that scripts call.

A script that passes a wrong type gets a sentence before any work begins: ``dryrun=None`` must not delete.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ai_ops.logic.foreign_text import shown

LONGEST_NUMBER = 128  # bits, as in a UUID


class Rule(NamedTuple):
    """A rule for the values of an argument.

    Attributes:
        is_valid: Returns whether a value keeps the rule.
        expected: The valid values, as the end of a sentence.
    """

    is_valid: Callable[[Any], bool]
    expected: str


def text(length: int) -> Rule:
    """Return the rule for texts of at most `length` characters, which the database can store."""
    return Rule(
        lambda value: isinstance(value, str) and len(value) <= length and is_storable(value),
        f"a text of at most {length} characters, without a NUL or an unpaired surrogate",
    )


def _is_id(value: Any) -> bool:
    if isinstance(value, int):
        return not isinstance(value, bool) and value.bit_length() <= LONGEST_NUMBER
    return isinstance(value, str | uuid.UUID)


FLAG = Rule(lambda value: isinstance(value, bool), "True or False")
# The id of a thread or a user.
ID = Rule(_is_id, "a text, a number or a UUID")


def is_list(value: Any) -> bool:
    """Return whether a value is usable as a list; a single text and a dictionary are not."""
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)


def names(values: Any) -> tuple[str, ...] | None:
    """Return ids as texts; None if they are not a list of ids."""
    found = tuple(values) if is_list(values) else (None,)
    return tuple(map(str, found)) if all(map(_is_id, found)) else None


def refusal(rules: Mapping[str, Rule], arguments: Mapping[str, Any]) -> str | None:
    """Return a sentence on the first argument that breaks its rule; None if there is none."""
    for name, rule in rules.items():
        if name in arguments and not rule.is_valid(arguments[name]):
            return f"{name} must be {rule.expected}, not {shown(arguments[name])}."
    return None


def is_storable(value: str) -> bool:
    """Return whether PostgreSQL can store a text: it has no NUL, and no unpaired surrogates."""
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False
