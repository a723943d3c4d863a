"""Runs whose process is gone are ended, and what their death left in Nautobot is reaped."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from datetime import timedelta

import pytest
from celery import Celery
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone
from nautobot.extras.choices import JobCancelTypeChoices, JobResultStatusChoices
from nautobot.extras.models import Job, JobResult

from ai_ops.choices import MaintenanceKindChoices, RunStateChoices, RunTriggerChoices
from ai_ops.exceptions import LeaseLostError, WorkersUnreachableError
from ai_ops.models import MaintenanceRun
from ai_ops.runs import lease as leases
from ai_ops.runs.findings import Findings
from ai_ops.schedules import find_job
from ai_ops.supervision.rescue import repair, rescue
from ai_ops.supervision.workers import known_tasks
from tests.fakes.runs import FreeHold, recorded
from tests.waiting import until

HOUR = timedelta(hours=1)
NO_TASKS: frozenset[str] = frozenset()


def none_known(ids):
    return NO_TASKS


def everybody_knows(ids):
    return frozenset(ids)


def no_broker(ids):
    raise WorkersUnreachableError("Celery's broker can't be reached.")


def silent(trigger=RunTriggerChoices.SCHEDULE, ago=HOUR, **fields):
    return recorded(trigger=trigger, state=RunStateChoices.RUNNING, ago=ago, **fields)


def job_result(kind="cleanup", status=JobResultStatusChoices.STATUS_STARTED, ago=HOUR):
    job = find_job(kind) or Job.objects.get(job_class_name=kind)
    result = JobResult.objects.create(name=job.name, job_model=job, status=status)
    started = None if status == JobResultStatusChoices.STATUS_PENDING else Now() - ago
    JobResult.objects.filter(pk=result.pk).update(date_created=Now() - ago, date_started=started)
    result.refresh_from_db()
    return result


@pytest.mark.django_db
class TestRescue:
    def rescued(self, run, ask=none_known, own=None):
        findings = rescue(FreeHold(), own, ask)
        run.refresh_from_db()
        return findings

    def test_a_run_of_a_dead_worker_is_tried_again(self):
        run = silent()
        assert self.rescued(run) == Findings(1, 1, 0)
        assert (run.state, run.attempt) == (RunStateChoices.PENDING, 1)
        assert run.next_attempt is not None
        (attempt,) = run.attempts
        assert (attempt["state"], attempt["fence"], attempt["holder"]) == ("lost", 7, "a host, process 1")
        assert "It has sent no heartbeat for 3600 s" in attempt["error"]

    def test_after_its_last_attempt_it_is_dead(self):
        run = silent(attempt=5)
        self.rescued(run)
        assert (run.state, run.next_attempt) == (RunStateChoices.DEAD, None)
        assert "the limit" in run.error

    @pytest.mark.parametrize(
        ("kind", "trigger"),
        [
            (MaintenanceKindChoices.CLEANUP, RunTriggerChoices.SHELL),
            (MaintenanceKindChoices.ORPHANS, RunTriggerChoices.PART),
            (MaintenanceKindChoices.SUPERVISOR, RunTriggerChoices.SCHEDULE),
        ],
    )
    def test_what_no_process_waits_for_is_lost(self, kind, trigger):
        run = silent(trigger, kind=kind)
        assert self.rescued(run) == Findings(1, 1, 0)
        assert run.state == RunStateChoices.LOST
        assert run.finished is not None

    def test_a_cancelled_one_is_not_tried_again(self):
        run = silent(cancel_requested=True)
        self.rescued(run)
        assert run.state == RunStateChoices.INTERRUPTED

    def test_nor_is_one_whose_job_was_killed_with_the_cancel_button_of_nautobot(self):
        run = silent(job_result=job_result(status=JobResultStatusChoices.STATUS_REVOKED))
        self.rescued(run)
        assert (run.state, run.attempts) == (RunStateChoices.INTERRUPTED, [])

    @pytest.mark.parametrize("ago", [timedelta(seconds=200), timedelta()])
    def test_one_that_was_heard_of_is_left_alone(self, ago):
        run = silent(started=Now() - HOUR, ago=ago)
        assert self.rescued(run) == Findings(1, 0, 0)
        assert run.state == RunStateChoices.RUNNING

    def test_a_short_lease_makes_no_young_run_old(self, settings):
        settings.PLUGINS_CONFIG = {"ai_ops": {"lease_seconds": 3}}
        run = silent(ago=timedelta(seconds=50))
        assert self.rescued(run) == Findings(1, 0, 0)

    def test_one_whose_own_lease_still_runs_is_left_alone(self):
        # Its process may have been started with a longer lease than this one.
        run = silent(RunTriggerChoices.SHELL)
        leases.acquire("cleanup", "a host", run.pk, 600)
        assert self.rescued(run) == Findings(1, 0, 0)
        assert run.state == RunStateChoices.RUNNING

    def test_the_supervisor_never_rescues_itself(self):
        own = silent(kind=MaintenanceKindChoices.SUPERVISOR)
        assert self.rescued(own, own=own.pk) == Findings()
        assert own.state == RunStateChoices.RUNNING

    def test_one_that_a_worker_has_still_is_named_and_left_alone(self, caplog):
        run = silent(job_result=job_result())
        assert self.rescued(run, everybody_knows) == Findings(1, 0, 1)
        assert run.state == RunStateChoices.RUNNING
        assert f"{run} has been silent for 3600 s" in caplog.text

    def test_where_workers_can_not_be_asked_nothing_is_decided(self, caplog):
        run = silent()
        assert self.rescued(run, no_broker) == Findings(1, 0, 1)
        assert run.state == RunStateChoices.RUNNING
        assert "1 silent run(s) were not rescued: Celery's broker" in caplog.text

    def test_all_workers_are_asked_at_once(self):
        asked = []
        results = {str(silent(job_result=job_result()).job_result_id) for _ in range(3)}
        rescue(FreeHold(), None, lambda ids: asked.append(set(ids)) or NO_TASKS)
        assert asked == [results]

    @pytest.mark.parametrize(
        "meanwhile",
        [
            {"heartbeat": F("heartbeat") + HOUR},
            {"state": RunStateChoices.SUCCEEDED},
            {"fence": 8},
        ],
        ids=["it beat", "it ended", "it was taken over"],
    )
    def test_what_happens_to_a_run_meanwhile_wins(self, meanwhile):
        run = silent()

        def ask(ids):
            MaintenanceRun.objects.filter(pk=run.pk).update(**meanwhile)
            return NO_TASKS

        assert self.rescued(run, ask) == Findings(1, 0, 0)
        assert run.state != RunStateChoices.PENDING
        assert run.attempts == []

    def test_a_supervisor_that_lost_its_own_lease_writes_nothing(self):
        class Gone(FreeHold):
            def lock(self):
                raise LeaseLostError("taken over")

        run = silent()
        with pytest.raises(LeaseLostError):
            rescue(Gone(), None, none_known)
        run.refresh_from_db()
        assert run.state == RunStateChoices.RUNNING

    def test_one_pass_touches_so_many_and_the_longest_silent_first(self, monkeypatch):
        monkeypatch.setattr("ai_ops.supervision.rescue.MAX_RUNS", 5)
        youngest = silent(ago=HOUR / 2)
        for _ in range(5):
            silent()
        assert rescue(FreeHold(), None, none_known) == Findings(5, 5, 0)
        youngest.refresh_from_db()
        assert youngest.state == RunStateChoices.RUNNING


# Nautobot writes the log of a JobResult through a connection of its own.
@pytest.mark.django_db(transaction=True, databases=["default", "job_logs"])
class TestRepair:
    def test_what_a_dead_worker_left_started_is_reaped_and_all_else_is_not(self):
        left = [
            recorded(state=state, job_result=job_result()).job_result
            for state in (RunStateChoices.PENDING, RunStateChoices.DEAD, RunStateChoices.LOST)
        ]
        retried = job_result()
        recorded(attempt=2, attempts=[{"attempt": 1, "job_result": str(retried.pk)}], job_result=None)
        unsent = recorded(
            state=RunStateChoices.INTERRUPTED,
            job_result=job_result(status=JobResultStatusChoices.STATUS_PENDING, ago=2 * HOUR),
        ).job_result
        others = [
            silent(job_result=job_result()).job_result,
            recorded(job_result=job_result(ago=timedelta(seconds=5))).job_result,
            # No run says whether it is over.
            job_result("health"),
            # Its message may still be in a queue.
            recorded(
                state=RunStateChoices.PENDING, job_result=job_result(status=JobResultStatusChoices.STATUS_PENDING)
            ).job_result,
            recorded(job_result=job_result(status=JobResultStatusChoices.STATUS_SUCCESS)).job_result,
            # Not of this app.
            recorded(job_result=job_result("ExportObjectList")).job_result,
        ]
        assert repair(FreeHold(), None, none_known) == Findings(8, 5, 0)
        for result in [*left, retried, unsent]:
            result.refresh_from_db()
            assert result.status == JobResultStatusChoices.STATUS_REVOKED
            assert result.cancel_type == JobCancelTypeChoices.TYPE_REAPED
            assert result.canceled_by_user_name == "ai-ops-scheduler"
            assert result.date_done is not None
        for result in others:
            status = result.status
            result.refresh_from_db()
            assert result.status == status
        assert repair(FreeHold(), None, none_known) == Findings(3, 0, 0)

    def test_a_job_that_ends_meanwhile_keeps_its_end(self):
        result = recorded(job_result=job_result()).job_result

        def ask(ids):
            done = {"status": JobResultStatusChoices.STATUS_SUCCESS, "date_done": timezone.now()}
            JobResult.objects.filter(pk=result.pk).update(**done)
            return NO_TASKS

        assert repair(FreeHold(), None, ask) == Findings(1, 0, 0)
        result.refresh_from_db()
        assert result.status == JobResultStatusChoices.STATUS_SUCCESS


@pytest.mark.django_db
def test_what_a_worker_has_is_not_repaired():
    result = recorded(job_result=job_result()).job_result
    assert repair(FreeHold(), None, everybody_knows) == Findings(1, 0, 0)
    assert repair(FreeHold(), None, no_broker) == Findings(1, 0, 1)
    assert repair(FreeHold(), result, none_known) == Findings()
    result.refresh_from_db()
    assert result.status == JobResultStatusChoices.STATUS_STARTED


# A worker in this process would leave its signals and its logging behind.
WORKER = """
import sys, time
from celery import Celery
app = Celery(broker=sys.argv[1])
@app.task(name="busy")
def busy():
    time.sleep(60)
