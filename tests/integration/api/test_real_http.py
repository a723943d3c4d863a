"""REST and pages through a real HTTP server, which refuses what Django's test client lets through."""

from __future__ import annotations

import httpx
import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from nautobot.extras.models import Status

from ai_ops.api.urls import router
from ai_ops.choices import RunStateChoices
from ai_ops.models import MCPServer, MCPServerIncident, MCPServerTool, MCPServerToolSet
from ai_ops.schedules import ensure_schedule
from tests.fakes.runs import recorded

API, PAGES = "plugins-api:ai_ops-api:", "plugins:ai_ops:"


pytestmark = pytest.mark.usefixtures("running_jobs")


@pytest.fixture
def messages_stay(monkeypatch):
    """Leave enqueued runs alone: in a test they would run at once, within the request."""
    from nautobot.extras.jobs import run_job

    monkeypatch.setattr(run_job, "apply_async", lambda *_, **__: None)


@pytest.fixture
def rest(live_server, headers):
    """A client of the REST API; each answer is one of ours, and no error of the server."""

    def answered(response):
        response.read()
        assert response.status_code < 500, response.text

    with httpx.Client(
        base_url=live_server.url,
        headers=headers,
        event_hooks={"response": [answered]},
        timeout=60,
    ) as client:
        yield client


@pytest.fixture
def browser(live_server, admin):
    """A client that is logged in as a browser is."""
    logged_in = Client()
    logged_in.force_login(admin)
    cookies = {name: morsel.value for name, morsel in logged_in.cookies.items()} | {"csrftoken": "a" * 32}
    headers = {"X-CSRFToken": "a" * 32, "Referer": live_server.url}
    with httpx.Client(base_url=live_server.url, cookies=cookies, headers=headers, timeout=60) as client:
        yield client


def address(name, **key):
    return reverse(API + name, kwargs=key or None)


def in_state(state):
    return recorded("storage", state=state, owner=None)


def make_server(name="a"):
    status = Status.objects.get_for_model(MCPServer).get(name="Healthy")
    return MCPServer.objects.create(name=name, url="http://127.0.0.1:1", status=status)


def test_runs_are_asked_for_cancelled_redriven_and_discarded(rest, messages_stay):
    answers = {
        "runs": rest.post(address("maintenancerun-list"), json={"kind": "storage"}),
        "cancel": rest.post(address("maintenancerun-cancel", pk=in_state(RunStateChoices.RUNNING).pk)),
        "redrive": rest.post(address("maintenancerun-redrive", pk=in_state(RunStateChoices.DEAD).pk)),
    }
    for name, answer in answers.items():
        assert answer.status_code == 202, (name, answer.text)
        assert answer.headers["location"] == answer.json()["url"], name
        assert rest.get(answer.headers["location"]).json()["id"] == answer.json()["id"], name
    discarded = rest.post(address("maintenancerun-discard", pk=in_state(RunStateChoices.DEAD).pk))
    assert discarded.status_code == 200


def test_schedules_are_made_changed_paused_resumed_and_removed(rest):
    made = rest.post(address("schedule-list"), json={"kind": "cleanup"})
    assert made.status_code == 201
    assert rest.post(address("schedule-list"), json={"kind": "cleanup", "crontab": "0 4 * * *"}).status_code == 200
    for name in ("pause", "resume"):
        assert rest.post(address(f"schedule-{name}", pk=made.json()["id"])).status_code == 200
    assert rest.delete(address("schedule-detail", pk=made.json()["id"])).status_code == 204


def test_objects_are_made_changed_read_and_deleted(rest, messages_stay):
    server = make_server()
    incident = MCPServerIncident.objects.create(name="a: DOWN", reason="DOWN", opened=timezone.now())
    incident.servers.add(server)
    tools = MCPServerToolSet.objects.create(server=server, asked=timezone.now())
    assert rest.post(address("mcpserver-check", pk=server.pk)).status_code == 202
    assert rest.post(address("mcpserverincident-acknowledge", pk=incident.pk)).status_code == 200
    assert rest.post(address("mcpservertoolset-approve", pk=tools.pk), json={"listed_hash": ""}).status_code < 500
    made = rest.post(address("pinnedthread-list"), json={"thread_id": "user-1-a"})
    assert made.status_code == 201
    assert rest.patch(address("pinnedthread-detail", pk=made.json()["id"]), json={"note": "b"}).status_code == 200
    assert rest.delete(address("pinnedthread-detail", pk=made.json()["id"])).status_code == 204
    assert rest.delete(address("mcpserver-detail", pk=server.pk)).status_code == 204
    root = rest.get("/api/plugins/ai-ops/").json()
    assert "runs" in root
    for endpoint in root.values():
        assert rest.get(endpoint).status_code == 200, endpoint
        assert rest.options(endpoint).status_code == 200, endpoint


def test_conversations_are_erased_tools_decided_on_and_a_test_incident_is_sent(rest, messages_stay):
    erased = rest.post("/api/plugins/ai-ops/threads/erase/", json={"thread_ids": ["user-1-a"], "reason": "asked for"})
    assert erased.status_code == 202
    assert erased.headers["location"] == erased.json()["url"]
    assert rest.get(erased.headers["location"]).json()["id"] == erased.json()["id"]
    server, now = make_server(), timezone.now()
    MCPServerToolSet.objects.create(server=server, asked=now, listed=now, listed_hash="b", approved_hash="a")
    for name in ("approve", "reject"):
        tool = MCPServerTool.objects.create(
            server=server, name=name, state="changed", since=now, first_seen=now, hash="b", approved_hash="a"
        )
        assert rest.post(address(f"mcpservertool-{name}", pk=tool.pk), json={"hash": "b"}).status_code == 200
    assert rest.post(address("mcpserverincident-test")).status_code == 201


def test_no_action_of_rest_is_left_out():
    tested = {"cancel", "redrive", "discard", "pause", "resume", "check", "acknowledge", "approve", "reject", "test"}
    tested.add("erase")
    extra = [action for _, viewset, _ in router.registry for action in viewset.get_extra_actions()]
    # Notes are Nautobot's own.
    assert {action.url_path for action in extra if "post" in action.mapping} - {"notes"} == tested


def test_buttons_of_pages_send_the_browser_on(browser, messages_stay):
    server, schedule = make_server(), ensure_schedule("cleanup")
    incident = MCPServerIncident.objects.create(name="a: DOWN", reason="DOWN", opened=timezone.now())
    runs = {name: in_state(RunStateChoices.DEAD) for name in ("redrive", "discard")}
    runs["cancel"] = in_state(RunStateChoices.RUNNING)
    buttons = [
        *((f"maintenancerun_{name}", {"pk": run.pk}, {}) for name, run in runs.items()),
        ("mcpserver_check", {"pk": server.pk}, {}),
        ("mcpserverincident_acknowledge", {"pk": incident.pk}, {}),
        ("checkpointstorage_sample", {}, {}),
        ("deadletters", {}, {"_confirm": "", "action": "discard", "pk": str(in_state(RunStateChoices.DEAD).pk)}),
        ("schedules", {}, {"action": "pause", "name": schedule.name}),
    ]
    for name, key, data in buttons:
        answer = browser.post(reverse(PAGES + name, kwargs=key or None), data=data)
        assert answer.status_code == 302, (name, answer.text[:500])
        assert "/login/" not in answer.headers["location"], name
