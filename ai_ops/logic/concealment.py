"""Names that were asked for and are kept as SHA-256 alone: nothing can be done with them any more."""

from __future__ import annotations

import re

# Before the digits, so that no other code takes them for a name.
CONCEALED = "sha256:"
_IS_CONCEALED = re.compile(CONCEALED + "[0-9a-f]{64}")


def is_concealed(name: str) -> bool:
    """Tell whether a text is what was left of a name."""
    return _IS_CONCEALED.fullmatch(name) is not None
