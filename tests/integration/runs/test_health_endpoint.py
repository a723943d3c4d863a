"""The app's part of Nautobot's /health/: what is told, and that Nautobot stays well all the same."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone
from health_check import mixins
from nautobot.extras.models import ScheduledJob

from ai_ops.models import MaintenanceRun
from tests.integration.pages.test_overview import make_all_well

pytestmark = pytest.mark.django_db
REDIS, RUNS = "AI Ops: checkpoint Redis", "AI Ops: last successful runs"


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    # Another thread has another connection, which does not see the test's rows.
    monkeypatch.setitem(mixins.HEALTH_CHECK, "DISABLE_THREADING", True)


def health():
    answer = Client().get("/health/?format=json")
    return answer.status_code, answer.json()


def test_an_installation_that_is_well_is_working(checkpoint_redis):
    make_all_well()
    code, said = health()
    assert code == 200
    assert (said[REDIS], said[RUNS]) == ("working", "working")


def test_a_redis_that_is_away_is_told_and_breaks_nothing(monkeypatch):
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", "redis://:secret@127.0.0.1:1/0")
    code, said = health()
    assert code == 200
    assert "does not answer" in said[REDIS]
    assert "secret" not in said[REDIS]
    assert "127.0.0.1" not in said[REDIS]


def test_an_address_that_is_none_is_told_likewise(monkeypatch):
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", "no address")
    code, said = health()
    assert (code, "does not answer" in said[REDIS]) == (200, True)


def test_a_success_that_is_too_old_is_told_with_its_age(checkpoint_redis):
    make_all_well()
    long_ago = timezone.now() - timedelta(days=3)
    MaintenanceRun.objects.filter(kind="cleanup").update(created=long_ago, finished=long_ago)
    code, said = health()
    assert code == 200
    assert said[RUNS] == "warning: cleanup: no success in time, last success 3 days ago"


def test_what_is_paused_is_told_and_what_was_never_scheduled_is_not(checkpoint_redis):
    make_all_well()
    ScheduledJob.objects.filter(name__contains="clean up").update(enabled=False)
    ScheduledJob.objects.filter(name__contains="sample").delete()
    assert health()[1][RUNS] == "warning: cleanup: paused, last success 2 min ago"
