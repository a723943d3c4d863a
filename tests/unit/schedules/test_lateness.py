"""Lateness of schedules: from when, for which reason, and in which sentence."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta, timezone

import pytest

from ai_ops.schedules.lateness import (
    ACTIVE,
    BROKEN,
    FINISHED,
    GRACE,
    HELD,
    PAUSED,
    ScheduleFacts,
    ScheduleStatus,
    lateness,
)

NOON = datetime(2026, 10, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def active(due=NOON, **facts):
    return ScheduleFacts(ACTIVE, due, queue="default", **{"has_worker": True} | facts)


@pytest.mark.parametrize(
    ("since_due", "late"),
    [
        (-timedelta(hours=1), False),
        (timedelta(), False),
        (GRACE - SECOND, False),  # beat may be restarting
        (GRACE, False),
        (GRACE + SECOND, True),
        (timedelta(days=1), True),
    ],
)
def test_a_start_is_late_five_minutes_after_it_was_due(since_due, late):
    found, why = lateness(active(), NOON + since_due)
    assert found is late
    assert why == ("It was due at 2026-10-01 12:00 UTC and did not start: check that Celery beat is running."
                   if late else None)  # fmt: skip


@pytest.mark.parametrize(
    ("waited", "has_worker", "late", "said"),
    [
        (GRACE, True, False, None),
        (GRACE + SECOND, True, True, 'no worker of "default" has taken it yet'),
        (GRACE + SECOND, None, True, 'no worker of "default" has taken it yet'),  # Celery did not say
        (GRACE, False, False, 'No Celery worker listens to the queue "default"'),
        (GRACE + SECOND, False, True, 'No Celery worker listens to the queue "default"'),
    ],
)
def test_a_message_that_no_worker_takes_is_late_after_the_same_grace(waited, has_worker, late, said):
    found, why = lateness(active(NOON + GRACE, waiting_since=NOON - waited, has_worker=has_worker), NOON)
    assert found is late
    assert why is None if said is None else said in why


def test_what_is_never_due_again_is_not_late():
    assert lateness(active(None), NOON) == (False, None)


def test_a_disabled_job_makes_its_schedule_late_at_once():
    late, why = lateness(active(NOON + timedelta(hours=1), job_enabled=False), NOON)
    assert late
    assert "enable it under Jobs" in why


@pytest.mark.parametrize(
    ("standing", "said"),
    [(PAUSED, "Paused."), (HELD, "approval"), (BROKEN, "resume it, or remove it"), (FINISHED, None)],
)
def test_a_schedule_that_stands_still_is_not_late(standing, said):
    late, why = lateness(ScheduleFacts(standing, NOON - timedelta(days=1)), NOON)
    assert not late
    assert why is None if said is None else said in why


def test_a_schedule_whose_server_is_gone_is_not_late_and_says_what_to_do():
    assert lateness(active(deleted="MCP server that it checks"), NOON + timedelta(days=1)) == (
        False,
        "The MCP server that it checks was deleted: remove it.",
    )


def status(**values: object) -> ScheduleStatus:
    fields = dict.fromkeys(each.name for each in dataclasses.fields(ScheduleStatus))
    return ScheduleStatus(**fields | {"standing": ACTIVE, "late": False} | values)


@pytest.mark.parametrize(
    ("standing", "late", "needed"),
    [
        ("active", False, False),
        ("active", True, True),
        ("paused", False, True),
        ("broken", False, True),
        ("held", False, False),
        ("finished", False, False),
    ],
)
def test_a_late_paused_or_broken_schedule_needs_attention(standing, late, needed):
    assert status(standing=standing, late=late).needs_attention is needed


def test_the_public_status_has_its_times_as_texts_in_utc():
    berlin = datetime(2026, 6, 1, 5, 17, tzinfo=timezone(timedelta(hours=2)))
    told = status(next_run=berlin, name="daily").as_dict()
    assert (told["next_run"], told["last_run"], told["name"]) == ("2026-06-01T03:17:00+00:00", None, "daily")
