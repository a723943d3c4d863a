"""Concealed names: erased names that are kept only as SHA-256, which can't be reversed."""

from __future__ import annotations

import re

# Prefix of the digits, so that no other code takes them for a name.
CONCEALED = "sha256:"
_IS_CONCEALED = re.compile(CONCEALED + "[0-9a-f]{64}")


def is_concealed(name: str) -> bool:
    """Return whether a text is a concealed name."""
    return _IS_CONCEALED.fullmatch(name) is not None
