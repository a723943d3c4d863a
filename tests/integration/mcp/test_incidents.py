"""Incidents: when they open and close, who hears of it, and what people may do to them."""

from __future__ import annotations

import threading
from datetime import timedelta
from itertools import product

import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.db.models.signals import pre_save
from django.urls import reverse
from django.utils import timezone
from nautobot.apps.change_logging import web_request_context
from nautobot.apps.testing import APIViewTestCases, TestCase, ViewTestCases
from nautobot.core.graphql import execute_query
from nautobot.extras.choices import JobResultStatusChoices
from nautobot.extras.models import JobResult, ObjectChange, Status

from ai_ops.celery_tasks import close_resolved_incidents, perform_mcp_health_checks
from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import IncidentError
from ai_ops.mcp.history import record_checks
from ai_ops.mcp.incidents import acknowledge, follow_run
from ai_ops.mcp.logic.reports import ServerReport
from ai_ops.models import MCPServer, MCPServerHealth, MCPServerIncident, MCPServerTool, MCPServerToolSet
from ai_ops.schedules import find_job
from tests.fakes.events import heard
from tests.fakes.servers import NOBODY_LISTENS, add

pytestmark = pytest.mark.django_db
committed = pytest.mark.django_db(transaction=True)

# The kinds of incidents about servers, which end with their cause.
KINDS = ("outage", "inconclusive", "drift", "listing", "certificate")


@pytest.fixture
def listener():
    with heard("ai_ops.*") as broker:
        yield broker


def status(name):
    return Status.objects.get_for_model(MCPServer).get(name=name)


def give(server: MCPServer, status_name: str) -> None:
    server.refresh_from_db()
    server.status = status(status_name)
    server.validated_save()


def incident_of(
    *servers: MCPServer, hours_ago: float = 0, kind: str = "outage", name: str = "one"
) -> MCPServerIncident:
    opened = timezone.now() - timedelta(hours=hours_ago)
    incident = MCPServerIncident(name=name, kind=kind, reason="CONNECT", opened=opened)
    incident.validated_save()
    incident.servers.set(servers)
    return incident


def names(incident: MCPServerIncident) -> list[str]:
    return sorted(server.name for server in incident.servers.all())


def review(**changed: int) -> dict[str, int]:
    """The counts of a review without its time, which no test can know."""
    result = close_resolved_incidents()
    assert result.pop("execution_time_ms") >= 0
    assert result.pop("run")["state"] == "succeeded"
    return result


def test_a_flip_to_unhealthy_opens_an_incident_that_says_what_to_do():
    add("down")
    perform_mcp_health_checks()
    incident = MCPServerIncident.objects.get()
    assert (str(incident), incident.reason, names(incident)) == ("down: CONNECT", "CONNECT", ["down"])
    assert "check that the server runs" in incident.message
    assert incident.closed is None


def test_confirmed_health_closes_it_with_its_duration(up):
    server = add("one", up.url)
    up.health_status = 500
    perform_mcp_health_checks()
    MCPServerIncident.objects.update(opened=timezone.now() - timedelta(minutes=90))
    up.health_status = 200
    up.script = [200, 500]
    perform_mcp_health_checks()
    assert MCPServerIncident.objects.get().closed is None, "one check does not confirm health"
    perform_mcp_health_checks()
    incident = MCPServerIncident.objects.get()
    assert incident.closed is not None
    assert timedelta(minutes=90) <= incident.duration < timedelta(minutes=91)
    server.refresh_from_db()
    assert server.status.name == "Healthy"


def test_a_new_server_that_was_never_well_is_no_incident():
    add("new", status_name="Unhealthy")
    perform_mcp_health_checks()
    assert not MCPServerIncident.objects.exists()


def test_a_mass_outage_is_one_incident_and_two_servers_are_two():
    add("one")
    add("two")
    perform_mcp_health_checks()
    assert sorted(str(incident) for incident in MCPServerIncident.objects.all()) == ["one: CONNECT", "two: CONNECT"]
    MCPServerIncident.objects.all().delete()
    for number in range(3):
        add(f"server {number}")
    for _ in range(2):  # it may be our own network, which the second run confirms it is not
        perform_mcp_health_checks()
    incident = MCPServerIncident.objects.get()
    assert (str(incident), names(incident)) == ("3 servers: CONNECT", ["server 0", "server 1", "server 2"])


