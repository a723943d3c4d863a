"""The history of health checks: what a run leaves, what is trimmed, and what is read from it."""

from __future__ import annotations

import random
import threading
from datetime import timedelta
from itertools import pairwise

import pytest
from django.contrib.auth import get_user_model
from django.db import connection, transaction
from django.db.models import Sum
from django.test import override_settings
from django.utils import timezone
from nautobot.apps.change_logging import web_request_context
from nautobot.core.graphql import execute_query
from nautobot.extras.models import ObjectChange

from ai_ops.celery_tasks import check_mcp_server_health, perform_mcp_health_checks
from ai_ops.config import AiOpsSettings
from ai_ops.mcp import history as health_history
from ai_ops.mcp.history import buckets, record_checks, statistics, trim_checks, with_uptime
from ai_ops.mcp.logic.reports import ServerReport
from ai_ops.mcp.logic.verdicts import Probe, ProbeAgain, Reason
from ai_ops.mcp.server_check import ServerCheck
from ai_ops.models import MCPServer, MCPServerCheck, MCPServerHealth
from tests.fakes.servers import add
from tests.locks import wait_for_a_lock

pytestmark = pytest.mark.django_db


def checked(server: MCPServer, hours_ago: float = 0, ok: bool | None = True, latency_ms: float = 10.0) -> None:
    MCPServerCheck.objects.create(
        server=server,
        time=timezone.now() - timedelta(hours=hours_ago),
        ok=ok,
        latency_ms=latency_ms,
        probes=0 if ok is None else 1,
        failures=1 if ok is False else 0,
    )


def report(server: MCPServer, **values) -> ServerReport:
    return ServerReport(
        **{
            "server": server.name,
            "server_id": str(server.pk),
            "ok": True,
            "latency_ms": 1.0,
            "checked_at": timezone.now(),
        }
        | values
    )


def test_a_run_leaves_one_row_for_each_server_with_what_its_last_probe_said(up):
    down, well, risky = add("down"), add("well", up.url), add("risky", up.url, "Vulnerable")
    before = timezone.now()
    perform_mcp_health_checks()
    rows = {check.server_id: check for check in MCPServerCheck.objects.all()}
    assert rows.keys() == {down.pk, well.pk}
    assert (rows[down.pk].ok, rows[down.pk].reason, rows[down.pk].http_status) == (False, "CONNECT", None)
    assert (rows[well.pk].ok, rows[well.pk].reason, rows[well.pk].http_status) == (True, "", 200)
    assert (rows[down.pk].flipped, rows[well.pk].flipped) == (True, False)
    assert before <= rows[well.pk].time <= timezone.now()
    assert not hasattr(risky, "health")


def test_the_server_remembers_when_it_was_last_well_and_last_not(up):
    server = add("one", up.url)
    check_mcp_server_health(server.pk)
    well = MCPServerHealth.objects.get(server=server)
    assert (well.ok, well.last_ok, well.last_failure) == (True, well.checked, None)
    up.health_status = 500
    check_mcp_server_health(server.pk)
    ill = MCPServerHealth.objects.get(server=server)
    assert (ill.ok, ill.reason, ill.http_status) == (False, "HTTP", 500)
    assert (ill.last_ok, ill.last_failure, ill.last_failure_reason) == (well.last_ok, ill.checked, "HTTP")
    assert ill.message.startswith(f"GET {up.url}/health answered 500")
    up.health_status = 200
    check_mcp_server_health(server.pk)
    again = MCPServerHealth.objects.get(server=server)
    assert (again.pk, again.last_failure, again.last_failure_reason) == (well.pk, ill.checked, "HTTP")
    assert again.last_ok > ill.checked


