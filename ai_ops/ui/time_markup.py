"""The format of times and durations on all pages: an age, with the exact time in the user's time zone on hover."""

from __future__ import annotations

from datetime import datetime, timedelta

import django_tables2 as tables
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.html import format_html
from django.utils.safestring import SafeString

from ai_ops.logic import durations, relative_times


def exact(moment: datetime) -> str:
    """Return `moment` to the second in the user's time zone, with the zone's name."""
    return timezone.localtime(moment).strftime("%Y-%m-%d %H:%M:%S %Z")


def ago(moment: datetime | str | None, now: datetime | None = None) -> str | None:
    """Return the age of `moment`, as HTML with the exact time on hover; None for None.

    Args:
        moment: A time, or a time in ISO 8601 as text. Other text is shown unchanged.
        now: The time to compare with; the present by default.
    """
    then = _as_time(moment)
    if then is None:
        return None if moment is None else str(moment)
    return format_html(
        '<time class="text-nowrap" datetime="{}" title="{}">{}</time>',
        then.isoformat(),
        exact(then),
        relative_times.age(then, now or timezone.now()),
    )


def at(moment: datetime) -> SafeString:
    """Return the exact time of `moment`, as HTML, for the time of a page."""
    return format_html('<time class="text-nowrap" datetime="{}">{}</time>', moment.isoformat(), exact(moment))


def plain_ago(moment: datetime, now: datetime | None = None) -> str:
    """Return the age of `moment` without HTML, for a sentence."""
    return relative_times.age(moment, now or timezone.now())


def duration(value: float | timedelta | None) -> str | None:
    """Return a duration in words; None for None.

    Args:
        value: A timedelta, or a number of milliseconds.
    """
    if value is None:
        return None
    return durations.duration(value.total_seconds() if isinstance(value, timedelta) else value / 1000)


class AgeColumn(tables.Column):
    """A column of times, shown as ages."""

    def render(self, value: datetime) -> str | None:
        """Show the age."""
        return ago(value)

    def value(self, value: datetime) -> str:
        """Export the time itself."""
        return value.isoformat(sep=" ")


class DurationColumn(tables.Column):
    """A column of durations: timedeltas, or numbers of milliseconds."""

    def render(self, value: float | timedelta) -> str | None:
        """Show the duration in words."""
        return duration(value)


def _as_time(moment: datetime | str | None) -> datetime | None:
    if not isinstance(moment, str):
        return moment
    try:
        return parse_datetime(moment)
    except ValueError:
        return None
