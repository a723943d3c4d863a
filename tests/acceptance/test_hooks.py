"""The effects of a flip outside Nautobot: webhooks that arrive and Job hooks that run, with a real worker."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from pathlib import Path

import pytest

from development import services
from tests.acceptance import fault_processes as processes
from tests.acceptance import hook_processes
from tests.acceptance.fault_world import World, celery_worker
from tests.fakes.mcp_server import FakeMCPServer
from tests.fakes.webhook_receiver import Delivery, WebhookReceiver
from tests.waiting import until

SERVER, INCIDENT = "mcpserver", "mcpserverincident"
# No server is asked for it: the proxy answers. Loopback, and the addresses reserved for examples, are refused.
PAYLOAD_URL = "http://10.20.30.40/alerts"
SECRET = "known to both sides"

PAGER = """
from nautobot.apps.jobs import JobHookReceiver, register_jobs


class Pager(JobHookReceiver):
    def receive_job_hook(self, change, action, changed_object):
        data = change.object_data_v2
        what = data["status"]["name"] if "status" in data else "closed" if data["closed"] else "open"
        self.logger.info("%s: %s is %s", action, changed_object, what, extra={"grouping": "pager"})


register_jobs(Pager)
"""


@pytest.fixture(scope="module")
def receiver(worlds) -> WebhookReceiver:
    return worlds.receiver


@pytest.fixture(scope="module")
def hooked(worlds, tmp_path_factory) -> Iterator[tuple[World, services.Service]]:
    """Webhooks, a Job hook, and a worker that makes short pauses."""
    jobs = Path(worlds.env["NAUTOBOT_ROOT"]) / "jobs"
    jobs.mkdir(exist_ok=True)
    (jobs / "pager.py").write_text(PAGER)
    worlds.forget()
    worlds.forget_messages()
    service = celery_worker(worlds.env | {"AI_OPS_TEST_PAUSE": "0.05"}, tmp_path_factory.mktemp("hooks"), "worker")
    with services.Supervisor() as supervisor:
        supervisor.start(service, wait=False)
        worlds.do(hook_processes.add_webhooks, PAYLOAD_URL, SECRET)
        worlds.do(hook_processes.add_job_hook, "pager.Pager")
        supervisor.wait_ready(service)
        yield worlds, service


@pytest.fixture(scope="module")
def world(hooked) -> World:
    """A server was found Healthy, was lost and came back; only then could Jobs of schedules call the Job hook."""
    world, _ = hooked
    server = FakeMCPServer()
    with server.running():
        world.do(processes.add_server, "Tickets", server.url, "Unhealthy")
        check(world)
    world.do(hook_processes.let_schedules_call, "pager.Pager")
    check(world)
    with server.running():
        check(world)
    return world


def check(world: World) -> None:
    """Have the worker check all servers."""
    job_result = world.do(hook_processes.enqueue_checks)
    query = "SELECT status FROM extras_jobresult WHERE id = %s AND status IN ('SUCCESS', 'FAILURE')"
    assert until(lambda: world.sql(query, job_result), "the end of the Job") == [("SUCCESS",)]


def is_flip(was: str, became: str):
    def wanted(delivery: Delivery) -> bool:
        if delivery.what != (SERVER, "updated"):
            return False
        return [delivery.before["status"]["name"], delivery.after["status"]["name"]] == [was, became]

    return wanted


def test_a_flip_reaches_the_webhook_with_the_status_before_and_after(world, receiver):
    for was, became in (("Unhealthy", "Healthy"), ("Healthy", "Unhealthy")):
        delivery = receiver.wait_for(is_flip(was, became), f"the flip to {became}")
        assert delivery.url == PAYLOAD_URL
        assert delivery.payload["data"]["name"] == "Tickets"
        assert delivery.payload["username"] == "ai-ops-scheduler"
        signature = hmac.new(SECRET.encode(), delivery.body, hashlib.sha512).hexdigest()
        assert delivery.headers["X-Hook-Signature"] == signature


def test_an_incident_reaches_the_webhook_when_it_opens_and_when_it_closes(world, receiver):
    opened = receiver.wait_for(lambda each: each.what == (INCIDENT, "created"), "the incident")
    assert opened.before is None
    assert (opened.after["reason"], opened.after["closed"]) == ("CONNECT", None)
    assert "check that the server runs" in opened.after["message"]
    (server,) = opened.after["servers"]
    assert server["name"] == "Tickets"
    closed = receiver.wait_for(lambda each: each.what == (INCIDENT, "updated"), "the end of the incident")
    assert closed.after["id"] == opened.after["id"]
    assert closed.before["closed"] is None
    assert closed.after["closed"] is not None


def test_a_job_hook_runs_with_flips_and_incidents_as_soon_as_the_owner_of_the_schedule_may_run_it(hooked, world):
    query = "SELECT message FROM extras_joblogentry WHERE grouping = 'pager'"
    until(lambda: len(world.sql(query)) >= 4, "four Job hooks")
    assert sorted(message for (message,) in world.sql(query)) == [
        "create: Tickets: CONNECT is open",
        "update: Tickets is Healthy",
        "update: Tickets is Unhealthy",
        "update: Tickets: CONNECT is closed",
    ]
    _, service = hooked
    refused = "JobHook Pager did not run: user ai-ops-scheduler lacks permission to run Job"
    assert refused in service.log.read_text(), "at the first flip"