def test_a_mass_outage_closes_with_the_last_of_its_servers(up):
    servers = [add(f"server {number}", up.url) for number in range(3)]
    up.health_status = 500
    perform_mcp_health_checks()
    give(servers[0], "Maintenance")
    up.health_status = 200
    with up_elsewhere(servers[1]):
        perform_mcp_health_checks()
    assert MCPServerIncident.objects.get().closed is None
    perform_mcp_health_checks()
    assert MCPServerIncident.objects.get().closed is not None


class up_elsewhere:
    """While the block lasts, the server's address is one where no process listens."""

    def __init__(self, server):
        self.server = server

    def __enter__(self):
        self.url = self.server.url
        MCPServer.objects.filter(pk=self.server.pk).update(url=NOBODY_LISTENS)

    def __exit__(self, *_):
        MCPServer.objects.filter(pk=self.server.pk).update(url=self.url)


def test_a_server_that_fails_again_stays_in_its_open_incident():
    server, other = add("one"), add("other", status_name="Unhealthy")
    incident_of(server, other)
    perform_mcp_health_checks()
    assert MCPServerIncident.objects.count() == 1


def give_cause(server: MCPServer, kind: str, lasts: bool) -> None:
    """Give `server` what an incident of this kind, which opened an hour ago, has as its cause; or what ended it."""
    now = timezone.now()
    if kind == "outage":
        give(server, "Unhealthy" if lasts else "Healthy")
    elif kind == "drift":
        MCPServerTool.objects.create(
            server=server, name="tool", state="changed" if lasts else "approved", since=now, first_seen=now
        )
    elif kind == "listing":
        MCPServerToolSet.objects.create(server=server, asked=now, listed=now, reason="HTTP" if lasts else "")
    elif kind == "certificate":
        ends = now + timedelta(days=1 if lasts else 90)
        MCPServerHealth.objects.create(server=server, checked=now, ok=True, certificate_ends=ends)
    else:
        MCPServerHealth.objects.create(server=server, checked=now - timedelta(hours=2 if lasts else 0), ok=True)


CHECKED = {"passed": True, "failed": False, "had no verdict": None, "was not checked": ...}


def test_a_run_closes_what_ended_of_the_servers_that_passed_and_nothing_else():
    expected, reports = {}, []
    for kind, lasts, (checked, ok) in product(KINDS, (True, False), CHECKED.items()):
        server = add(f"{kind} that {'lasts' if lasts else 'ended'}, its server {checked}")
        give_cause(server, kind, lasts)
        incident = incident_of(server, hours_ago=1, kind=kind, name=server.name)
        expected[incident.name] = checked == "passed" and not lasts
        if ok is not ...:
            reports.append(ServerReport(server=server.name, server_id=str(server.pk), ok=ok))
    follow_run(reports, AiOpsSettings.load())
    closed = MCPServerIncident.objects.exclude(closed=None).values_list("name", flat=True)
    assert {name: name in closed for name in expected} == expected
    assert sum(expected.values()) == len(KINDS)
    assert close_resolved_incidents()["auto_closed"] == 3 * len(KINDS), "the review closes the others that ended"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other_lasts", [True, False])
def test_an_incident_of_several_servers_ends_with_the_last_although_a_run_checked_one(kind, other_lasts):
    one, other = add("one"), add("other")
    give_cause(one, kind, lasts=False)
    give_cause(other, kind, lasts=other_lasts)
    incident_of(one, other, hours_ago=1, kind=kind)
    follow_run([ServerReport(server="one", server_id=str(one.pk), ok=True)], AiOpsSettings.load())
    # One server with a verdict tells that the network is well.
    is_open = other_lasts and kind != "inconclusive"
    assert (MCPServerIncident.objects.get().closed is None) == is_open


def test_a_check_without_a_verdict_ends_no_inconclusive_run():
    server = add("one")
    MCPServerHealth.objects.create(server=server, checked=timezone.now(), ok=None)
    incident_of(server, hours_ago=1, kind="inconclusive")
    assert close_resolved_incidents()["auto_closed"] == 0