app.worker_main(["worker", "--pool", "threads", "--concurrency", "1", "--loglevel", "ERROR"])
"""


def test_workers_say_which_tasks_they_have(checkpoint_server):
    app = Celery(broker=checkpoint_server.url(3), set_as_current=False)
    running, waiting, absent = str(uuid.uuid4()), str(uuid.uuid4()), str(uuid.uuid4())
    assert known_tasks([absent], app) == NO_TASKS
    # Without the settings module, which Celery would set up Django for.
    env = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    worker = subprocess.Popen([sys.executable, "-c", WORKER, checkpoint_server.url(3)], env=env)
    try:
        for task in (running, waiting):
            app.send_task("busy", task_id=task)
        until(lambda: known_tasks([running, waiting, absent], app) == {running, waiting}, "both tasks")
    finally:
        worker.kill()
        worker.wait()
    assert known_tasks([running], app) == NO_TASKS


def test_a_broker_that_is_gone_is_no_answer():
    app = Celery(broker="redis://127.0.0.1:1/0", set_as_current=False)
    # Once: Celery asks a hundred times, some seconds apart.
    app.conf.broker_transport_options = {"max_retries": 1, "interval_start": 0}
    with pytest.raises(WorkersUnreachableError, match="it is not known which tasks are alive"):
        known_tasks(["a"], app)


def test_no_worker_is_asked_about_nothing():
    assert known_tasks([], Celery(broker="redis://127.0.0.1:1/0", set_as_current=False)) == NO_TASKS
