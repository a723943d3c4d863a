"""Maintenance runs: recorded, alone of their kind, ended in exactly one state."""

from __future__ import annotations

import uuid

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.db import OperationalError, connection
from redis.exceptions import ConnectionError as RedisConnectionError

from ai_ops.checkpoints.pins import PinsError
from ai_ops.choices import MaintenanceKindChoices, RunStateChoices, RunTriggerChoices
from ai_ops.exceptions import CheckpointStoreError, LeaseLostError, LeaseTakenError, RunStoppedError
from ai_ops.models import MaintenanceLease, MaintenanceRun
from ai_ops.runs import lease as leases
from ai_ops.runs.context import RunRequest, requested_by
from ai_ops.runs.execution import run_as
from ai_ops.runs.time_limit import StoppedByTimeLimitError

pytestmark = pytest.mark.django_db

KIND = MaintenanceKindChoices.CLEANUP
SCHEDULED = RunRequest(RunTriggerChoices.SCHEDULE)


def nothing(error):
    return {"success": error is None, "deleted_count": 0, "error": error}


def run(work, request=None, **options):
    with requested_by(request or RunRequest()):
        return run_as(KIND, options, work, nothing)


def done(hold):
    return {"success": True, "deleted_count": 7, "error": None, "largest_threads": [{"thread": "a"}]}


def failing(error):
    def work(hold):
        hold.trouble(error)
        return nothing(str(error))

    return work


def unreachable():
    error = CheckpointStoreError("The checkpoint Redis can't be reached.")
    error.__cause__ = RedisConnectionError()
    return error


def test_a_run_from_a_shell_is_recorded_with_its_counts():
    result = run(done, retention_days=7)
    record = MaintenanceRun.objects.get()
    assert result["run"] == {
        "id": str(record.pk), "name": record.name, "state": "succeeded", "attempt": 1, "note": None,
    }  # fmt: skip
    assert (record.kind, record.trigger, record.state) == (KIND, RunTriggerChoices.SHELL, RunStateChoices.SUCCEEDED)
    assert record.options == {"retention_days": 7}
    assert record.counters == {"success": True, "deleted_count": 7}
    assert record.started <= record.finished
    assert record.execution_time_ms >= 0
    assert record.fence == MaintenanceLease.objects.get().fence == 1
    assert record.name.startswith(f"cleanup {record.created:%Y-%m-%d %H:%M} ")


def test_the_lease_is_free_again_after_a_run_and_its_fence_rises_with_the_next():
    run(done)
    assert MaintenanceLease.objects.get().token is None
    run(done)
    assert sorted(MaintenanceRun.objects.values_list("fence", flat=True)) == [1, 2]


def test_a_second_run_is_skipped_and_names_the_holder():
    inner = []

    def work(hold):
        inner.append(run(done))
        return done(hold)

    assert run(work)["run"]["state"] == RunStateChoices.SUCCEEDED
    (skipped,) = inner
    holder = MaintenanceRun.objects.get(state=RunStateChoices.SUCCEEDED)
    assert skipped["success"] is True
    assert skipped["run"]["state"] == RunStateChoices.SKIPPED
    assert holder.name in skipped["run"]["note"]
    assert holder.name in MaintenanceRun.objects.get(state=RunStateChoices.SKIPPED).error


def test_a_stale_lease_is_taken_over_and_its_old_holder_can_write_nothing():
    old = leases.acquire("cleanup", "a host", uuid.uuid4(), 0.0)
    new = leases.acquire("cleanup", "another host", uuid.uuid4(), 60.0)
    assert new.fence == old.fence + 1
    assert not old.renew()
    with pytest.raises(LeaseLostError, match="taken over"):
        old.lock()
    old.release()
    new.lock()
    with pytest.raises(LeaseTakenError, match="another host"):
        leases.acquire("cleanup", "a third", uuid.uuid4(), 60.0)


@pytest.mark.parametrize("error", [OperationalError("gone"), unreachable(), LeaseLostError("lost")])
def test_what_the_infrastructure_fails_is_tried_again_and_dead_in_the_end(error, settings):
    settings.PLUGINS_CONFIG = {"ai_ops": {"max_attempts": 2, "lease_seconds": 300}}
    result = run(failing(error), SCHEDULED)
    record = MaintenanceRun.objects.get()
    assert (record.state, record.attempt) == (RunStateChoices.PENDING, 1)
    assert record.next_attempt is not None
    assert "will be retried at" in result["run"]["note"]
    again = RunRequest(RunTriggerChoices.SCHEDULE, run_id=record.pk)
    run(failing(error), again)
    record.refresh_from_db()
    assert (record.state, record.attempt, record.next_attempt) == (RunStateChoices.DEAD, 2, None)
    assert [(each["attempt"], each["state"]) for each in record.attempts] == [(1, "failed"), (2, "failed")]
    assert "limit" in record.error