@committed
def test_each_transition_is_published_once_it_is_committed(up, listener):
    add("one", up.url)
    up.health_status = 500
    perform_mcp_health_checks()
    acknowledge(MCPServerIncident.objects.get(), get_user_model().objects.create(username="oncall"))
    MCPServerIncident.objects.update(opened=timezone.now() - timedelta(hours=5))
    close_resolved_incidents()
    up.health_status = 200
    perform_mcp_health_checks()
    assert listener.topics() == [
        "ai_ops.mcp.flipped",
        "ai_ops.mcp.incident.opened",
        "ai_ops.mcp.checked",
        "ai_ops.mcp.incident.acknowledged",
        "ai_ops.mcp.incident.escalated",
        "ai_ops.mcp.flipped",
        "ai_ops.mcp.incident.closed",
        "ai_ops.mcp.checked",
    ]
    flipped, opened, closed = (listener.events[number][1] for number in (0, 1, 6))
    assert (flipped["server"]["name"], flipped["status_before"], flipped["status_after"]) == (
        "one",
        "Healthy",
        "Unhealthy",
    )
    assert [server["name"] for server in opened["servers"]] == ["one"]
    assert (opened["incident"]["reason"], opened["incident"]["duration_seconds"]) == ("HTTP", None)
    assert closed["incident"]["acknowledged_by"] == "oncall"
    assert closed["incident"]["duration_seconds"] >= 5 * 3600


@committed
def test_a_broker_that_fails_holds_up_nothing():
    with heard(error=ConnectionError("no process listens")):
        add("down")
        assert perform_mcp_health_checks()["success"] is True
    assert MCPServerIncident.objects.count() == 1


def test_incidents_are_in_the_change_log(up):
    add("one", up.url)
    up.health_status = 500
    with web_request_context(get_user_model().objects.create(username="oncall")):
        perform_mcp_health_checks()
    incident = MCPServerIncident.objects.get()
    (created,) = ObjectChange.objects.filter(changed_object_id=incident.pk)
    assert created.action == "create"
    assert created.object_data_v2["servers"] == [
        {"id": str(server.pk), "name": "one"} for server in incident.servers.all()
    ]
    up.health_status = 200
    with web_request_context(get_user_model().objects.get(username="oncall")):
        perform_mcp_health_checks()
    assert [change.action for change in ObjectChange.objects.filter(changed_object_id=incident.pk)] == [
        "update",
        "create",
    ]


def test_the_review_has_these_keys_and_nothing_to_do_without_incidents():
    result = close_resolved_incidents()
    assert result.pop("run")["state"] == "succeeded"
    assert list(result) == ["total_checked", "opened", "auto_closed", "escalated", "errors", "execution_time_ms"]
    assert [type(value) for value in result.values()] == [int] * 6
    assert sum(list(result.values())[:5]) == 0


@pytest.mark.parametrize("elsewhere", ["Healthy", "Maintenance", "Vulnerable"])
def test_the_review_closes_what_recovered_elsewhere(elsewhere):
    server = add("one", status_name="Unhealthy")
    incident_of(server)
    assert review() == {"total_checked": 1, "opened": 0, "auto_closed": 0, "escalated": 0, "errors": 0}
    give(server, elsewhere)
    assert review() == {"total_checked": 1, "opened": 0, "auto_closed": 1, "escalated": 0, "errors": 0}
    assert review() == {"total_checked": 0, "opened": 0, "auto_closed": 0, "escalated": 0, "errors": 0}


def test_the_review_closes_an_incident_whose_servers_were_deleted():
    server = add("one", status_name="Unhealthy")
    incident_of(server)
    server.delete()
    assert review()["auto_closed"] == 1


def test_the_review_opens_one_that_a_killed_run_left_to_it():
    server = add("down", status_name="Unhealthy")
    health = MCPServerHealth(server=server, checked=timezone.now(), ok=False, reason="HTTP", alert_held=True)
    health.message = "GET http://127.0.0.1:1/health answered 500"
    health.save()
    close_resolved_incidents()
    assert _opened() == [], "its run may still be about to open it"
    MCPServer.objects.update(last_updated=timezone.now() - timedelta(minutes=3))
    MCPServerHealth.objects.update(flapping=True)
    close_resolved_incidents()
    assert _opened() == []
    MCPServerHealth.objects.update(flapping=False)
    for _ in range(2):
        assert close_resolved_incidents()["errors"] == 0
        assert _opened() == ["down: HTTP"]
    assert MCPServerIncident.objects.get().message == health.message


def _opened() -> list[str]:
    return sorted(MCPServerIncident.objects.values_list("name", flat=True))


def test_what_is_open_for_too_long_is_escalated_once(settings):
    settings.PLUGINS_CONFIG = {"ai_ops": {"incident_escalation_hours": 2}}
    server = add("one", status_name="Unhealthy")
    old, new = incident_of(server, hours_ago=2.1), incident_of(server, hours_ago=1.9)
    assert review() == {"total_checked": 2, "opened": 0, "auto_closed": 0, "escalated": 1, "errors": 0}
    old.refresh_from_db()
    new.refresh_from_db()
    assert old.escalated
    assert not new.escalated
    assert review()["escalated"] == 0


