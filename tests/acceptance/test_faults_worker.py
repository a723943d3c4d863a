"""Real Celery workers and a real beat that are killed, stopped and late: what is promised holds after each fault."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from development import services
from tests.acceptance import fault_processes as processes
from tests.acceptance.fault_world import World, celery_beat, celery_worker
from tests.fakes.mcp_server import FakeMCPServer
from tests.waiting import until

# Nothing is forgotten before they have started.
pytestmark = pytest.mark.usefixtures("celery")

HEALTH, INCIDENTS = "health", "incidents"
# Each worker listens to a queue of its own, so that a test says which one gets the message.
ASKED_TO_END, KILLED = "asked-to-end", "killed"
MISSED_HOURS = 3


class Celery:
    """Two workers and beat, which start at the same time."""

    def __init__(self, env: dict[str, str], folder: Path) -> None:
        self.beat_seen = folder / "beat.heartbeat"
        self.workers = {
            queue: celery_worker(env, folder, queue, "-Q", queue, "-n", f"{queue}@%h")
            for queue in (ASKED_TO_END, KILLED)
        }
        self.beat = celery_beat(env, folder)


@pytest.fixture(scope="module")
def celery(worlds, tmp_path_factory) -> Iterator[Celery]:
    worlds.forget()
    worlds.forget_messages()
    for queue in (ASKED_TO_END, KILLED):
        worlds.do(processes.add_queue, queue)
    worlds.do(processes.miss_schedules, INCIDENTS, MISSED_HOURS, ASKED_TO_END)
    celery = Celery(worlds.env, tmp_path_factory.mktemp("celery"))
    with services.Supervisor() as supervisor:
        supervisor.start(*celery.workers.values(), celery.beat)
        yield celery


def job_status(world: World, job_result: str) -> str:
    return world.sql("SELECT status FROM extras_jobresult WHERE id = %s", job_result)[0][0]


def enqueued_and_in_the_pause(world: World, server: FakeMCPServer, queue: str, **limits: float) -> str:
    job_result = world.do(processes.enqueue, HEALTH, queue, 1, limits)
    until(lambda: server.requests and not server.open_now, "a probe")
    return job_result


def test_a_schedule_that_was_missed_for_three_hours_makes_one_run(worlds, celery):
    """The first test: beat has started with the workers."""
    until(lambda: worlds.runs(INCIDENTS) == ["succeeded"], "the run")
    for _ in range(2):
        seen = celery.beat_seen.stat().st_mtime_ns
        until(lambda: celery.beat_seen.stat().st_mtime_ns > seen, "another look of beat's")  # noqa: B023
    assert worlds.runs() == ["succeeded"]
    assert worlds.sql("SELECT trigger FROM ai_ops_maintenancerun") == [("schedule",)]
    worlds.check()
    celery.beat.stop()


def test_the_same_message_twice_at_once_is_one_run(world, recovered, celery):
    job_result = world.do(processes.enqueue, HEALTH, ASKED_TO_END, 2)
    until(lambda: "succeeded" in world.runs(), "the run")
    until(lambda: job_status(world, job_result) == "SUCCESS", "the end of the Job")
    # The other is a skipped run, or none where it found the record of the first.
    assert sorted({*world.runs(), "skipped"}) == ["skipped", "succeeded"]
    assert world.runs().count("succeeded") == 1
    assert world.status_of("Tickets") == "Healthy"
    probes = [path for _, path in recovered.requests if path == "/health"]
    assert len(probes) == 3, "of two runs there would be more"
    # The Job has ended with the first of the two that has, and the record of a run ends before its lease.
    until(lambda: not world.has_lease(), "the end of the lease")
    world.check()


def test_the_soft_time_limit_ends_a_run_in_order_and_the_next_does_the_work(world, recovered, celery):
    job_result = enqueued_and_in_the_pause(world, recovered, ASKED_TO_END, soft_time_limit=2)
    until(lambda: job_status(world, job_result) == "FAILURE", "the end of the Job")
    assert world.runs() == ["interrupted"]
    assert world.status_of("Tickets") == "Unhealthy"
    assert world.sql("SELECT count(*) FROM ai_ops_mcpservercheck") == [(1,)], "what was found until then is kept"
    world.check()
    world.do(processes.scheduled, HEALTH)
    assert world.status_of("Tickets") == "Healthy"
    world.check()


def test_a_worker_that_is_asked_to_end_stops_its_run_in_order_and_the_next_does_the_work(world, recovered, celery):
    worker = celery.workers[ASKED_TO_END]
    job_result = enqueued_and_in_the_pause(world, recovered, ASKED_TO_END)
    worker.process.terminate()
    # A worker that loses the result of the run waits for half a minute.
    assert worker.process.wait(20) == 0
    assert world.runs() == ["interrupted"]
    assert job_status(world, job_result) == "FAILURE", "not started for ever"
    assert world.status_of("Tickets") == "Unhealthy"
    world.check()
    world.do(processes.scheduled, HEALTH)
    assert world.status_of("Tickets") == "Healthy"
    world.check()


def test_a_worker_that_is_killed_is_replaced(world, recovered, celery):
    worker = celery.workers[KILLED]
    job_result = enqueued_and_in_the_pause(world, recovered, KILLED)
    os.killpg(worker.process.pid, signal.SIGKILL)
    worker.process.wait(60)
    assert world.runs() == ["running"]
    assert job_status(world, job_result) == "STARTED"
    world.settle()
    assert world.runs() == ["succeeded"]
    assert world.status_of("Tickets") == "Healthy"
