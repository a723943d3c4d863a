"""The checks of the fleet by hour: what is kept of an hour that is over always says what the checks say."""

from __future__ import annotations

import itertools
import random
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from ai_ops.celery_tasks import check_mcp_server_health, perform_mcp_health_checks
from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import LeaseLostError
from ai_ops.mcp.history import record_checks
from ai_ops.mcp.hourly_checks import HOUR, SHOWN_HOURS, Hour, hours, start_of_hour, sum_up_hours
from ai_ops.mcp.logic.reports import ServerReport
from ai_ops.models import MCPServer, MCPServerCheck, MCPServerCheckHour
from tests.fakes.mcp_server import FakeMCPServer
from tests.fakes.runs import FreeHold
from tests.fakes.servers import add
from tests.fakes.users import user_who_may

pytestmark = pytest.mark.django_db
OUTCOMES = (True, True, True, False, None)


def check_of(server, at, ok=True, latency_ms=10.0):
    return MCPServerCheck(server=server, time=at, ok=ok, latency_ms=latency_ms)


def checked(server, at):
    check_of(server, at).save()


def a_day_of_checks(*servers, seed=1):
    """Checks of a day and a bit before, several an hour, some hours without any."""
    draw, now = random.Random(seed), timezone.now()
    MCPServerCheck.objects.bulk_create(
        check_of(
            server,
            now - timedelta(hours=draw.uniform(0, SHOWN_HOURS + 2)),
            draw.choice(OUTCOMES),
            draw.uniform(1, 500),
        )
        for server in servers
        for _ in range(60)
    )


