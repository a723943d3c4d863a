"""Events for observers: runs that end badly, schedules that are late, and each check's counts."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest
from django.db import OperationalError
from django.db.models.functions import Now
from nautobot.extras.models import ScheduledJob, Status

from ai_ops.celery_tasks import check_mcp_server_health, perform_mcp_health_checks
from ai_ops.choices import RunStateChoices, RunTriggerChoices
from ai_ops.models import MaintenanceRun, MCPServer
from ai_ops.runs import supervisor_log
from ai_ops.runs.context import RunRequest, requested_by
from ai_ops.runs.delivery import enqueue
from ai_ops.runs.execution import run_as
from ai_ops.runs.transitions import end_without_work
from ai_ops.schedules import ensure_schedule
from ai_ops.supervision.history import trim
from ai_ops.supervision.late_schedules import warn_of_late
from ai_ops.supervision.rescue import rescue
from ai_ops.supervision.supervisor import start_due
from tests.fakes.events import heard
from tests.fakes.jobs import delete_schedules
from tests.fakes.mcp_server import FakeMCPServer
from tests.fakes.runs import FreeHold, recorded

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)


def committed(capture, act):
    with capture(execute=True):
        return act()


@pytest.fixture
def broker():
    with heard() as broker:
        yield broker


def failed_with(error, trouble=None):
    def work(hold):
        if trouble:
            hold.trouble(trouble)
        return {"success": False, "error": error, "errors": [error, "And another."]}

    with requested_by(RunRequest(RunTriggerChoices.SCHEDULE)):
        return run_as("storage", {}, work, lambda why: {"success": why is None, "error": why})


def test_a_run_that_fails_is_an_event_with_all_its_errors(broker, django_capture_on_commit_callbacks):
    result = committed(django_capture_on_commit_callbacks, lambda: failed_with("Redis refused the password."))
    (event,) = broker.of("ai_ops.run.failed")
    run = MaintenanceRun.objects.get()
    assert (event["run"]["id"], event["run"]["state"]) == (str(run.pk), "failed")
    assert event["run"]["error"] == "Redis refused the password."
    assert event["run"]["errors"] == run.errors == ["Redis refused the password.", "And another."]
    assert result["errors"] == run.errors
    assert len(broker.events) == 1


def test_a_run_that_is_tried_again_is_no_event_and_a_dead_one_is(broker, django_capture_on_commit_callbacks, settings):
    away = OperationalError("away")
    committed(django_capture_on_commit_callbacks, lambda: failed_with("The database is away.", away))
    assert broker.events == []
    MaintenanceRun.objects.all().delete()
    settings.PLUGINS_CONFIG = {"ai_ops": {"max_attempts": 1, "lease_seconds": 300}}
    committed(django_capture_on_commit_callbacks, lambda: failed_with("The database is away.", away))
    (event,) = broker.of("ai_ops.run.dead")
    assert event["run"]["state"] == "dead"


def test_every_way_to_fail_or_die_is_an_event(broker, django_capture_on_commit_callbacks):
    waiting = recorded("storage", state=RunStateChoices.PENDING)
    committed(
        django_capture_on_commit_callbacks, lambda: end_without_work(RunRequest(run_id=waiting.pk), "It was deleted.")
    )
    assert [event["run"]["id"] for event in broker.of("ai_ops.run.failed")] == [str(waiting.pk)]
    orphan = recorded("storage", state=RunStateChoices.PENDING, next_attempt=Now() - HOUR)
    committed(django_capture_on_commit_callbacks, lambda: enqueue(orphan))
    assert [event["run"]["id"] for event in broker.of("ai_ops.run.dead")] == [str(orphan.pk)]


def test_a_rescue_is_an_event_and_a_line(broker, django_capture_on_commit_callbacks, caplog):
    caplog.set_level(logging.INFO)
    lost = recorded("storage", RunTriggerChoices.SHELL, state=RunStateChoices.RUNNING, ago=HOUR)
    committed(django_capture_on_commit_callbacks, lambda: rescue(FreeHold(), None, ask=lambda ids: frozenset()))
    (event,) = broker.of("ai_ops.run.rescued")
    assert (event["run"]["id"], event["run"]["state"]) == (str(lost.pk), "lost")
    assert "It has sent no heartbeat" in event["why"]
    assert f"{lost}, running, 60 min old: it is lost now" in caplog.messages


def test_a_late_schedule_is_one_event_however_often_it_is_looked_at(broker, django_capture_on_commit_callbacks):
    delete_schedules()
    schedule = ensure_schedule("cleanup", time_zone="UTC")
    ScheduledJob.objects.update(last_run_at=Now() - timedelta(days=3), start_time=Now() - timedelta(days=30))
    for _ in range(3):
        committed(django_capture_on_commit_callbacks, lambda: warn_of_late(FreeHold()))
    (event,) = broker.of("ai_ops.schedule.late")
    assert (event["schedule"]["id"], event["schedule"]["name"]) == (str(schedule.pk), schedule.name)
    assert "did not start" in event["schedule"]["why"]


def test_each_check_is_one_event_with_its_counts(broker, django_capture_on_commit_callbacks):
    status = Status.objects.get_for_model(MCPServer).get(name="Healthy")
    with FakeMCPServer().running() as up:
        server = MCPServer.objects.create(name="up", url=up.url, status=status)
        MCPServer.objects.create(name="down", url="http://127.0.0.1:1", status=status)
        result = committed(django_capture_on_commit_callbacks, perform_mcp_health_checks)
        (event,) = broker.of("ai_ops.mcp.checked")
        assert event["run"] == result["run"]["id"]
        names = ("checked_count", "changed_count", "failed_count", "cache_cleared")
        assert [event[name] for name in names] == [result[name] for name in names] == [2, 1, 1, True]
        committed(django_capture_on_commit_callbacks, lambda: check_mcp_server_health(server.pk))
    assert [each["checked_count"] for each in broker.of("ai_ops.mcp.checked")] == [2, 1]


def test_each_run_that_is_due_has_a_line(caplog):
    caplog.set_level(logging.INFO)
    run = recorded("storage", state=RunStateChoices.PENDING, ago=3 * HOUR, next_attempt=Now() - HOUR)
    start_due(FreeHold())
    assert f"{run}, pending, 3 h old: it can't be started, and is dead" in caplog.messages


def test_the_first_old_runs_have_a_line_each_and_the_others_a_count(caplog):
    caplog.set_level(logging.INFO)
    for _ in range(supervisor_log.NAMED + 3):
        run = recorded("storage", ago=timedelta(days=40))
    trim(FreeHold())
    lines = [line for line in caplog.messages if "deleted with the results of its attempts" in line]
    assert len(lines) == supervisor_log.NAMED
    assert lines[0].endswith(", succeeded, 40 d old: deleted with the results of its attempts")
    assert run.name not in "".join(lines)
    assert "And 3 more old run(s) deleted with their results" in caplog.messages
