"""The supervisor's pass over real records: what it starts, warns of and deletes, and that its parts fail alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.core.cache import cache
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from nautobot.extras.choices import JobResultStatusChoices
from nautobot.extras.models import Job, JobLogEntry, JobResult, ScheduledJob

from ai_ops.celery_tasks import supervise
from ai_ops.choices import MaintenanceKindChoices, RunStateChoices, RunTriggerChoices
from ai_ops.exceptions import LeaseLostError, RunStoppedError
from ai_ops.models import MaintenanceLease, MaintenanceRun
from ai_ops.runs import lease as leases
from ai_ops.runs.context import RunRequest, requested_by
from ai_ops.runs.dead_letters import dead_letters
from ai_ops.runs.execution import run_as
from ai_ops.runs.findings import Findings
from ai_ops.runs.supervisor_log import NAMED
from ai_ops.schedules import ensure_schedule, find_job, service_user
from ai_ops.supervision import history
from ai_ops.supervision.history import MAX_QUIET_PASSES, MAX_RECORDS, trim
from ai_ops.supervision.late_schedules import warn_of_late
from ai_ops.supervision.supervisor import SUB_CHECKS, no_supervision, start_due, supervise_once
from tests.fakes.jobs import delete_schedules, enable_jobs, see_workers
from tests.fakes.runs import FreeHold, recorded

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def no_schedules(db):
    """Without those that are provisioned, which no beat has started here."""
    delete_schedules()


@pytest.fixture
def workers(db):
    """Jobs that may run, and a worker that Nautobot believes to have seen a moment ago."""
    enable_jobs()
    cache.delete("ai_ops.worker_seen.default")
    see_workers(default=1)


@pytest.fixture
def orphans_were_collected(db):
    """So that no pass looks for a Redis."""
    return recorded(MaintenanceKindChoices.ORPHANS, RunTriggerChoices.PART)


def pending(ago, **fields):
    fields = {"owner": service_user(), "next_attempt": Now() - ago} | fields
    return recorded("incidents", state=RunStateChoices.PENDING, ago=HOUR, **fields)


class TestPass:
    def test_a_pass_is_a_run_that_says_what_it_found(self, orphans_were_collected):
        lost = recorded(trigger=RunTriggerChoices.SHELL, state=RunStateChoices.RUNNING, ago=HOUR)
        report = supervise()
        assert report["success"] is True
        assert report["error"] is None
        assert report["rescue"] == {"checked": 1, "fixed": 1, "unfixable": 0}
        assert list(report)[2:8] == ["rescue", "repair", "retries", "schedules", "history", "orphans"]
        assert report["summary"] == "rescue: 1 fixed"
        record = MaintenanceRun.objects.get(kind=MaintenanceKindChoices.SUPERVISOR)
        assert record.state == RunStateChoices.SUCCEEDED
        assert (record.counters["fixed"], record.counters["summary"]) == (1, "rescue: 1 fixed")
        lost.refresh_from_db()
        assert lost.state == RunStateChoices.LOST

    def test_it_does_not_rescue_itself(self, orphans_were_collected, settings):
        # However late its own heartbeat is, as its record has it.
        settings.PLUGINS_CONFIG = {"ai_ops": {"lease_seconds": 300}}

        def aged(hold):
            MaintenanceRun.objects.filter(kind="supervisor").update(heartbeat=Now() - HOUR, started=Now() - HOUR)
            MaintenanceLease.objects.update(expires=Now() - HOUR)
            return Findings()

        report = run_as(
            "supervisor", {}, lambda hold: supervise_once(hold, {"aged": aged} | SUB_CHECKS), no_supervision
        )
        assert report["rescue"] == {"checked": 0, "fixed": 0, "unfixable": 0}
        assert MaintenanceRun.objects.get(kind="supervisor").state == RunStateChoices.SUCCEEDED

    def test_two_are_never_at_it(self, orphans_were_collected):
        leases.acquire(MaintenanceKindChoices.SUPERVISOR, "another host", orphans_were_collected.pk, 60)
        report = supervise()
        assert report["run"]["state"] == RunStateChoices.SKIPPED
        assert "another host" in report["run"]["note"]

    def test_a_sub_check_that_breaks_keeps_no_other_from_its_work(self, caplog):
        def broken(hold):
            raise ZeroDivisionError("a fault of the program")

        report = supervise_once(FreeHold(), {"one": broken, "two": lambda hold: Findings(3, 2, 0)})
        assert report["one"] == {"checked": 0, "fixed": 0, "unfixable": 1}
        assert report["two"] == {"checked": 3, "fixed": 2, "unfixable": 0}
        assert (report["success"], report["error"]) == (False, "Failed: one; the log has the reason.")
        assert "ZeroDivisionError: a fault of the program" in caplog.text

    @pytest.mark.parametrize("error", [LeaseLostError("lost"), RunStoppedError("stopped"), SoftTimeLimitExceeded()])
    def test_what_ends_the_run_ends_it(self, error):
        def ended(hold):
            raise error

        with pytest.raises(type(error)):
            supervise_once(FreeHold(), {"one": ended, "two": lambda hold: pytest.fail("went on")})

    def test_it_does_nothing_when_its_own_heartbeat_is_late(self):
        class Late(FreeHold):
            def confirm(self):
                raise LeaseLostError("not renewed")

        with pytest.raises(LeaseLostError):
            supervise_once(Late(), {"one": lambda hold: pytest.fail("began")})

    def test_the_number_of_queries_does_not_depend_on_the_number_of_old_runs(self, orphans_were_collected):
        def queries_of_a_pass():
            with CaptureQueriesContext(connection) as context:
                supervise()
            return len(context)

        def due(count, number_of_passes):
            for kind, ago, number in (("health", 40 * DAY, count), ("incidents", HOUR, number_of_passes)):
                runs = [
                    MaintenanceRun(name=f"old {kind} {each}", kind=kind, trigger="schedule", state="skipped")
                    for each in range(number)
                ]
                MaintenanceRun.objects.bulk_create(runs)
                MaintenanceRun.objects.filter(kind=kind).update(created=Now() - ago)

        supervise()
        due(1, 1)
        few = queries_of_a_pass()
        assert few < 35
        old = MaintenanceRun.objects.filter(name__startswith="old")
        assert not old.exists()
        due(3 * MAX_RECORDS, 3 * MAX_QUIET_PASSES)
        assert queries_of_a_pass() == few
        assert old.filter(kind="health").count() == 2 * MAX_RECORDS
        assert old.filter(kind="incidents").count() == 2 * MAX_QUIET_PASSES


class TestRetries:
    def test_a_run_that_is_due_gets_its_message_and_is_done(self, workers, django_capture_on_commit_callbacks):
        run = pending(MINUTE)
        with django_capture_on_commit_callbacks(execute=True):
            assert start_due(FreeHold()) == Findings(1, 1, 0)
        run.refresh_from_db()
        assert (run.state, run.attempt) == (RunStateChoices.SUCCEEDED, 1)

    def test_one_that_is_not_due_waits(self, workers):
        pending(-MINUTE)
        assert start_due(FreeHold()) == Findings()

    def test_two_supervisors_send_one_message(self, workers):
        pending(MINUTE)
        assert start_due(FreeHold()) == Findings(1, 1, 0)
        assert start_due(FreeHold()) == Findings()
        assert JobResult.objects.count() == 1

    def test_one_that_no_worker_can_start_is_dead_and_counted(self, workers):
        run = pending(MINUTE, owner=None)
        assert start_due(FreeHold()) == Findings(1, 0, 1)
        run.refresh_from_db()
        assert run.state == RunStateChoices.DEAD

    def test_one_that_can_not_be_sent_keeps_no_other_waiting(self, workers, caplog):
        poisonous = pending(HOUR, options=["no options at all"])
        pending(MINUTE)
        assert start_due(FreeHold()) == Findings(2, 1, 1)
        assert f"Failed: starting {poisonous}" in caplog.text

    def test_a_rescued_run_is_started_again_by_a_later_pass(
        self, workers, orphans_were_collected, django_capture_on_commit_callbacks
    ):
        run = recorded(
            "incidents", RunTriggerChoices.SCHEDULE, state=RunStateChoices.RUNNING, ago=HOUR, owner=service_user()
        )
        with django_capture_on_commit_callbacks(execute=True):
            supervise()
        run.refresh_from_db()
        assert run.state == RunStateChoices.PENDING
        MaintenanceRun.objects.filter(pk=run.pk).update(next_attempt=Now())
        with django_capture_on_commit_callbacks(execute=True):
            supervise()
        run.refresh_from_db()
        assert (run.state, run.attempt) == (RunStateChoices.SUCCEEDED, 2)


class TestSchedules:
    @pytest.fixture
    def schedule(self):
        # Twelve hours from now, whenever this is run.
        at = datetime.now(UTC) + 12 * HOUR
        return ensure_schedule("cleanup", crontab=f"{at.minute} {at.hour} * * *", time_zone="UTC")

    def since(self, schedule, last, start=None):
        ScheduledJob.objects.filter(pk=schedule.pk).update(last_run_at=last, start_time=start or Now() - 30 * DAY)

    def test_one_that_beat_has_not_started_is_warned_of_once(self, schedule, caplog):
        at = datetime.now(UTC).replace(second=0, microsecond=0) - HOUR
        ensure_schedule("cleanup", crontab=f"{at.minute} {at.hour} * * *", time_zone="UTC")
        self.since(schedule, at - DAY)
        assert warn_of_late(FreeHold()) == Findings(1, 0, 1)
        (line,) = [each for each in caplog.messages if "late" in each]
        assert line == (
            f'1 schedule(s) are late. "AI Ops: clean up old checkpoints": It was due at {at:%Y-%m-%d %H:%M} UTC and '
            "did not start: check that Celery beat is running."
        )

    def test_what_was_started_lately_is_not_late_though_beat_has_not_written_it_down(self, schedule):
        self.since(schedule, timezone.now() - 3 * DAY)
        assert warn_of_late(FreeHold()).unfixable == 1
        JobResult.objects.create(name="cleanup", job_model=find_job("cleanup"), scheduled_job=schedule)
        assert warn_of_late(FreeHold()) == Findings(1)

    def test_a_new_one_and_a_disabled_one_are_not_late(self, schedule):
        assert warn_of_late(FreeHold()) == Findings(1)
        self.since(schedule, timezone.now() - 3 * DAY)
        ScheduledJob.objects.update(enabled=False)
        assert warn_of_late(FreeHold()) == Findings()

    def test_one_that_never_ran_is_late_after_its_start(self, schedule):
        self.since(schedule, None, Now() - 2 * DAY)
        assert warn_of_late(FreeHold()) == Findings(1, 0, 1)


class TestHistory:
    def kept(self, *runs):
        trim(FreeHold())
        left = set(MaintenanceRun.objects.values_list("pk", flat=True))
        return [run.pk in left for run in runs]

    def test_finished_runs_go_after_their_days_and_others_stay(self, settings):
        settings.PLUGINS_CONFIG = {"ai_ops": {"run_history_days": 10}}
        final = [state for state in RunStateChoices.FINAL if state != RunStateChoices.DEAD]
        old = [recorded(state=state, ago=11 * DAY) for state in final]
        young = [recorded(state=state, ago=9 * DAY) for state in RunStateChoices.FINAL]
        unfinished = [
            recorded(state=state, ago=11 * DAY) for state in (RunStateChoices.PENDING, RunStateChoices.RUNNING)
        ]
        assert self.kept(*old) == [False] * len(old)
        assert self.kept(*young, *unfinished) == [True] * (len(young) + 2)

    def test_a_dead_letter_waits_three_times_as_long_unless_it_is_discarded_or_redriven(self):
        waits = recorded(state=RunStateChoices.DEAD, ago=80 * DAY)
        forgotten = recorded(state=RunStateChoices.DEAD, ago=91 * DAY)
        discarded = recorded(state=RunStateChoices.DEAD, ago=31 * DAY, discarded=Now())
        redriven = recorded(state=RunStateChoices.DEAD, ago=31 * DAY)
        redrive = recorded(trigger=RunTriggerChoices.REDRIVE, ago=30 * DAY - HOUR, parent=redriven)
        assert self.kept(waits, forgotten, discarded, redriven, redrive) == [True, False, False, False, True]

    def test_what_was_redriven_is_no_dead_letter_again_when_its_redrive_goes(self, monkeypatch):
        redriven = recorded(state=RunStateChoices.DEAD, ago=32 * DAY)
        redrive = recorded(trigger=RunTriggerChoices.REDRIVE, ago=31 * DAY, parent=redriven)
        monkeypatch.setattr(history, "MAX_RECORDS", 1)
        assert self.kept(redriven, redrive) == [False, True]
        assert not dead_letters(MaintenanceRun.objects.all()).exists()
        assert self.kept(redrive) == [False]

    def test_a_child_stays_when_its_parent_goes(self):
        parent = recorded(ago=40 * DAY)
        child = recorded(ago=DAY, parent=parent)
        assert trim(FreeHold()) == Findings(1, 1)
        child.refresh_from_db()
        assert child.parent is None

    def test_passes_of_the_supervisor_with_nothing_to_do_go_after_ten_minutes_with_their_job_results(self):
        def passed(ago, state=RunStateChoices.SUCCEEDED, status=JobResultStatusChoices.STATUS_SUCCESS, fixed=0):
            job = find_job("supervisor")
            result = JobResult.objects.create(name="supervisor", job_model=job, task_name=job.class_path, status=status)
            return recorded(
                MaintenanceKindChoices.SUPERVISOR, ago=ago, state=state, counters={"fixed": fixed}, job_result=result
            )

        quiet, skipped = passed(2 * HOUR), passed(2 * HOUR, RunStateChoices.SKIPPED)
        recent, busy = passed(HOUR / 10), passed(2 * HOUR, fixed=1)
        failed = passed(2 * HOUR, RunStateChoices.FAILED, JobResultStatusChoices.STATUS_FAILURE)
        other = recorded("health", ago=2 * HOUR, counters={"fixed": 0})
        assert self.kept(quiet, skipped, recent, busy, failed, other) == [False, False, True, True, True, True]
        assert set(JobResult.objects.values_list("pk", flat=True)) == {
            run.job_result_id for run in (recent, busy, failed)
        }

    def result(self, kind, ago, status=JobResultStatusChoices.STATUS_SUCCESS, **fields):
        job = find_job(kind)
        result = JobResult.objects.create(
            name=job.name, job_model=job, task_name=job.class_path, status=status, **fields
        )
        result.job_log_entries.create(message="a line")
        JobResult.objects.filter(pk=result.pk).update(date_created=Now() - ago)
        return result

    def left(self, *results):
        trim(FreeHold())
        return [JobResult.objects.filter(pk=result.pk).exists() for result in results]

    def test_a_pass_that_only_trims_is_quiet(self, orphans_were_collected):
        recorded("health", ago=40 * DAY)
        report = supervise()
        assert (report["history"]["fixed"], report["quiet"]) == (1, True)
        MaintenanceRun.objects.filter(kind="supervisor").update(created=Now() - HOUR)
        recorded(trigger=RunTriggerChoices.SHELL, state=RunStateChoices.RUNNING, ago=HOUR)
        assert supervise()["quiet"] is False
        (left,) = MaintenanceRun.objects.filter(kind="supervisor")
        assert left.counters["quiet"] is False

    def test_the_results_of_all_attempts_go_with_their_run_and_with_their_log(self):
        first, second, other = (self.result("cleanup", 40 * DAY) for _ in range(3))
        attempts = [{"attempt": 1, "state": "failed", "job_result": str(first.pk)}]
        recorded(ago=40 * DAY, job_result=second, attempts=attempts, attempt=2)
        dead = [{"attempt": 1, "state": "failed", "job_result": str(other.pk)}]
        recorded(ago=40 * DAY, state=RunStateChoices.DEAD, attempts=dead, attempt=2)
        young = self.result("cleanup", DAY)
        recorded(ago=DAY, job_result=young)
        assert self.left(first, second, other, young) == [False, False, True, True]
        assert set(JobLogEntry.objects.values_list("job_result", flat=True)) == {other.pk, young.pk}

    def test_a_result_stays_with_a_run_that_stays(self):
        shared = self.result("health", 40 * DAY)
        recorded("health", ago=40 * DAY, job_result=shared)
        stays = recorded("health", ago=40 * DAY, job_result=shared, state=RunStateChoices.RUNNING)
        assert self.left(shared) == [True]
        stays.refresh_from_db()
        assert stays.job_result == shared

    def test_results_that_no_run_is_of_go_after_the_same_days_and_those_of_other_jobs_stay(self):
        states = (JobResultStatusChoices.STATUS_REVOKED, JobResultStatusChoices.STATUS_PENDING)
        old = [self.result("cleanup", 40 * DAY, state) for state in states]
        young = [self.result("cleanup", DAY, state) for state in states]
        others = JobResult.objects.create(name="other", task_name="other.jobs.Job")
        JobResult.objects.filter(pk=others.pk).update(date_created=Now() - 400 * DAY)
        assert self.left(*old, *young, others) == [False, False, True, True, True]

    def test_messages_of_passes_that_expired_leave_nothing(self):
        schedule = ensure_schedule("supervisor")
        pending = JobResultStatusChoices.STATUS_PENDING
        expired = {"scheduled_job": schedule, "celery_kwargs": {"expires": 60}}
        waits = {"scheduled_job": schedule, "celery_kwargs": {"expires": 86_400}}
        gone = [
            self.result("supervisor", HOUR, JobResultStatusChoices.STATUS_REVOKED, **expired),
            self.result("supervisor", HOUR, pending, **expired),
            self.result("incidents", HOUR, pending, **expired),
        ]
        stay = [
            self.result("supervisor", MINUTE, pending, **expired),
            self.result("supervisor", HOUR, pending, **waits),
            self.result("supervisor", HOUR, pending),
            self.result("cleanup", HOUR, pending, **expired),
        ]
        assert self.left(*gone, *stay) == [False] * 3 + [True] * 4

    def test_results_that_must_stay_keep_no_other_from_its_turn(self, monkeypatch):
        monkeypatch.setattr(history, "MAX_RECORDS", 3)
        monkeypatch.setattr(history, "MAX_QUIET_PASSES", 1)
        of_a_schedule = {
            "scheduled_job": ensure_schedule("supervisor"),
            "status": JobResultStatusChoices.STATUS_PENDING,
        }
        first = [self.result("cleanup", 41 * DAY) for _ in range(5)]
        attempts = [{"attempt": number, "job_result": str(each.pk)} for number, each in enumerate(first, 1)]
        recorded(state=RunStateChoices.DEAD, ago=41 * DAY, attempts=attempts, attempt=6)
        waiting = [self.result("supervisor", 2 * HOUR, celery_kwargs={}, **of_a_schedule) for _ in range(5)]
        old = self.result("cleanup", 40 * DAY)
        expired = self.result("supervisor", HOUR, celery_kwargs={"expires": 60}, **of_a_schedule)
        assert self.left(*first, *waiting, old, expired) == [True] * 10 + [False] * 2

    def test_the_first_results_without_a_run_have_a_line_each_and_the_others_a_count(self, caplog):
        caplog.set_level("INFO")
        results = [self.result("cleanup", 40 * DAY, JobResultStatusChoices.STATUS_REVOKED) for _ in range(NAMED + 3)]
        assert not any(self.left(*results))
        lines = [line for line in caplog.messages if line.endswith(", REVOKED, 40 d old: deleted")]
        assert len(lines) == NAMED
        assert lines[0].startswith(f"The result {results[0].pk} of Cleanup Old Checkpoints")
        assert "And 3 more result(s) without a run deleted" in caplog.messages

    def test_a_review_that_did_something_stays(self):
        nothing = dict.fromkeys(("total_checked", "opened", "auto_closed", "escalated", "errors"), 0)
        quiet = recorded("incidents", ago=HOUR, counters=nothing | {"total_checked": 3})
        busy = [
            recorded("incidents", ago=HOUR, counters=nothing | {name: 1})
            for name in ("opened", "auto_closed", "escalated", "errors")
        ]
        assert self.kept(quiet, *busy) == [False, True, True, True, True]

    def test_a_lease_that_is_lost_keeps_everything(self):
        class Gone(FreeHold):
            def lock(self):
                raise LeaseLostError("taken over")

        run = recorded(ago=40 * DAY)
        with pytest.raises(LeaseLostError):
            trim(Gone())
        assert MaintenanceRun.objects.filter(pk=run.pk).exists()


def test_a_pass_that_fails_is_not_tried_again_since_the_next_one_is():
    run = recorded(MaintenanceKindChoices.SUPERVISOR, state=RunStateChoices.RUNNING)
    assert not run.is_retried
    with requested_by(RunRequest(RunTriggerChoices.SCHEDULE)):
        assert recorded("health", RunTriggerChoices.SCHEDULE).is_retried


@pytest.mark.django_db(transaction=True, databases=["default", "job_logs"])
def test_the_job_says_what_a_pass_found(orphans_were_collected):
    lost = recorded(trigger=RunTriggerChoices.SHELL, state=RunStateChoices.RUNNING, ago=HOUR)
    job = find_job("supervisor")
    assert (job.name, job.grouping, job.hidden) == ("Supervise Maintenance Runs", "AI Agents", True)
    Job.objects.filter(pk=job.pk).update(enabled=True)
    result = JobResult.enqueue_job(find_job("supervisor"), service_user(), synchronous=True, job_kwargs={})
    result.refresh_from_db()
    assert result.status == JobResultStatusChoices.STATUS_SUCCESS
    assert result.result["rescue"] == {"checked": 1, "fixed": 1, "unfixable": 0}
    # Its own JobResult is unfinished during the pass, and no business of it.
    assert result.result["repair"] == {"checked": 0, "fixed": 0, "unfixable": 0}
    lines = {(entry.log_level, entry.message) for entry in result.job_log_entries.all()}
    assert ("info", "✅ Supervision completed: rescue: 1 fixed") in lines
    assert any(level == "warning" and message.startswith(f"{lost} was lost.") for level, message in lines)
    run = MaintenanceRun.objects.get(kind=MaintenanceKindChoices.SUPERVISOR)
    assert (run.job_result, run.trigger, run.state) == (result, RunTriggerChoices.JOB, RunStateChoices.SUCCEEDED)