def test_checks_leave_no_trace_in_the_change_log_and_flips_do(up):
    down = add("down")
    add("well", up.url)
    with web_request_context(get_user_model().objects.create(username="oncall")):
        perform_mcp_health_checks()
    for_servers = ObjectChange.objects.filter(changed_object_type__model="mcpserver")
    assert [change.changed_object_id for change in for_servers] == [down.pk]
    of_checks = ObjectChange.objects.filter(changed_object_type__model__in=("mcpservercheck", "mcpserverhealth"))
    assert not of_checks.exists()
    edited = MCPServer.objects.get(pk=down.pk).last_updated
    perform_mcp_health_checks()
    assert MCPServer.objects.get(pk=down.pk).last_updated == edited


def test_an_edit_of_a_server_does_not_bring_back_what_a_check_had_found_before(up):
    server = add("one", up.url)
    check_mcp_server_health(server.pk)
    opened = MCPServer.objects.select_related("health").get(pk=server.pk)
    up.health_status = 500
    check_mcp_server_health(server.pk)
    opened.description = "edited"
    opened.validated_save()
    assert MCPServerHealth.objects.get(server=server).reason == "HTTP"


def test_trouble_of_the_checkers_own_is_kept_and_counts_neither_way():
    server = add("one")
    record_checks([report(server)], AiOpsSettings.load())
    record_checks([report(server, ok=False, reason="CHECKER")], AiOpsSettings.load())
    health = MCPServerHealth.objects.get(server=server)
    assert (health.ok, health.reason, health.last_failure) == (None, "CHECKER", None)
    found = statistics(server)["24 hours"]
    assert (found.probes, found.uptime_percent) == (1, 100.0)


@pytest.mark.parametrize("status_name", ["Healthy", "Unhealthy"])
@pytest.mark.parametrize("share", [0.1, 0.4, 0.5, 0.9])
def test_uptime_is_the_share_of_probes_that_found_the_server_well_whatever_its_status(share, status_name):
    """Each run goes on as the real one does: it stops at the first probe that says what the status says."""
    server, draw = add("one", status_name=status_name), random.Random(1)
    # From the runs of its status alone: what it flips to is not kept.
    for _ in range(400):
        check = ServerCheck(server)
        while isinstance(check.step(), ProbeAgain):
            well = draw.random() < share
            check.add(Probe(well, None if well else Reason.CONNECT, "asked", 1.0))
        MCPServerCheck.objects.bulk_create([health_history._as_check(check.report())])
    found = statistics(server)["24 hours"]
    assert found.uptime_percent == pytest.approx(100 * share, abs=6)
    assert with_uptime(MCPServer.objects.all()).get().uptime_24h == pytest.approx(found.uptime_percent)


def test_a_server_that_is_up_40_percent_of_the_time_flaps_and_its_checks_say_how_many_probes_failed():
    server, draw = add("one", status_name="Unhealthy"), random.Random(2)
    for _ in range(20):
        check = ServerCheck(server)
        while isinstance(check.step(), ProbeAgain):
            well = draw.random() < 0.4
            check.add(Probe(well, None if well else Reason.CONNECT, "asked", 1.0))
        record_checks([check.report()], AiOpsSettings.load())
    health = MCPServerHealth.objects.get(server=server)
    assert (len(health.recent), health.flapping) == (21, True)
    found = MCPServerCheck.objects.aggregate(probes=Sum("probes"), failures=Sum("failures"))
    assert found["probes"] > 20
    assert 0.4 < found["failures"] / found["probes"] < 0.8


@pytest.mark.parametrize(
    ("probes", "inconclusive", "kept"),
    [
        ("1", False, (1, 0, "1")),
        ("01", False, (2, 1, "01")),
        ("110", False, (3, 1, "110")),
        ("000", False, (3, 3, "000")),
        ("000", True, (0, 0, "")),
        ("?", False, (0, 0, "")),
        ("0?", False, (1, 1, "0")),
    ],
)
def test_a_row_keeps_what_each_of_its_probes_said_about_the_server(probes, inconclusive, kept):
    server = add("one", status_name="Healthy" if probes[0] == "0" else "Unhealthy")
    check = ServerCheck(server, our_network=inconclusive)
    for said in probes:
        reason = {"1": None, "0": Reason.CONNECT, "?": Reason.CHECKER}[said]
        check.add(Probe(said == "1", reason, "asked", 1.0))
    record_checks([check.report()], AiOpsSettings.load())
    row, health = MCPServerCheck.objects.get(), MCPServerHealth.objects.get()
    assert (row.probes, row.failures, health.recent) == kept


