"""Causes that hold alerts and flips back: flapping, trouble of our own network, and servers that ask to wait."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from nautobot.extras.models import Status

from ai_ops.celery_tasks import check_mcp_server_health, close_resolved_incidents, perform_mcp_health_checks
from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import ConfigurationError
from ai_ops.mcp.history import record_checks
from ai_ops.mcp.incidents import follow_run
from ai_ops.mcp.logic.reports import ServerReport
from ai_ops.models import MCPServer, MCPServerCheck, MCPServerHealth, MCPServerIncident
from tests.fakes.servers import NOBODY_LISTENS, status_of
from tests.fakes.servers import add as saved

pytestmark = pytest.mark.django_db


def add(name, url=NOBODY_LISTENS, status_name="Healthy", **fields):
    return saved(name, url, status_name, probe="http", **fields)


def found(server: MCPServer, ok: bool) -> None:
    """A run of its own that found `server` well or ill, and flipped it if that is new."""
    before, after = status_of(server), "Healthy" if ok else "Unhealthy"
    MCPServer.objects.filter(pk=server.pk).update(status=Status.objects.get(name=after))
    report = ServerReport(
        server=server.name,
        server_id=str(server.pk),
        status_before=before,
        status_after=after,
        changed=before != after,
        ok=ok,
        reason=None if ok else "CONNECT",
        message="asked",
        latency_ms=1,
        checked_at=timezone.now(),
    )
    record_checks([report], AiOpsSettings.load())
    follow_run([report], AiOpsSettings.load())


def test_a_flapping_server_is_marked_and_its_alerts_are_held_until_it_stops():
    server = add("one")
    for ok in (True, False, True, False):
        found(server, ok)
    assert not MCPServerHealth.objects.get(server=server).flapping
    assert MCPServerIncident.objects.count() == 2
    found(server, True)
    assert MCPServerHealth.objects.get(server=server).flapping
    (still_open,) = MCPServerIncident.objects.filter(closed=None)
    for ok in (False, True) * 3:
        found(server, ok)
    assert MCPServerIncident.objects.count() == 2, "nothing more opens"
    assert list(MCPServerIncident.objects.filter(closed=None)) == [still_open], "and nothing closes"
    for _ in range(21):
        found(server, True)
    assert not MCPServerHealth.objects.get(server=server).flapping
    assert not MCPServerIncident.objects.filter(closed=None).exists()


def test_a_server_that_is_down_when_it_stops_flapping_is_an_incident_then():
    server = add("one")
    MCPServerHealth.objects.create(server=server, checked=timezone.now(), recent="10" * 10, flapping=True)
    found(server, False)
    assert not MCPServerIncident.objects.exists()
    for _ in range(21):
        found(server, False)
    assert [str(incident) for incident in MCPServerIncident.objects.all()] == ["one: CONNECT"]


def test_the_flips_of_a_flapping_server_are_still_made():
    server = add("one")
    MCPServerHealth.objects.create(server=server, checked=timezone.now(), recent="01" * 10, flapping=True)
    assert perform_mcp_health_checks()["changed_count"] == 1
    assert status_of(server) == "Unhealthy"
    assert not MCPServerIncident.objects.exists()


def test_an_incident_whose_servers_flap_is_not_escalated():
    server = add("one", status_name="Unhealthy")
    MCPServerHealth.objects.create(server=server, checked=timezone.now(), flapping=True)
    incident = MCPServerIncident.objects.create(name="one", reason="HTTP", opened=timezone.now() - timedelta(days=1))
    incident.servers.add(server)
    assert close_resolved_incidents()["escalated"] == 0
    MCPServerHealth.objects.update(flapping=False)
    assert close_resolved_incidents()["escalated"] == 1


@pytest.fixture
def guarded(settings):
    """Turn the guard on, with a control at this address."""

    def turn_on(control_url, percent=50):
        settings.PLUGINS_CONFIG = {
            "ai_ops": settings.PLUGINS_CONFIG["ai_ops"]
            | {"mass_failure_percent": percent, "control_url": control_url, "allow_loopback": True}
        }

    return turn_on


def test_when_the_control_fails_too_nothing_flips_and_one_alert_opens(guarded, up):
    guarded(NOBODY_LISTENS)
    servers = [add(f"server {number}") for number in range(3)]
    back = add("back", up.url, "Unhealthy")
    for _ in range(2):
        result = perform_mcp_health_checks()
        assert (result["success"], result["changed_count"]) == (False, 0)
        assert "INCONCLUSIVE: 3 of 3 Healthy servers newly fail (3 CONNECT), and so does the control" in result["error"]
        assert {status_of(server) for server in servers} == {"Healthy"}
    assert status_of(back) == "Unhealthy"
    incident = MCPServerIncident.objects.get()
    assert (incident.kind, incident.servers.count()) == ("inconclusive", 3)
    assert close_resolved_incidents()["auto_closed"] == 0
    assert set(MCPServerCheck.objects.filter(server__in=servers).values_list("ok", flat=True)) == {None}


def test_the_alert_closes_with_the_next_run_that_says_something(guarded, up):
    guarded(NOBODY_LISTENS)
    servers = [add(f"server {number}") for number in range(3)]
    perform_mcp_health_checks()
    MCPServer.objects.filter(pk__in=[server.pk for server in servers]).update(url=up.url)
    assert perform_mcp_health_checks()["success"] is True
    assert not MCPServerIncident.objects.filter(closed=None).exists()


def test_when_the_control_answers_the_servers_are_to_blame(guarded, up):
    up.health_status = 500
    guarded(f"{up.url}/health")
    servers = [add(f"server {number}") for number in range(3)]
    assert perform_mcp_health_checks()["changed_count"] == 3
    assert {status_of(server) for server in servers} == {"Unhealthy"}
    assert len(up.requests) == 1


def test_fewer_servers_do_not_ask_the_control(guarded, up):
    guarded(f"{up.url}/health")
    for number in range(2):
        add(f"server {number}")
    assert perform_mcp_health_checks()["changed_count"] == 2
    assert up.requests == []


def test_flips_of_most_servers_at_once_for_reasons_of_the_network_wait_for_the_next_run(up):
    servers = [add(f"server {number}") for number in range(3)]
    back = add("back", up.url, "Unhealthy")
    result = perform_mcp_health_checks()
    assert (result["success"], result["changed_count"], result["failed_count"]) == (True, 1, 3)
    assert {status_of(server) for server in servers} == {"Healthy"}
    assert status_of(back) == "Healthy", "what is up again is believed"
    assert not MCPServerIncident.objects.exists()
    result = perform_mcp_health_checks()
    assert (result["changed_count"], {status_of(server) for server in servers}) == (3, {"Unhealthy"})
    assert MCPServerIncident.objects.get().servers.count() == 3


@pytest.mark.parametrize("what", ["the change", "a check"])
def test_what_a_clock_noted_that_was_ahead_keeps_no_flip_from_being_confirmed(what):
    servers = [add(f"server {number}") for number in range(3)]
    ahead = timezone.now() + timedelta(days=2)
    if what == "the change":
        MCPServer.objects.update(last_updated=ahead)
    else:
        for server in servers:
            MCPServerCheck.objects.create(server=server, time=ahead, ok=True, latency_ms=1, probes=1, failures=0)
    assert perform_mcp_health_checks()["changed_count"] == 0
    assert perform_mcp_health_checks()["changed_count"] == 3


def test_when_the_network_is_back_in_the_next_run_nothing_was_changed(up):
    servers = [add(f"server {number}") for number in range(3)]
    perform_mcp_health_checks()
    MCPServer.objects.update(url=up.url)
    assert perform_mcp_health_checks()["changed_count"] == 0
    MCPServer.objects.update(url=NOBODY_LISTENS)
    assert perform_mcp_health_checks()["changed_count"] == 0, "it waits anew"
    assert {status_of(server) for server in servers} == {"Healthy"}


def test_of_the_next_run_only_what_was_waiting_is_confirmed(up):
    waiting = [add(f"server {number}") for number in range(3)]
    perform_mcp_health_checks()
    new = [add(f"new {number}") for number in range(8)]
    perform_mcp_health_checks()
    assert {status_of(server) for server in waiting} == {"Unhealthy"}
    assert {status_of(server) for server in new} == {"Healthy"}
    perform_mcp_health_checks()
    assert {status_of(server) for server in new} == {"Unhealthy"}


@pytest.mark.parametrize(
    ("healthy", "unreachable", "failing", "changed"),
    [
        (0, 2, 0, 2),  # fewer than three Healthy servers
        (2, 2, 0, 2),  # half is not more than half
        (1, 2, 0, 0),  # two of three are
        (0, 4, 1, 5),  # one that answers, and fails, has been reached
        (5, 3, 0, 3),
    ],
)
def test_the_flips_wait_where_most_of_at_least_three_fail_and_none_was_reached(
    up, healthy, unreachable, failing, changed
):
    for number in range(healthy):
        add(f"healthy {number}", up.url)
    for number in range(unreachable):
        add(f"unreachable {number}")
    for number in range(failing):
        add(f"failing {number}", up.url, health_check="/500")
    assert perform_mcp_health_checks()["changed_count"] == changed


def test_a_control_decides_at_once_without_a_share(guarded, up):
    guarded(f"{up.url}/health", percent=0)
    servers = [add(f"server {number}") for number in range(3)]
    assert perform_mcp_health_checks()["changed_count"] == 3
    MCPServer.objects.update(status=Status.objects.get(name="Healthy"))
    guarded(NOBODY_LISTENS, percent=0)
    for _ in range(2):
        assert "INCONCLUSIVE" in perform_mcp_health_checks()["error"]
    assert {status_of(server) for server in servers} == {"Healthy"}


def test_the_guard_needs_a_control_and_thresholds_their_order(settings):
    for given, sentence in (
        ({"mass_failure_percent": 50}, "needs a control_url"),
        ({"mass_failure_percent": 101, "control_url": "http://x"}, "from 1 to 100"),
        ({"control_url": "ftp://x"}, "must begin with http"),
        ({"flap_low_percent": 30}, "in this order"),
        ({"flap_high_percent": "20"}, "must be numbers"),
    ):
        settings.PLUGINS_CONFIG = {"ai_ops": given}
        with pytest.raises(ConfigurationError, match=sentence):
            AiOpsSettings.load()


def test_a_server_that_asks_to_wait_is_asked_once_and_not_before_its_time(up):
    server = add("one", up.url, health_check="/429")
    result = check_mcp_server_health(server.pk)
    assert (result["retry_after"], result["changed"]) == (30, False)
    assert len(up.requests) == 1, "no second round"
    assert perform_mcp_health_checks()["checked_count"] == 0
    health = MCPServerHealth.objects.get(server=server)
    assert timedelta(seconds=25) < health.retry_at - timezone.now() <= timedelta(seconds=30)
    MCPServerHealth.objects.update(retry_at=timezone.now())
    assert perform_mcp_health_checks()["checked_count"] == 1


def test_a_server_that_always_asks_to_wait_is_unhealthy_after_three_checks(up):
    server = add("one", up.url, health_check="/429")
    for _ in range(3):
        assert status_of(server) == "Healthy"
        MCPServerHealth.objects.update(retry_at=None)
        perform_mcp_health_checks()
    assert status_of(server) == "Unhealthy"
    assert len(up.requests) == 3
