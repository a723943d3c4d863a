"""Thresholds for warnings and incidents about expiring TLS certificates."""

from __future__ import annotations

from datetime import datetime, timedelta

from ai_ops.logic.durations import days_left

# Most ACME clients renew certificates of 90 days 30 days before their expiry. With fewer than three weeks left, this
# has failed.
WARNING_DAYS = 21

# A weekend. Below this there is no time for a renewal by hand.
INCIDENT_DAYS = 3

DAY = timedelta(days=1)


def is_worth_a_warning(ends: datetime, now: datetime) -> bool:
    """Return whether fewer than WARNING_DAYS are left."""
    return ends - now < WARNING_DAYS * DAY


def is_warning_due(ends: datetime, now: datetime, previous: datetime | None) -> bool:
    """Return whether a warning is due: at most once a day.

    Args:
        ends: Expiry of the certificate.
        now: The present.
        previous: Time of the previous check; None if there was none.
    """
    return is_worth_a_warning(ends, now) and (previous is None or days_left(ends, previous) != days_left(ends, now))