def test_what_a_server_says_of_itself_stays_until_it_says_something_else():
    server = add("one", "https://one.example.com")
    record_checks(
        [report(server, protocol_version="2025-06-18", server_name="one" * 100, server_version="1.2")],
        AiOpsSettings.load(),
    )
    record_checks([report(server)], AiOpsSettings.load())
    health = MCPServerHealth.objects.get(server=server)
    assert (health.protocol_version, health.server_version) == ("2025-06-18", "1.2")
    assert health.server_name == ("one" * 100)[:100]
    record_checks([report(server, protocol_version="2025-11-25", server_name="two")], AiOpsSettings.load())
    health.refresh_from_db()
    assert (health.protocol_version, health.server_name, health.server_version) == ("2025-11-25", "two", "")


def test_each_check_keeps_what_the_server_said_and_showed_then():
    server = add("one", "https://one.example.com")
    said = {"protocol_version": "2025-06-18", "server_name": "one" * 100, "server_version": "1.2"}
    record_checks([ending_in(server, 30.5, **said)], AiOpsSettings.load())
    record_checks([ending_in(server, -0.5, protocol_version="2025-11-25", server_name="two")], AiOpsSettings.load())
    record_checks([report(server, ok=False, reason="CONNECT")], AiOpsSettings.load())
    names = ("protocol_version", "server_name", "server_version", "certificate_days")
    assert list(MCPServerCheck.objects.order_by("time").values_list(*names)) == [
        ("2025-06-18", ("one" * 100)[:100], "1.2", 30),
        ("2025-11-25", "two", "", -1),
        ("", "", "", None),
    ]


def ending_in(server: MCPServer, days: float, **values) -> ServerReport:
    return report(server, certificate_ends=timezone.now() + timedelta(days=days), **values)


def test_the_end_of_a_certificate_is_kept_and_forgotten_with_tls():
    server = add("one", "https://one.example.com")
    record_checks([ending_in(server, 30.5)], AiOpsSettings.load())
    record_checks([report(server, ok=False, reason="CONNECT")], AiOpsSettings.load())
    assert MCPServerHealth.objects.get(server=server).certificate_days == 30
    record_checks([ending_in(server, -0.5)], AiOpsSettings.load())
    assert MCPServerHealth.objects.get(server=server).certificate_days == -1
    MCPServer.objects.filter(pk=server.pk).update(url="http://one.example.com")
    record_checks([report(server)], AiOpsSettings.load())
    assert MCPServerHealth.objects.get(server=server).certificate_days is None


def test_a_certificate_that_ends_within_three_weeks_is_warned_of_once_a_day(caplog):
    server, ends = add("one", "https://one.example.com"), timezone.now() + timedelta(days=20.5)

    def warned() -> bool:
        caplog.clear()
        record_checks([report(server, certificate_ends=ends)], AiOpsSettings.load())
        return any("The TLS certificate of one expires in 20 day(s)" in line for line in caplog.messages)

    record_checks([ending_in(server, 21.1)], AiOpsSettings.load())
    assert "certificate" not in caplog.text
    assert [warned(), warned(), warned()] == [True, False, False]
    MCPServerHealth.objects.update(checked=timezone.now() - timedelta(days=1))
    assert [warned(), warned()] == [True, False]