def test_one_incident_that_can_not_be_saved_does_not_stop_the_rest(caplog):
    server = add("one")
    bad, good = incident_of(server, hours_ago=1), incident_of(server)

    def refuse(sender, instance, **kwargs):
        if instance.pk == bad.pk:
            raise ValidationError("this one stays open")

    pre_save.connect(refuse, sender=MCPServerIncident)
    try:
        assert review() == {"total_checked": 2, "opened": 0, "auto_closed": 1, "escalated": 0, "errors": 1}
    finally:
        pre_save.disconnect(refuse, sender=MCPServerIncident)
    good.refresh_from_db()
    assert good.closed
    assert "this one stays open" in caplog.text, "the traceback is in the log"
    assert review() == {"total_checked": 1, "opened": 0, "auto_closed": 1, "escalated": 0, "errors": 0}


@committed
def test_two_reviews_at_once_close_an_incident_once(listener):
    incident_of(add("one"))
    began, go = threading.Event(), threading.Event()

    def hold():
        with transaction.atomic():
            MCPServerIncident.objects.select_for_update().get()
            began.set()
            go.wait(60)
        connection.close()

    def other_review():
        close_resolved_incidents()
        connection.close()

    holder, other = threading.Thread(target=hold), threading.Thread(target=other_review)
    holder.start()
    began.wait(60)
    other.start()
    threading.Timer(0.3, go.set).start()
    close_resolved_incidents()
    holder.join()
    other.join()
    assert listener.topics() == ["ai_ops.mcp.incident.closed"]


def test_the_first_to_acknowledge_stays_and_a_closed_incident_refuses():
    first, second = (get_user_model().objects.create(username=name) for name in ("first", "second"))
    incident = incident_of(add("one", status_name="Unhealthy"))
    acknowledge(incident, first)
    when = incident.acknowledged
    acknowledge(incident, second)
    assert (incident.acknowledged_by, incident.acknowledged) == (first, when)
    MCPServerIncident.objects.update(closed=timezone.now())
    with pytest.raises(IncidentError, match="already closed"):
        acknowledge(incident, second)


def test_incidents_can_be_read_by_graphql():
    incident_of(add("one", status_name="Unhealthy"))
    user = get_user_model().objects.create(username="reader", is_superuser=True)
    result = execute_query("{ mcp_server_incidents(is_open: true) { name servers { name } } }", user=user)
    assert result.errors is None
    assert result.data == {"mcp_server_incidents": [{"name": "one", "servers": [{"name": "one"}]}]}


@pytest.mark.django_db(transaction=True, databases=["default", "job_logs"])
def test_the_job_reviews_and_says_what_it_did(user):
    job = find_job("incidents")
    job.enabled = True
    job.validated_save()
    incident_of(add("one"))
    result = JobResult.enqueue_job(job, user, synchronous=True, job_kwargs={})
    result.refresh_from_db()
    assert result.status == JobResultStatusChoices.STATUS_SUCCESS
    assert result.result["auto_closed"] == 1
    lines = [entry.message for entry in result.job_log_entries.all()]
    assert "✅ Incident review completed: 1 open, 1 closed, 0 escalated, 0 error(s)" in lines
    assert (job.hidden, job.has_sensitive_variables) == (True, False)


def make_incidents():
    server = MCPServer.objects.create(name="one", url="http://one.example.com")
    for number in range(3):
        incident = MCPServerIncident.objects.create(name=f"incident {number}", reason="TLS", opened=timezone.now())
        incident.servers.add(server)


class IncidentViewTest(
    ViewTestCases.GetObjectViewTestCase,
    ViewTestCases.GetObjectChangelogViewTestCase,
    ViewTestCases.GetObjectNotesViewTestCase,
    ViewTestCases.ListObjectsViewTestCase,
    ViewTestCases.DeleteObjectViewTestCase,
    ViewTestCases.BulkDeleteObjectsViewTestCase,
):
    model = MCPServerIncident

    @classmethod
    def setUpTestData(cls):
        make_incidents()


