"""Notifications: what Slack, Teams, PagerDuty and a plain receiver get at a real HTTP server, and when."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
from dataclasses import replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.contrib.messages import get_messages
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from nautobot.apps.change_logging import web_request_context
from nautobot.extras.models import Job, JobQueue, ScheduledJob, Webhook
from nautobot.users.models import ObjectPermission, User

from ai_ops.celery_tasks import close_resolved_incidents
from ai_ops.choices import MCPIncidentKindChoices, RunStateChoices
from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import ConfigurationError
from ai_ops.mcp.incidents import acknowledge, close_incident, follow_run, send_test_incident
from ai_ops.mcp.logic.reports import ServerReport
from ai_ops.models import MaintenanceRun, MCPServerIncident
from ai_ops.notifications import RECEIVERS, add_receiver, allow_job_hook, body_of
from ai_ops.runs.service_user import SERVICE_USER, service_user
from ai_ops.supervision.maintenance_incidents import follow_maintenance
from tests.fakes.users import user_who_may
from tests.fakes.webhook_receiver import WebhookReceiver
from tests.integration.pages.test_overview import make_all_well, make_run, make_server

pytestmark = pytest.mark.django_db

# Loopback is refused by Nautobot, so that what listens there is a proxy.
URL = "http://10.20.30.40/alerts"
NAUTOBOT = "https://nautobot.example.com"
HOSTILE = 'down "quoted" <!channel> [link](https://evil.example.com) {{ 7 * 7 }} \n\u202e'


@pytest.fixture
def receiver(settings):
    with WebhookReceiver().running() as found:
        settings.HTTP_PROXIES = {"http": found.url, "https": found.url}
        yield found


@pytest.fixture
def user(db):
    return User.objects.create(username="ada", is_superuser=True, is_active=True)


def told(receiver, user, act):
    """Do something as Nautobot does it in a request, and return what the receiver got."""
    before = len(receiver.deliveries)
    with web_request_context(user):
        act()
    return receiver.deliveries[before:]


def incident(**fields):
    values = {
        "name": "Tickets: TIMEOUT",
        "reason": "TIMEOUT",
        "message": "It did not answer.",
        "opened": timezone.now(),
    }
    return MCPServerIncident.objects.create(**(values | fields))


def life_of(receiver, user):
    """The bodies that are sent for an incident that is opened, acknowledged and closed."""
    made = []
    opened = told(receiver, user, lambda: made.append(incident()))
    acknowledged = told(receiver, user, lambda: acknowledge(made[0], user))
    made[0].refresh_from_db()
    closed = told(receiver, user, lambda: close_incident(made[0], timezone.now()))
    bodies = [delivery.payload for delivery in (*opened, *acknowledged, *closed)]
    assert len(bodies) == 3
    return made[0], bodies


def test_slack_gets_a_message_for_each_step_with_a_link(receiver, user):
    add_receiver("slack", URL, nautobot_url=NAUTOBOT)
    made, bodies = life_of(receiver, user)
    texts = [body["text"] for body in bodies]
    assert texts == [
        "🔴 Incident opened: Tickets: TIMEOUT",
        "👀 Incident acknowledged: Tickets: TIMEOUT",
        "🟢 Incident closed: Tickets: TIMEOUT",
    ]
    _, section, actions = bodies[0]["blocks"]
    assert section["text"] == {"type": "plain_text", "text": "It did not answer."}
    assert actions["elements"][0]["url"] == f"{NAUTOBOT}{made.get_absolute_url()}"


def test_teams_gets_a_card_for_each_step(receiver, user):
    add_receiver("teams", URL, nautobot_url=f"{NAUTOBOT}/")
    made, bodies = life_of(receiver, user)
    cards = [body["attachments"][0]["content"] for body in bodies]
    assert {card["type"] for card in cards} == {"AdaptiveCard"}
    titles = [card["body"][0]["inlines"][0] for card in cards]
    assert [title["text"].split(":")[0] for title in titles] == [
        "Incident opened", "Incident acknowledged", "Incident closed",
    ]  # fmt: skip
    assert [title["color"] for title in titles] == ["Attention", "Attention", "Good"]
    assert cards[0]["actions"][0]["url"] == f"{NAUTOBOT}{made.get_absolute_url()}"


def test_pagerduty_gets_one_alert_that_is_acknowledged_and_resolved(receiver, user):
    add_receiver("pagerduty", URL, routing_key="R0UTING")
    made, bodies = life_of(receiver, user)
    assert [body["event_action"] for body in bodies] == ["trigger", "acknowledge", "resolve"]
    assert {body["dedup_key"] for body in bodies} == {f"nautobot-ai-ops-{made.pk}"}
    assert {body["routing_key"] for body in bodies} == {"R0UTING"}
    payload = bodies[0]["payload"]
    assert (payload["severity"], payload["class"], payload["source"]) == ("critical", "outage", "Nautobot")
    assert datetime.fromisoformat(payload["timestamp"]) == made.opened
    assert "client_url" not in bodies[0]


def test_a_plain_receiver_gets_the_change_signed(receiver, user):
    add_receiver("plain", URL, secret="known to both sides")
    (delivery,) = told(receiver, user, incident)
    assert delivery.what == ("mcpserverincident", "created")
    assert delivery.payload["data"]["name"] == "Tickets: TIMEOUT"
    signature = hmac.new(b"known to both sides", delivery.body, hashlib.sha512).hexdigest()
    assert delivery.headers["X-Hook-Signature"] == signature


@pytest.mark.parametrize("name", [each for each in RECEIVERS if each != "plain"])
def test_text_of_others_is_sent_as_text(name, receiver, user):
    add_receiver(name, URL, routing_key="key")
    (delivery,) = told(receiver, user, lambda: incident(name="a server: TIMEOUT", message=HOSTILE))
    sent = json.dumps(delivery.payload)
    assert "{{ 7 * 7 }}" in sent
    assert "49" not in delivery.payload.get("text", "")
    if name == "slack":
        assert "<!channel>" not in delivery.payload["text"]
        assert all(block["text"]["type"] == "plain_text" for block in delivery.payload["blocks"])
    if name == "teams":
        content = delivery.payload["attachments"][0]["content"]
        assert {block["type"] for block in content["body"]} == {"RichTextBlock"}


@pytest.mark.parametrize("name", RECEIVERS)
def test_a_test_arrives_and_wakes_nobody(name, receiver, user):
    add_receiver(name, URL, routing_key="key", nautobot_url=NAUTOBOT)
    (delivery,) = told(receiver, user, lambda: send_test_incident(user))
    if name == "pagerduty":
        assert delivery.payload["event_action"] == "trigger"
        assert delivery.payload["payload"]["severity"] == "info"
    assert "Test by ada" in json.dumps(delivery.payload)
    assert not MCPServerIncident.objects.filter(closed=None).exists()


def test_the_button_on_the_list_sends_a_test(receiver, user):
    add_receiver("slack", URL)
    client = Client()
    client.force_login(user)
    page = client.get(reverse("plugins:ai_ops:mcpserverincident_list")).content.decode()
    assert "Send Test Incident" in page
    answer = client.post(reverse("plugins:ai_ops:mcpserverincident_test"))
    assert [str(each) for each in get_messages(answer.wsgi_request)] == [
        "Test by ada was created: see whether its notification arrives."
    ]
    assert [each.payload["text"] for each in receiver.deliveries] == ["🟢 TEST: Incident closed: Test by ada"]


def test_a_user_who_may_only_look_has_no_button_and_is_refused():
    client = Client()
    client.force_login(user_who_may("ai_ops.view_mcpserverincident"))
    assert "Send Test" not in client.get(reverse("plugins:ai_ops:mcpserverincident_list")).content.decode()
    assert client.post(reverse("plugins:ai_ops:mcpserverincident_test")).status_code == 403
    assert client.post("/api/plugins/ai-ops/mcp-server-incidents/test/").status_code == 403
    assert not MCPServerIncident.objects.exists()


def test_rest_sends_a_test(user):
    client = Client()
    client.force_login(user)
    answer = client.post("/api/plugins/ai-ops/mcp-server-incidents/test/")
    assert answer.status_code == 201
    assert answer.json()["closed"] is not None


def notify(*arguments):
    out = io.StringIO()
    call_command("ai_ops", "notify", *arguments, stdout=out)
    return out.getvalue()


def test_the_command_line_makes_a_webhook_and_tests_it(receiver):
    assert "notifies slack of incidents" in notify("add", "slack", URL, "--nautobot-url", NAUTOBOT)
    notify("add", "slack", URL)
    assert Webhook.objects.count() == 1
    notify("test")
    assert "Test by ai-ops-scheduler" in receiver.deliveries[-1].payload["text"]
    notify("add", "pagerduty", "--routing-key", "key")
    assert Webhook.objects.get(name__contains="pagerduty").payload_url == "https://events.pagerduty.com/v2/enqueue"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"receiver": "pigeon"}, "There is no receiver"),
        ({"receiver": "pagerduty"}, "needs the integration key"),
        ({"receiver": "slack", "nautobot_url": "javascript:alert(1)"}, "is not an address of Nautobot"),
        ({"receiver": "slack", "url": "http://127.0.0.1/"}, "can't be made"),
    ],
)
def test_what_can_not_be_a_webhook_is_refused_with_a_sentence(values, words):
    with pytest.raises(ConfigurationError, match=words):
        add_receiver(**({"url": URL} | values))
    assert not Webhook.objects.exists()


def test_a_value_that_is_given_can_not_break_out_of_the_template(receiver, user):
    add_receiver("pagerduty", URL, routing_key='" %}{{ 7 * 7 }}')
    (delivery,) = told(receiver, user, incident)
    assert delivery.payload["routing_key"] == '" %}{{ 7 * 7 }}'
    assert body_of("plain") == ""


def test_scheduled_runs_may_call_the_one_job_of_a_hook_and_nothing_else():
    Job.objects.create(
        module_name="pager", job_class_name="Pager", name="Pager", grouping="g", installed=True,
        is_job_hook_receiver=True, enabled=True, default_job_queue=JobQueue.objects.get(name="default"),
    )  # fmt: skip
    for _ in range(2):
        allow_job_hook("pager.Pager")
    user = User.objects.get(pk=service_user().pk)
    assert user.is_active
    assert not user.has_usable_password()
    assert [job.name for job in Job.objects.restrict(user, "run")] == ["Pager"]
    assert not Job.objects.restrict(user, "view").exists()
    assert ObjectPermission.objects.filter(users=user).count() == 1


def test_a_job_of_no_hook_is_refused():
    with pytest.raises(ConfigurationError, match="has no Job"):
        allow_job_hook("no.such.Job")
    with pytest.raises(ConfigurationError, match="must be a JobHookReceiver"):
        allow_job_hook("ai_ops.jobs.checkpoint_cleanup.CleanupCheckpointsJob")
    assert not ObjectPermission.objects.filter(users__username=SERVICE_USER).exists()


def open_kinds():
    return sorted(MCPServerIncident.objects.filter(closed=None).values_list("kind", flat=True))


def test_dead_letters_are_one_incident_until_they_are_dealt_with(receiver, user):
    add_receiver("slack", URL)
    make_all_well()
    for number in range(4):
        make_run(f"dead {number}", RunStateChoices.DEAD, kind="cleanup", error="Redis was away.", age=timedelta(days=1))
    make_run("a later one", kind="cleanup")
    deliveries = told(receiver, user, lambda: [look_at_maintenance() for _ in range(3)])
    assert [each.payload["text"] for each in deliveries] == ["🔴 Incident opened: 4 runs gave up"]
    assert "dead 0: Redis was away." in MCPServerIncident.objects.get().message
    MaintenanceRun.objects.filter(state=RunStateChoices.DEAD).update(discarded=timezone.now())
    (closed,) = told(receiver, user, lambda: look_at_maintenance())
    assert closed.payload["text"] == "🟢 Incident closed: 4 runs gave up"


def test_late_schedules_and_a_failed_cleanup_are_told_and_closed_when_over():
    make_all_well()
    assert look_at_maintenance() == (0, 0)
    long_ago = timezone.now() - timedelta(days=3)
    ScheduledJob.objects.update(start_time=long_ago, last_run_at=long_ago)
    make_run("failed", RunStateChoices.FAILED, kind="cleanup", error="The checkpoint Redis refused.", age=timedelta())
    assert look_at_maintenance() == (2, 0)
    assert open_kinds() == ["cleanup", "schedules"]
    assert "Celery beat" in MCPServerIncident.objects.get(kind="schedules").message
    ScheduledJob.objects.update(last_run_at=timezone.now())
    make_run("well again", kind="cleanup", age=timedelta())
    assert look_at_maintenance() == (0, 2)


def test_the_review_of_incidents_follows_them_and_leaves_them_open():
    make_all_well()
    make_run("dead", RunStateChoices.DEAD, error="Gone.")
    for opened in (1, 0):
        assert close_resolved_incidents()["opened"] == opened
    assert open_kinds() == [MCPIncidentKindChoices.DEAD_LETTERS]


def look_at_maintenance():
    return follow_maintenance(timezone.now(), AiOpsSettings.load())


def follow_failures(servers):
    follow_run([report(each, "Unhealthy") for each in servers], AiOpsSettings.load())


def report(server, status):
    return ServerReport(
        server=server.name, server_id=str(server.pk), status_before="Healthy", status_after=status,
        ok=status == "Healthy", reason="TIMEOUT", message="It did not answer.", changed=True, checked_at=timezone.now(),
    )  # fmt: skip


def test_an_outage_of_many_is_one_message(receiver, user):
    add_receiver("slack", URL)
    servers = [make_server(f"server {number}", "Unhealthy", ok=False, reason="TIMEOUT") for number in range(20)]
    deliveries = told(receiver, user, lambda: follow_failures(servers))
    assert {each.payload["text"] for each in deliveries} == {"🔴 Incident opened: 20 servers: TIMEOUT"}
    assert len(deliveries) == 1


def test_in_the_quiet_time_nothing_is_opened_and_what_lasts_is_told_after_it(settings, monkeypatch):
    settings.PLUGINS_CONFIG = {"ai_ops": {**settings.PLUGINS_CONFIG["ai_ops"], "quiet_time": "22:00-06:00"}}
    zone = ZoneInfo(settings.TIME_ZONE)
    night = datetime(2026, 11, 26, 23, 0, tzinfo=zone)
    morning = datetime(2026, 11, 27, 6, 0, tzinfo=zone)
    servers = [make_server(f"server {number}", "Unhealthy", ok=False, reason="TIMEOUT") for number in range(4)]
    monkeypatch.setattr(timezone, "now", lambda: night)
    follow_failures(servers)
    assert open_kinds() == []
    again = [report(each, "Unhealthy") for each in servers[:3]] + [report(servers[3], "Healthy")]
    unchanged = [replace(each, changed=False) for each in again]
    monkeypatch.setattr(timezone, "now", lambda: morning)
    follow_run(unchanged, AiOpsSettings.load())
    found = MCPServerIncident.objects.get()
    assert found.name == "3 servers: TIMEOUT"


@pytest.mark.parametrize("value", ["22-6", "25:00-06:00", 5])
def test_a_quiet_time_that_is_none_is_refused(settings, value):
    settings.PLUGINS_CONFIG = {"ai_ops": {"quiet_time": value}}
    with pytest.raises(ConfigurationError, match="quiet_time must be two times of the day such as 22:00-06:00"):
        AiOpsSettings.load()