@pytest.mark.django_db(transaction=True)
def test_servers_that_are_edited_together_in_another_order_and_their_history_wait_for_each_other_once():
    first, last = sorted((add("one"), add("two")), key=lambda server: server.pk)
    edited = threading.Event()

    def edit_the_last_and_when_the_history_waits_the_first():
        with transaction.atomic():
            last.save()
            edited.set()
            wait_for_a_lock()
            first.save()
        connection.close()

    editor = threading.Thread(target=edit_the_last_and_when_the_history_waits_the_first)
    editor.start()
    assert edited.wait(60)
    record_checks([report(first), report(last)], AiOpsSettings.load())
    editor.join()
    assert MCPServerCheck.objects.count() == 2


def test_writing_takes_the_same_number_of_statements_for_one_server_and_for_many(django_assert_num_queries):
    servers = [add(f"server {number}") for number in range(30)]
    # Savepoint, two locks, checks, sums of hours, totals, standing, new standing, release.
    with django_assert_num_queries(9):
        record_checks([report(servers[0])], AiOpsSettings.load())
    with django_assert_num_queries(9):
        record_checks([report(server) for server in servers], AiOpsSettings.load())
    assert MCPServerCheck.objects.count() == 31


def test_a_server_deleted_since_it_was_probed_is_left_out():
    kept, gone = add("kept"), add("gone")
    reports = [report(kept), report(gone)]
    gone.delete()
    record_checks(reports, AiOpsSettings.load())
    assert [check.server for check in MCPServerCheck.objects.all()] == [kept]


@pytest.mark.django_db(transaction=True)
def test_a_server_that_is_being_deleted_meanwhile_does_not_spoil_the_history_of_the_others():
    kept, gone = add("kept"), add("gone")
    began, done = threading.Event(), threading.Event()

    def delete():
        with transaction.atomic():
            MCPServer.objects.get(pk=gone.pk).delete()
            began.set()
            done.wait(0.5)
        connection.close()

    thread = threading.Thread(target=delete)
    thread.start()
    began.wait(60)
    record_checks([report(kept), report(gone)], AiOpsSettings.load())
    done.set()
    thread.join()
    assert [check.server for check in MCPServerCheck.objects.all()] == [kept]


def test_a_deleted_server_takes_its_history_along_in_one_statement(django_assert_max_num_queries):
    server = add("one")
    for _ in range(50):
        checked(server)
    record_checks([report(server)], AiOpsSettings.load())
    with django_assert_max_num_queries(25):
        server.delete()
    assert not MCPServerCheck.objects.exists()
    assert not MCPServerHealth.objects.exists()


def test_what_is_older_than_the_setting_goes_in_batches(monkeypatch):
    monkeypatch.setattr(health_history, "TRIM_BATCH", 2)
    server = add("one")
    for hours in (1, 23, 25, 26, 27, 28, 29):
        checked(server, hours)
    assert trim_checks(1) == 5
    assert MCPServerCheck.objects.count() == 2
    assert trim_checks(1) == 0


def test_a_run_ends_after_some_batches_and_the_next_goes_on(monkeypatch):
    monkeypatch.setattr(health_history, "TRIM_BATCH", 1)
    monkeypatch.setattr(health_history, "MAX_TRIM_BATCHES", 2)
    server = add("one")
    for _ in range(3):
        checked(server, 48)
    assert (trim_checks(1), trim_checks(1)) == (2, 1)


@override_settings(PLUGINS_CONFIG={"ai_ops": {"check_history_days": 7}})
def test_the_run_itself_trims_by_the_setting(up):
    server = add("one", up.url)
    checked(server, 24 * 8)
    checked(server, 24 * 6)
    perform_mcp_health_checks()
    assert MCPServerCheck.objects.count() == 2


@override_settings(PLUGINS_CONFIG={"ai_ops": {"check_history_days": 0}})
def test_a_setting_that_can_not_be_used_fails_the_run_with_its_name():
    result = perform_mcp_health_checks()
    assert result["success"] is False
    assert "check_history_days must be a whole number from 1 to 3650, not 0" in result["error"]


