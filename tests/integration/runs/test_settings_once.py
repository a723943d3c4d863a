"""A run reads the settings once: what it does goes by the same values from its beginning to its end."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
from django.db.models.functions import Now
from langgraph.checkpoint.redis import RedisSaver

from ai_ops import celery_tasks
from ai_ops.choices import RunStateChoices
from ai_ops.config import AiOpsSettings
from ai_ops.models import MaintenanceRun, MCPServer, ThreadErasure
from ai_ops.runs.context import current_request
from tests.fakes.conversations import days_ago, graph, on
from tests.fakes.jobs import enable_jobs, see_workers
from tests.fakes.mcp_server import FakeMCPServer
from tests.fakes.runs import recorded
from tests.fakes.servers import add

pytestmark = pytest.mark.django_db


@pytest.fixture
def fleet():
    """Servers that go down and come back, one that lists tools, and enough of them for a doubt about the network."""
    with FakeMCPServer(tools=["lookup"]).running() as up, FakeMCPServer(health_status=500).running() as down:
        add("well", up.url)
        add("back", up.url, "Unhealthy")
        for number in range(3):
            add(f"down {number}", down.url)
        yield


@pytest.fixture
def due_runs():
    """Three runs that wait for their next attempt, one that is silent, and one that is old."""
    enable_jobs()
    see_workers(default=1)
    for _ in range(3):
        recorded("storage", state=RunStateChoices.PENDING, next_attempt=Now())
    recorded("cleanup", state=RunStateChoices.RUNNING, ago=timedelta(hours=2))
    recorded("cleanup", ago=timedelta(days=90))


@pytest.fixture
def conversations(checkpoint_redis):
    saver = RedisSaver(redis_client=checkpoint_redis)
    saver.setup()
    with days_ago(60):
        for number in range(3):
            graph(saver).invoke({"said": ["hello"]}, on(f"user-7-{number}"))
    ThreadErasure.objects.create(reason="earlier", guarded_until=Now(), guard={"ids": ["user-9-1"], "pattern": ""})


RUNS = {
    "cleanup": lambda: celery_tasks.cleanup_old_checkpoints(30),
    "dry run": lambda: celery_tasks.cleanup_old_checkpoints(30, dryrun=True),
    "storage": celery_tasks.sample_checkpoint_storage,
    "search": lambda: celery_tasks.find_threads("user-*"),
    "erasure": lambda: celery_tasks.erase_threads(["user-7-1"], reason="asked for"),
    "moves": lambda: celery_tasks.move_conversations("redis"),
    "health": celery_tasks.perform_mcp_health_checks,
    "server": lambda: celery_tasks.check_mcp_server_health(MCPServer.objects.get(name="down 1").pk),
    "incidents": celery_tasks.close_resolved_incidents,
    # The collection of orphans is a run of its own, within it.
    "supervisor": celery_tasks.supervise,
}


@pytest.mark.parametrize("name", RUNS)
def test_each_run_reads_the_settings_once(name, fleet, due_runs, conversations, monkeypatch):
    read, load = Counter(), AiOpsSettings.load

    def counted():
        read[current_request().parent_id] += 1
        return load()

    before = set(MaintenanceRun.objects.values_list("pk", flat=True))
    monkeypatch.setattr(AiOpsSettings, "load", counted)
    report = RUNS[name]()
    assert report.get("error") is None, report
    begun = MaintenanceRun.objects.exclude(pk__in=before).count()
    assert sum(read.values()) == begun == (2 if name == "supervisor" else 1), read