def counted(now):
    """The hours as the checks alone tell, row by row."""
    last = start_of_hour(now)
    checks = list(MCPServerCheck.objects.values_list("time", "ok", "latency_ms"))
    found = []
    for back in reversed(range(SHOWN_HOURS)):
        begins = last - back * HOUR
        rows = [(ok, latency_ms) for time, ok, latency_ms in checks if begins <= time < begins + HOUR]
        outcomes = [ok for ok, _ in rows]
        fine = sorted(latency_ms for ok, latency_ms in rows if ok)
        middle = (fine[(len(fine) - 1) // 2] + fine[len(fine) // 2]) / 2 if fine else None
        found.append(
            Hour(
                begins,
                len(fine),
                outcomes.count(False),
                outcomes.count(None),
                pytest.approx(middle) if fine else None,
            )
        )
    return found


def assert_as_counted():
    now = timezone.now()
    assert hours(None, now) == counted(now)


def report(server, at):
    return ServerReport(server=server.name, server_id=str(server.pk), ok=True, latency_ms=7.0, checked_at=at)


def test_hours_are_the_same_before_and_after_they_are_summed_up():
    a_day_of_checks(add("one"), add("two"))
    assert_as_counted()
    sum_up_hours(FreeHold(), timezone.now())
    assert MCPServerCheckHour.objects.count() > 10
    assert_as_counted()


def test_summing_up_again_counts_nothing_twice():
    a_day_of_checks(add("one"))
    sum_up_hours(FreeHold(), timezone.now())
    before = list(MCPServerCheckHour.objects.values_list())
    sum_up_hours(FreeHold(), timezone.now())
    assert list(MCPServerCheckHour.objects.values_list()) == before


def test_the_hour_that_is_not_over_is_never_kept():
    server = add("one")
    checked(server, timezone.now())
    sum_up_hours(FreeHold(), timezone.now())
    assert not MCPServerCheckHour.objects.filter(start__gte=start_of_hour(timezone.now())).exists()


# What may befall checks, in any order: a run that records late what it asked before the hour was over, a new check, a
# server that is deleted with its checks, and a run that sums up.
EVENTS = {
    "late": lambda servers, draw: record_checks(
        [report(draw.choice(servers), _in_the_past(draw))], AiOpsSettings.load()
    ),
    "new": lambda servers, draw: record_checks([report(draw.choice(servers), timezone.now())], AiOpsSettings.load()),
    "deleted": lambda servers, draw: servers.pop().delete(),
    "deleted together": lambda servers, draw: MCPServer.objects.filter(pk=servers.pop().pk).delete(),
    "summed up": lambda servers, draw: sum_up_hours(FreeHold(), timezone.now()),
}


def _in_the_past(draw):
    return timezone.now() - timedelta(hours=draw.uniform(0.5, SHOWN_HOURS))


@pytest.mark.parametrize(("first", "second"), list(itertools.product(EVENTS, repeat=2)))
def test_whatever_befalls_the_checks_the_hours_say_what_they_say(first, second):
    draw = random.Random(f"{first} {second}")
    servers = [add(f"server {number}") for number in range(4)]
    a_day_of_checks(*servers[:2], seed=3)
    a_day_of_checks(servers[-1], seed=4)
    sum_up_hours(FreeHold(), timezone.now())
    for name in (first, second):
        EVENTS[name](servers, draw)
        assert_as_counted()


def test_a_health_run_sums_up_the_hours_that_are_over_and_the_page_reads_no_check_of_them():
    before = timezone.now()
    with FakeMCPServer().running() as up:
        server = add("one", up.url)
        a_day_of_checks(server)
        perform_mcp_health_checks()
    kept = {each.start: each.failed for each in MCPServerCheckHour.objects.all()}
    # Of two hours more or less, as an hour may end while this runs.
    shown = hours(None, timezone.now())
    assert {each.start for each in shown[1:-2] if not each.is_empty} <= kept.keys()
    assert all(start < start_of_hour(timezone.now()) for start in kept)
    # Written behind the back of the sums: a page that read the checks would see these.
    MCPServerCheck.objects.bulk_create(MCPServerCheck(server=server, time=at, ok=False, latency_ms=1) for at in kept)
    counts = {each.start: each.failed for each in hours(None, before)}
    assert all(counts[start] == failed for start, failed in kept.items() if start in counts)


def test_a_check_of_one_server_leaves_the_sums_right():
    with FakeMCPServer().running() as up:
        server = add("one", up.url)
        a_day_of_checks(server)
        sum_up_hours(FreeHold(), timezone.now())
        check_mcp_server_health(server.pk)
    assert_as_counted()


def test_a_run_that_has_lost_its_lease_keeps_no_sums():
    class Lost(FreeHold):
        def lock(self):
            raise LeaseLostError("Another run has taken over.")

    a_day_of_checks(add("one"))
    with pytest.raises(LeaseLostError):
        sum_up_hours(Lost(), timezone.now())
    assert not MCPServerCheckHour.objects.exists()


def test_what_no_page_shows_any_more_goes():
    server, now = add("one"), timezone.now()
    old = start_of_hour(now) - 30 * HOUR
    MCPServerCheckHour.objects.create(start=old, passed=1, failed=0, unknown=0)
    checked(server, now - 3 * HOUR)
    sum_up_hours(FreeHold(), timezone.now())
    assert [row.start for row in MCPServerCheckHour.objects.all()] == [start_of_hour(now - 3 * HOUR)]


def test_an_installation_that_was_upgraded_has_no_sums_and_the_right_hours():
    a_day_of_checks(add("one"))
    assert not MCPServerCheckHour.objects.exists()
    assert_as_counted()


@pytest.mark.parametrize("summed_up", [False, True])
def test_a_user_of_a_part_of_the_servers_gets_no_sum_of_others(summed_up):
    mine, other = add("mine"), add("other")
    a_day_of_checks(mine)
    alone = hours(None, timezone.now())
    a_day_of_checks(other, seed=2)
    if summed_up:
        sum_up_hours(FreeHold(), timezone.now())
    now = timezone.now()
    reader = user_who_may("ai_ops.view_mcpservercheck", constraints={"server__name": "mine"})
    assert hours(reader, now) == alone
    assert hours(user_who_may("ai_ops.view_mcpservercheck"), now) == hours(None, now) != alone
    assert all(each.is_empty for each in hours(user_who_may("ai_ops.view_mcpserver"), now))


def test_a_page_takes_one_query_with_sums_and_without():
    a_day_of_checks(add("one"))
    for _ in range(2):
        with CaptureQueriesContext(connection) as captured:
            hours(None, timezone.now())
        assert len(captured) == 1
        sum_up_hours(FreeHold(), timezone.now())