def test_uptime_and_percentiles_are_those_of_the_window_and_of_passed_checks(django_assert_num_queries):
    server, other = add("one"), add("other")
    for latency in range(1, 101):
        checked(server, 1, latency_ms=latency)
    for _ in range(25):
        checked(server, 2, ok=False, latency_ms=10_000)
    checked(server, 1, ok=None, latency_ms=0)
    for _ in range(125):
        checked(server, 24 * 3, ok=False)
    checked(server, 24 * 40, ok=False)
    checked(other, 1, ok=False)
    with django_assert_num_queries(1):
        found = statistics(server)
    day, week, month = (found[name] for name in ("24 hours", "7 days", "30 days"))
    assert (day.probes, day.uptime_percent, day.p50_ms) == (125, 80.0, 50.5)
    assert day.p95_ms == pytest.approx(95.05)  # 95 + 0.05 of the way to 96: percentile_cont interpolates
    assert (week.probes, week.uptime_percent) == (250, 40.0)
    assert month == week


def test_without_checks_there_is_no_uptime_rather_than_none_at_all():
    found = statistics(add("one"))["24 hours"]
    assert (found.probes, found.uptime_percent, found.p50_ms, found.p95_ms) == (0, None, None, None)


def test_a_chart_has_every_stretch_of_time_the_empty_ones_too(django_assert_num_queries):
    server = add("one")
    checked(server, 0, latency_ms=20)
    checked(server, 0, ok=False)
    checked(server, 3, ok=None)
    checked(server, 5)
    with django_assert_num_queries(1):
        found = buckets(server, timedelta(hours=4), timedelta(hours=1))
    assert len(found) == 4
    assert [after.start - before.start for before, after in pairwise(found)] == [timedelta(hours=1)] * 3
    assert (found[-1].passed, found[-1].failed, found[-1].p50_ms) == (1, 1, 20)
    assert (found[0].unknown, found[0].p50_ms) == (1, None)
    assert (found[1].passed, found[1].failed, found[1].unknown) == (0, 0, 0)


def test_uptimes_of_a_list_take_one_query(django_assert_num_queries):
    servers = [add(f"server {number}") for number in range(5)]
    for server in servers[:2]:
        checked(server)
        checked(server, 2, ok=False)
    checked(servers[0], 2)
    checked(servers[0], 2)
    checked(servers[1], 30)
    with django_assert_num_queries(1):
        found = {server.name: server.uptime_24h for server in with_uptime(MCPServer.objects.all())}
    assert found == {"server 0": 75.0, "server 1": 50.0, "server 2": None, "server 3": None, "server 4": None}


def test_history_can_be_read_by_graphql():
    server = add("one")
    record_checks([report(server, ok=False, reason="TLS")], AiOpsSettings.load())
    user = get_user_model().objects.create(username="reader", is_superuser=True)
    result = execute_query(
        "{ mcp_server_checks(ok: false) { reason latency_ms server { name health { reason ok } } } }", user=user
    )
    assert result.errors is None
    assert result.data["mcp_server_checks"] == [
        {"reason": "TLS", "latency_ms": 1.0, "server": {"name": "one", "health": {"reason": "TLS", "ok": False}}}
    ]


@pytest.mark.django_db(transaction=True)
def test_a_history_that_can_not_be_written_leaves_the_flips_made_and_says_so(up):
    server = add("one", up.url, "Unhealthy")
    locked, done = threading.Event(), threading.Event()

    def lock_the_history():
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("LOCK TABLE ai_ops_mcpservercheck IN EXCLUSIVE MODE")
            locked.set()
            done.wait(60)
        connection.close()

    thread = threading.Thread(target=lock_the_history)
    thread.start()
    locked.wait(60)
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '200ms'")
    try:
        result = check_mcp_server_health(server.pk)
    finally:
        done.set()
        thread.join()
        with connection.cursor() as cursor:
            cursor.execute("RESET lock_timeout")
    assert (result["changed"], result["success"]) == (True, False)
    assert result["error"].startswith("The history of this run could not be saved. Nautobot's database or cache failed")
    assert MCPServer.objects.get(pk=server.pk).status.name == "Healthy"
