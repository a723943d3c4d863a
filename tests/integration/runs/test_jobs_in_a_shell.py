"""The Jobs' `run()`, called from a Python shell or a test, where there is no JobResult."""

from __future__ import annotations

import logging

import pytest
from nautobot.extras.models import FileProxy, JobResult

from ai_ops import jobs
from ai_ops.jobs.checkpoint_cleanup import CleanupCheckpointsJob
from ai_ops.jobs.mcp_health_check import MCPServerHealthCheckJob
from ai_ops.models import MaintenanceRun, MCPServer
from tests.fakes.mcp_server import FakeMCPServer

OLD = "checkpoint:user-1-a:2020-01-01T00:00:00+00:00"


# An erasure needs to be told of what, and why: `test_erasure` runs it.
ALONE = [job for job in jobs.jobs if job.__name__ != "EraseConversationsJob"]


@pytest.mark.parametrize("job", ALONE, ids=lambda job: job.__name__)
def test_each_job_runs_and_leaves_a_record_but_no_result(job, checkpoint_redis):
    result = job().run()
    assert isinstance(result, dict)
    assert not result.get("error")
    assert not JobResult.objects.exists()
    assert {run.trigger for run in MaintenanceRun.objects.all()} <= {"shell", "part"}


def test_the_cleanup_deletes_and_attaches_no_file(checkpoint_redis):
    checkpoint_redis.set(OLD, '{"ts": "2020-01-01T00:00:00+00:00"}')
    result = CleanupCheckpointsJob().run(retention_days=30)
    assert (result["success"], result["deleted_count"]) == (True, 1)
    assert not checkpoint_redis.exists(OLD)
    assert not FileProxy.objects.exists()


def test_one_server_is_checked(db):
    with FakeMCPServer().running() as fake:
        server = MCPServer.objects.create(name="one", url=fake.url)
        assert MCPServerHealthCheckJob().run(server=server)["success"]


def test_a_failure_is_a_result_and_a_line(checkpoint_redis, monkeypatch, caplog):
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", "redis://127.0.0.1:1/0")
    with caplog.at_level(logging.INFO):
        result = CleanupCheckpointsJob().run()
    assert (result["success"], bool(result["error"])) == (False, True)
    assert result["error"] in caplog.text


def test_the_descriptions_are_those_that_were_promised():
    assert (CleanupCheckpointsJob.description, MCPServerHealthCheckJob.description) == (
        "Clean up old LangGraph conversation checkpoints from Redis based on retention policy",
        "Perform automated health checks on HTTP MCP servers with retry logic and parallel execution",
    )
