"""Times in the ids and values of checkpoints. Times are seconds since 1970.

This module does not use the present time: callers decide which times are plausible.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# 100 ns intervals between the UUID epoch, 1582-10-15, and the Unix epoch (RFC 9562, section 5.1).
UUID_EPOCH = 0x01B21DD213814000

MAX_TEXT = 64  # characters; no spelling of a time is longer
_UUID = rb"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
_IS_UUID = re.compile(_UUID)
_IS_BARE_UUID = re.compile(rb"[0-9a-fA-F]{32}")
_IS_ULID = re.compile(rb"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_CROCKFORD = {digit: value for value, digit in enumerate(b"0123456789ABCDEFGHJKMNPQRSTVWXYZ")}
_ZONE = r"(?:Z|[+-]\d\d:?\d\d)?"
_FRACTION = r"(?:\.\d{1,9})?"
_IS_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d" + _FRACTION + ")?" + _ZONE, re.ASCII)
# As in file names, where a colon is not practical.
_IS_COMPACT = re.compile(r"\d{8}T\d{6}" + _FRACTION + _ZONE, re.ASCII)
_IS_DASHED = re.compile(r"(\d{4}-\d\d-\d\d[T_])(\d\d)-(\d\d)-(\d\d)(" + _FRACTION + _ZONE + ")", re.ASCII)
_IS_RFC_2822 = re.compile(
    r"(?:[A-Za-z]{3}, ?)?\d{1,2} [A-Za-z]{3} \d{4} \d\d:\d\d(?::\d\d)?(?: (?:[+-]\d{4}|[A-Z]{1,5}))?", re.ASCII
)
_IS_NUMBER = re.compile(r"\d{1,16}(?:\.\d{1,9})?", re.ASCII)
MAX_SECONDS = 1e11  # larger numbers are milliseconds


def id_time(checkpoint_id: bytes) -> float | None:
    """Return the time in a UUID of version 1, 6 or 7 (RFC 9562), a ULID or a date; None if there is none."""
    if len(checkpoint_id) == 36 and _IS_UUID.fullmatch(checkpoint_id):
        return _uuid_time(checkpoint_id)
    if len(checkpoint_id) == 32 and _IS_BARE_UUID.fullmatch(checkpoint_id):
        return _uuid_time(
            b"-".join([checkpoint_id[at:to] for at, to in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))])
        )
    if len(checkpoint_id) == 26 and _IS_ULID.fullmatch(checkpoint_id.upper()):
        milliseconds = 0
        for digit in checkpoint_id.upper()[:10]:
            milliseconds = milliseconds * 32 + _CROCKFORD[digit]
        return milliseconds / 1e3
    return iso_time(checkpoint_id.decode("ascii")) if checkpoint_id.isascii() else None


def value_time(value: object) -> float | None:
    """Return the time in a field of a value: a number, ISO 8601 or RFC 2822; None if it is no time."""
    if (number := as_number(value)) is not None:
        return number_time(number)
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        return None
    return iso_time(value) if value[:4].isdecimal() else _rfc_2822_time(value)


def as_number(value: object) -> float | None:
    """Return a value as a number, also from text."""
    if isinstance(value, str):
        return float(value) if len(value) <= MAX_TEXT and _IS_NUMBER.fullmatch(value) else None
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_SECONDS * 1e3:
        return float(value)
    return None


def number_time(number: float) -> float | None:
    """Return the time of a number of seconds or milliseconds since 1970."""
    if not 0 < number < MAX_SECONDS * 1e3:
        return None
    return float(number) if number < MAX_SECONDS else number / 1e3


def iso_time(text: str) -> float | None:
    """Parse ISO 8601, also in its basic form and with dashes for colons; without a zone it is UTC."""
    if not 15 <= len(text) <= 35:
        return None
    if dashed := _IS_DASHED.fullmatch(text):
        text = "{}{}:{}:{}{}".format(*dashed.groups())
    elif not (_IS_ISO.fullmatch(text) or _IS_COMPACT.fullmatch(text)):
        return None
    try:
        return _seconds(datetime.fromisoformat(text))
    except ValueError:
        return None


def _rfc_2822_time(text: str) -> float | None:
    if _IS_RFC_2822.fullmatch(text) is None:
        return None
    try:
        return _seconds(parsedate_to_datetime(text))
    except (ValueError, OverflowError):
        return None


def _seconds(time: datetime) -> float | None:
    if time.year < 2:
        # With a zone it may be before the first representable time.
        return None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _uuid_time(text: bytes) -> float | None:
    version = text[14:15]
    # JavaScript's LangGraph uses the step as clock sequence, including the first step, -1, which is not a valid
    # variant.
    if text[19:20] not in b"89abAB" and (version, text[19:23]) != (b"6", b"ffff"):
        return None
    if version == b"6":
        return (int(text[:8] + text[9:13] + text[15:18], 16) - UUID_EPOCH) / 1e7
    if version == b"7":
        return int(text[:8] + text[9:13], 16) / 1e3
    if version == b"1":
        return (int(text[15:18] + text[9:13] + text[:8], 16) - UUID_EPOCH) / 1e7
    return None
