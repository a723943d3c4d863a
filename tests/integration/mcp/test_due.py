"""The servers that are due for a health check."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.core.exceptions import ValidationError
from nautobot.extras.models import Status

from ai_ops.logic.shards import Shard
from ai_ops.mcp.due import due_servers
from ai_ops.mcp.logic.jitter import jitter_seconds
from ai_ops.mcp.shards import shard_servers
from ai_ops.models import MCPServer, MCPServerHealth

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def add(name: str, status_name: str = "Healthy", checked: timedelta | None = None, **fields) -> MCPServer:
    """A server that was last checked that long before noon."""
    server = MCPServer(
        name=name,
        url="http://one.example.com",
        status=Status.objects.get_for_model(MCPServer).get(name=status_name),
        **fields,
    )
    server.validated_save()
    if checked is not None:
        MCPServerHealth.objects.create(server=server, checked=NOON - checked)
    return server


def due(now: datetime = NOON) -> list[str]:
    return [server.name for server in due_servers(now)]


def test_every_run_checks_servers_without_an_interval_and_those_never_checked():
    add("always", checked=timedelta(seconds=1))
    add("new", check_interval=60)
    add("vulnerable", "Vulnerable")
    add("local", protocol="stdio")
    assert due() == ["always", "new"]


@pytest.mark.parametrize(
    ("now", "is_due"),
    [
        (timedelta(minutes=10), False),
        (timedelta(minutes=50), False),
        (timedelta(minutes=59, seconds=59), False),
        (timedelta(minutes=60, seconds=1), True),
        (timedelta(hours=5), True),
    ],
)
def test_a_server_is_checked_once_in_each_of_its_intervals(now, is_due):
    add("hourly", checked=timedelta(seconds=-40), check_interval=60)
    assert due(NOON + now) == (["hourly"] if is_due else [])


def test_a_run_that_took_a_while_does_not_shift_the_next_one():
    """Checked 50 s after noon, the server is due again at one, not ten minutes later."""
    add("hourly", checked=timedelta(seconds=-50), check_interval=60)
    assert due(NOON + timedelta(hours=1)) == ["hourly"]


def test_after_an_outage_of_the_scheduler_there_is_one_check():
    server = add("hourly", checked=timedelta(hours=30), check_interval=60)
    assert due() == ["hourly"]
    MCPServerHealth.objects.filter(server=server).update(checked=NOON + timedelta(seconds=30))
    assert due(NOON + timedelta(minutes=10)) == []


def test_an_interval_that_the_schedule_does_not_divide_is_kept_on_average():
    server = add("every quarter", checked=timedelta(hours=1), check_interval=15)
    checked = []
    for minutes in range(0, 60, 10):
        now = NOON + timedelta(minutes=minutes)
        if due(now):
            checked.append(minutes)
            MCPServerHealth.objects.filter(server=server).update(checked=now + timedelta(seconds=5))
    assert checked == [0, 20, 30, 50]


def test_a_server_that_asked_to_wait_is_not_due():
    server = add("busy", checked=timedelta(minutes=10))
    MCPServerHealth.objects.filter(server=server).update(retry_at=NOON + timedelta(seconds=1))
    assert due() == []
    assert due(NOON + timedelta(seconds=1)) == ["busy"]


@pytest.mark.parametrize(
    ("ahead", "is_due"),
    [(timedelta(seconds=40), False), (timedelta(minutes=59), False), (timedelta(minutes=61), True)]
    + [(timedelta(days=days), True) for days in (1, 30, 3650)],
)
def test_a_last_check_by_a_clock_that_was_ahead_keeps_a_server_from_being_due_for_an_interval_at_most(ahead, is_due):
    add("hourly", checked=-ahead, check_interval=60)
    assert due() == (["hourly"] if is_due else [])


def test_a_wait_that_a_clock_noted_that_was_ahead_does_not_last():
    server = add("busy", checked=timedelta(minutes=10))
    MCPServerHealth.objects.filter(server=server).update(retry_at=NOON + timedelta(days=1))
    assert due() == [], "a day is what a server may ask for"
    MCPServerHealth.objects.filter(server=server).update(retry_at=NOON + timedelta(days=300))
    assert due() == ["busy"]


def test_a_wait_that_was_told_to_a_clock_that_was_ahead_is_none():
    server = add("busy", checked=-timedelta(hours=2))
    MCPServerHealth.objects.filter(server=server).update(retry_at=NOON + timedelta(hours=2, seconds=30))
    assert due() == ["busy"]


def test_a_shard_checks_what_a_clock_noted_that_was_ahead():
    server = add("always", checked=-timedelta(days=3))
    shard = Shard(server.pk, server.pk, NOON - timedelta(seconds=5))
    assert [each.name for each in shard_servers(shard, NOON)] == ["always"]
    MCPServerHealth.objects.filter(server=server).update(checked=NOON - timedelta(seconds=1))
    assert not shard_servers(shard, NOON).exists(), "checked since the fleet was divided"


@pytest.mark.parametrize("minutes", [0, -1, 10_081])
def test_an_interval_is_a_minute_to_a_week(minutes):
    with pytest.raises(ValidationError) as refused:
        add("one", check_interval=minutes)
    assert list(refused.value.message_dict) == ["check_interval"]


@pytest.mark.parametrize(("is_scheduled", "drawn", "seconds"), [(True, 0.0, 0.0), (True, 0.5, 5.0), (False, 0.5, 0.0)])
def test_scheduled_runs_begin_within_ten_seconds_and_others_at_once(is_scheduled, drawn, seconds):
    assert jitter_seconds(is_scheduled=is_scheduled, draw=lambda: drawn) == seconds
