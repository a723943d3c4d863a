"""Thresholds for warnings and incidents about expiring TLS certificates."""

from __future__ import annotations

from datetime import datetime, timedelta

from ai_ops.logic.durations import days_left

# Certificates of 90 days are renewed 30 days before their end by most clients of ACME. One that has fewer than three
# weeks left was not.
WARNING_DAYS = 21

# A weekend. After that no time is left to renew it by hand.
INCIDENT_DAYS = 3

DAY = timedelta(days=1)


def is_worth_a_warning(ends: datetime, now: datetime) -> bool:
    """Return whether fewer than WARNING_DAYS are left."""
    return ends - now < WARNING_DAYS * DAY


def is_news(ends: datetime, now: datetime, told: datetime | None) -> bool:
    """Return whether a warning is due: at most once a day.

    Args:
        ends: When the certificate expires.
        now: The time.
        told: When it was looked at before; None for never.
    """
    return is_worth_a_warning(ends, now) and (told is None or days_left(ends, told) != days_left(ends, now))