def test_a_run_from_a_shell_is_not_tried_again():
    run(failing(unreachable()))
    assert MaintenanceRun.objects.get().state == RunStateChoices.FAILED


@pytest.mark.parametrize("error", [CheckpointStoreError("no permission"), ValueError("a fault of the program")])
def test_what_another_try_would_not_mend_is_failed(error):
    run(failing(error), SCHEDULED)
    assert MaintenanceRun.objects.get().state == RunStateChoices.FAILED


@pytest.mark.parametrize("stop", [SoftTimeLimitExceeded(), KeyboardInterrupt(), SystemExit(1)])
def test_a_run_that_is_stopped_from_outside_is_interrupted_and_says_so(stop):
    def work(hold):
        raise stop

    with pytest.raises(type(stop)):
        run(work, SCHEDULED)
    record = MaintenanceRun.objects.get()
    assert record.state == RunStateChoices.INTERRUPTED
    assert "reached its time limit or was stopped" in record.error
    assert record.counters["deleted_count"] == 0
    assert MaintenanceLease.objects.get().token is None


def test_a_run_that_tells_what_it_did_until_the_time_limit_is_interrupted_with_that():
    def work(hold):
        raise StoppedByTimeLimitError({"success": False, "deleted_count": 3, "error": "Time is up after three."})

    with pytest.raises(StoppedByTimeLimitError):
        run(work, SCHEDULED)
    record = MaintenanceRun.objects.get()
    assert (record.state, record.error) == (RunStateChoices.INTERRUPTED, "Time is up after three.")
    assert record.counters == {"success": False, "deleted_count": 3}


def test_a_fault_of_the_program_is_recorded_and_raised():
    def work(hold):
        raise ZeroDivisionError("division")

    with pytest.raises(ZeroDivisionError):
        run(work, SCHEDULED)
    record = MaintenanceRun.objects.get()
    assert (record.state, record.error) == (RunStateChoices.FAILED, "ZeroDivisionError: division")
    assert MaintenanceLease.objects.get().token is None


def test_what_the_infrastructure_fails_is_tried_again_also_where_the_task_does_not_deal_with_it():
    def work(hold):
        raise OperationalError("server closed the connection unexpectedly")

    with pytest.raises(OperationalError):
        run(work, SCHEDULED)
    record = MaintenanceRun.objects.get()
    assert record.state == RunStateChoices.PENDING
    assert record.next_attempt is not None


def test_pins_that_the_database_does_not_give_are_asked_for_again():
    error = PinsError("The pinned threads could not be read from Nautobot's database.")
    error.__cause__ = OperationalError("gone")
    run(failing(error), SCHEDULED)
    assert MaintenanceRun.objects.get().state == RunStateChoices.PENDING


def test_what_was_ended_by_another_program_stays_as_it_is():
    def work(hold):
        MaintenanceRun.objects.update(state=RunStateChoices.LOST)
        return done(hold)

    result = run(work, SCHEDULED)
    assert MaintenanceRun.objects.get().state == RunStateChoices.LOST
    assert result["run"]["state"] == RunStateChoices.LOST
    assert "ended by the supervisor" in result["run"]["note"]


def test_a_run_that_is_told_to_stop_is_interrupted():
    def work(hold):
        raise RunStoppedError("The worker was told to stop.")

    result = run(work, SCHEDULED)
    assert result["error"] == "The worker was told to stop."
    assert MaintenanceRun.objects.get().state == RunStateChoices.INTERRUPTED


def test_a_message_that_is_delivered_again_after_the_end_does_nothing():
    run(done, SCHEDULED)
    record = MaintenanceRun.objects.get()
    again = run(failing(ValueError()), RunRequest(RunTriggerChoices.SCHEDULE, run_id=record.pk))
    assert again["run"]["state"] == RunStateChoices.SKIPPED
    record.refresh_from_db()
    assert record.state == RunStateChoices.SUCCEEDED


def test_a_message_that_is_delivered_again_meanwhile_leaves_the_record_alone():
    seen = []

    def work(hold):
        record = MaintenanceRun.objects.get()
        seen.append(run(done, RunRequest(RunTriggerChoices.SCHEDULE, run_id=record.pk)))
        seen.append(MaintenanceRun.objects.get().state)
        return done(hold)

    run(work, SCHEDULED)
    assert seen[0]["run"]["state"] == RunStateChoices.SKIPPED
    assert seen[1] == RunStateChoices.RUNNING
    assert MaintenanceRun.objects.get().state == RunStateChoices.SUCCEEDED


def test_a_record_that_can_not_be_written_stops_nothing():
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE ai_ops_maintenancerun ADD CONSTRAINT full_disk CHECK (kind = '')")
    result = run(done)
    assert result["success"] is True
    assert result["deleted_count"] == 7
    assert result["run"]["id"] is None
    assert "could not be written" in result["run"]["note"]