class IncidentAPITest(
    APIViewTestCases.GetObjectViewTestCase,
    APIViewTestCases.ListObjectsViewTestCase,
    APIViewTestCases.NotesURLViewTestCase,
):
    model = MCPServerIncident
    choices_fields = ["kind"]

    @classmethod
    def setUpTestData(cls):
        make_incidents()

    def acknowledge(self, incident):
        url = reverse("plugins-api:ai_ops-api:mcpserverincident-acknowledge", kwargs={"pk": incident.pk})
        return self.client.post(url, **self.header)

    def test_to_acknowledge_needs_its_own_permission(self):
        incident = MCPServerIncident.objects.first()
        self.add_permissions("ai_ops.view_mcpserverincident", "ai_ops.change_mcpserverincident")
        self.assertHttpStatus(self.acknowledge(incident), 403)
        self.add_permissions("ai_ops.acknowledge_mcpserverincident")
        response = self.acknowledge(incident)
        self.assertHttpStatus(response, 200)
        assert response.data["acknowledged"]
        incident.refresh_from_db()
        assert incident.acknowledged_by == self.user

    def test_a_closed_incident_answers_409(self):
        self.add_permissions("ai_ops.view_mcpserverincident", "ai_ops.acknowledge_mcpserverincident")
        MCPServerIncident.objects.update(closed=timezone.now())
        response = self.acknowledge(MCPServerIncident.objects.first())
        self.assertHttpStatus(response, 409)
        assert "already closed" in response.data["detail"]

    def test_incidents_are_not_written_by_rest(self):
        self.add_permissions("ai_ops.add_mcpserverincident")
        self.assertHttpStatus(self.client.post(self._get_list_url(), {}, format="json", **self.header), 405)


class AcknowledgePageTest(TestCase):
    @classmethod
    def setUpTestData(cls):
        make_incidents()
        cls.incident = MCPServerIncident.objects.first()
        cls.url = reverse("plugins:ai_ops:mcpserverincident_acknowledge", kwargs={"pk": cls.incident.pk})

    def page(self):
        return self.client.get(self.incident.get_absolute_url()).content.decode()

    def test_the_button_is_there_for_those_who_may_until_it_was_pressed(self):
        self.add_permissions("ai_ops.view_mcpserverincident")
        assert self.url not in self.page()
        self.assertHttpStatus(self.client.post(self.url), 403)
        self.add_permissions("ai_ops.acknowledge_mcpserverincident")
        assert self.url in self.page()
        self.assertRedirects(self.client.post(self.url), self.incident.get_absolute_url())
        self.incident.refresh_from_db()
        assert self.incident.acknowledged_by == self.user
        assert self.url not in self.page()

    def test_a_get_acknowledges_nothing(self):
        self.add_permissions("ai_ops.view_mcpserverincident", "ai_ops.acknowledge_mcpserverincident")
        self.client.get(self.url)
        self.incident.refresh_from_db()
        assert self.incident.acknowledged is None


def certificate_ends(server: MCPServer, days: float) -> None:
    """A run that saw the certificate of `server`, which has so many days left."""
    ends = timezone.now() + timedelta(days=days)
    report = ServerReport(
        server=server.name,
        server_id=str(server.pk),
        ok=True,
        latency_ms=1,
        checked_at=timezone.now(),
        certificate_ends=ends,
    )
    record_checks([report], AiOpsSettings.load())
    follow_run([report], AiOpsSettings.load())


def test_a_certificate_that_ends_within_three_days_is_an_incident_until_it_is_renewed():
    server = add("one", "https://one.example.com")
    certificate_ends(server, 3.1)
    assert not MCPServerIncident.objects.exists()
    for days in (2.9, 2.8, -1):
        certificate_ends(server, days)
    incident = MCPServerIncident.objects.get()
    assert (incident.name, incident.kind, incident.closed) == ("one: TLS certificate ends", "certificate", None)
    assert incident.message.startswith("The TLS certificate of one ends on ")
    assert "Renew the certificate" in incident.message
    assert close_resolved_incidents()["auto_closed"] == 0
    certificate_ends(server, 90)
    incident.refresh_from_db()
    assert incident.closed is not None
    certificate_ends(server, 1)
    assert MCPServerIncident.objects.filter(closed=None).count() == 1


def test_certificates_of_many_servers_that_end_together_are_one_incident():
    servers = [add(f"server {number}", "https://one.example.com") for number in range(4)]
    MCPServerHealth.objects.bulk_create(
        MCPServerHealth(server=server, checked=timezone.now(), certificate_ends=timezone.now()) for server in servers
    )
    certificate_ends(servers[0], 1)
    incident = MCPServerIncident.objects.get()
    assert (incident.name, incident.servers.count()) == ("4 servers: TLS certificate ends", 4)
    MCPServer.objects.update(status=Status.objects.get(name="Vulnerable"))
    assert close_resolved_incidents()["auto_closed"] == 1, "those are not checked, and not used"
