"""The names of runs."""

from __future__ import annotations

from datetime import datetime

# Without characters that are easy to confuse: 0 and o, 1, i and l.
NAME_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
NAME_LENGTH = 6


def run_name(kind: str, at: datetime, suffix: str) -> str:
    """Return a readable name: kind, minute and six characters.

    Args:
        kind: One of `ai_ops.choices.MaintenanceKindChoices`.
        at: Time of the request.
        suffix: `NAME_LENGTH` random characters of `NAME_ALPHABET`.
    """
    return f"{kind} {at:%Y-%m-%d %H:%M} {suffix}"
