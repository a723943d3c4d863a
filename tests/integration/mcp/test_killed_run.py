"""A worker that is killed between flips and their incidents."""

from __future__ import annotations

import os
import signal
from datetime import timedelta

import pytest
from django.db import transaction
from django.db.models.signals import post_save
from django.utils import timezone

from ai_ops.celery_tasks import close_resolved_incidents, perform_mcp_health_checks
from ai_ops.mcp import flips
from ai_ops.models import MCPServer, MCPServerHealth, MCPServerIncident
from ai_ops.models.runs import MaintenanceLease
from tests.fakes.forked import start_fork
from tests.fakes.servers import add


def check_and_be_killed(at_once: int) -> None:
    """Check all servers, and be killed as soon as the first flips are committed, that many at once."""

    def kill(**_: object) -> None:
        transaction.on_commit(lambda: os.kill(os.getpid(), signal.SIGKILL))

    post_save.connect(kill, sender=MCPServer)
    flips.FLIPS_AT_ONCE = at_once
    perform_mcp_health_checks()


def opened() -> list[str]:
    return sorted(MCPServerIncident.objects.values_list("name", flat=True))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("at_once", "flipped"), [(1, 1), (25, 2)])
def test_the_next_run_opens_the_incidents_of_all_flips_that_a_killed_worker_committed(at_once, flipped):
    add("a")
    add("b")
    worker = start_fork(check_and_be_killed, at_once)
    # Far more than it needs; a worker that hangs fails this test and does not stop all others.
    worker.join(timeout=240)
    assert worker.exitcode == -signal.SIGKILL
    # Flips are committed some at a time: all of a transaction or none of it.
    statuses = list(MCPServer.objects.order_by("name").values_list("status__name", flat=True))
    assert statuses == ["Unhealthy"] * flipped + ["Healthy"] * (2 - flipped)
    assert opened() == []
    MaintenanceLease.objects.update(expires=timezone.now())  # half a minute later
    assert perform_mcp_health_checks()["changed_count"] == 2 - flipped
    assert opened() == ["a: CONNECT", "b: CONNECT"]
    perform_mcp_health_checks()
    assert len(opened()) == 2


@pytest.mark.django_db
def test_the_review_opens_it_for_a_server_that_is_not_checked_again_soon():
    server = add("down", status_name="Unhealthy")
    health = MCPServerHealth(server=server, checked=timezone.now(), ok=False, reason="HTTP", alert_held=True)
    health.message = "GET http://127.0.0.1:1/health answered 500"
    health.save()
    close_resolved_incidents()
    assert opened() == [], "its run may still be about to open it"
    MCPServer.objects.update(last_updated=timezone.now() - timedelta(minutes=3))
    MCPServerHealth.objects.update(flapping=True)
    close_resolved_incidents()
    assert opened() == []
    MCPServerHealth.objects.update(flapping=False)
    for _ in range(2):
        assert close_resolved_incidents()["errors"] == 0
        assert opened() == ["down: HTTP"]
    assert MCPServerIncident.objects.get().message == health.message
