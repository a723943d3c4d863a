"""The time at which the children of a Celery worker learn that it shuts down."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest
from celery.bootsteps import CLOSE, RUN
from celery.signals import worker_shutting_down

from ai_ops.runs import shutdown
from ai_ops.runs.shutdown import is_worker_stopping
from tests.waiting import until


class Worker:
    """The state of a Celery worker."""

    def __init__(self):
        self.blueprint = SimpleNamespace(state=RUN)


@pytest.fixture
def worker():
    """A worker in its loop, which has made itself known."""
    worker = Worker()
    # Not by the signal: other receivers would let each later task of this process close its connections.
    shutdown._share_with_own_children(sender=worker)
    yield worker
    worker.blueprint = None
    for thread in threading.enumerate():
        if thread.name == "shutdown of runs":
            thread.join()
    shutdown._share_with_own_children(sender=None)


def asked_to_end():
    began = time.monotonic()
    worker_shutting_down.send(sender="a worker", sig="SIGTERM", how="Warm", exitcode=0)
    assert time.monotonic() - began < 1, "the handler of the signal does not wait"


def test_a_worker_that_was_not_asked_to_end_does_not_stop(worker):
    assert not is_worker_stopping()


def test_runs_stop_when_the_loop_of_the_worker_has_ended_and_not_before(worker):
    asked_to_end()
    time.sleep(0.3)
    assert not is_worker_stopping(), "the loop would read a part of the result, and lose it"
    worker.blueprint.state = CLOSE
    until(is_worker_stopping, "the stop", 5)


def test_runs_stop_although_the_loop_does_not_end(worker, monkeypatch):
    monkeypatch.setattr(shutdown, "LOOP_SECONDS", 0.2)
    asked_to_end()
    until(is_worker_stopping, "the stop", 5)
    assert worker.blueprint.state == RUN


def test_runs_stop_at_once_while_the_worker_has_not_begun(worker):
    worker.blueprint = None
    asked_to_end()
    until(is_worker_stopping, "the stop", 1)


def test_the_longest_wait_leaves_the_run_most_of_the_half_minute_that_a_service_manager_gives():
    assert shutdown.LOOP_SECONDS <= 10
