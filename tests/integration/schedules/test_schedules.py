"""Schedules made from a shell, and what Celery's beat makes of them."""

import itertools
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.signals import beat_init
from django.contrib.auth import get_user_model
from django.db import connection, transaction
from django.test import TestCase, override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from nautobot.core.celery.schedulers import NautobotDatabaseScheduler
from nautobot.extras.choices import ScheduledJobStateChoices
from nautobot.extras.models import Job, JobQueue, JobResult, ScheduledJob

from ai_ops.exceptions import AiOpsError, ConfigurationError, RunOptionsError, ScheduleNotFoundError
from ai_ops.jobs import jobs
from ai_ops.models import MaintenanceRun, MCPServer
from ai_ops.schedules import DEFAULT_SCHEDULES, SERVICE_USER, ensure_schedule, find_job, service_user
from ai_ops.schedules.approval import APP_JOBS
from ai_ops.schedules.control import (
    pause_schedule,
    remove_schedule,
    resume_schedule,
    retime_schedule,
    schedule_once,
    schedule_runs,
)
from ai_ops.schedules.status import get_schedule_status
from tests.fakes.jobs import require_approval, see_workers

SOON = timezone.now() + timedelta(days=1)
HEALTH_JOB = DEFAULT_SCHEDULES["health"].class_path


class EnsureScheduleTest(TestCase):
    def test_a_kind_alone_gives_its_default_schedule(self):
        schedule = ensure_schedule("health")
        assert (schedule.name, schedule.crontab) == ("AI Ops: check MCP servers", "*/10 * * * *")
        assert schedule.user.username == SERVICE_USER
        assert schedule.enabled

    def test_the_same_name_updates(self):
        first = ensure_schedule("health", name="mine", crontab="0 * * * *")
        second = ensure_schedule("health", name="mine", crontab="30 6 * * 1-5", time_zone="Europe/Berlin")
        assert first.pk == second.pk
        second.refresh_from_db()
        assert (second.crontab, str(second.time_zone)) == ("30 6 * * 1-5", "Europe/Berlin")
        assert second.celery_kwargs["expires"] == 24 * 60 * 60

    def test_the_same_call_changes_nothing_that_matters(self):
        first = ensure_schedule("health", name="mine", crontab="0 * * * *")
        last_run = timezone.now()
        ScheduledJob.objects.filter(pk=first.pk).update(last_run_at=last_run, total_run_count=7)
        second = ensure_schedule("health", name="mine", crontab="0  *  * * *")
        assert (second.start_time, second.last_run_at, second.total_run_count) == (first.start_time, last_run, 7)

    def test_the_time_limits_are_those_of_the_job_now(self):
        ensure_schedule("cleanup")
        job = find_job("cleanup")
        job.soft_time_limit_override, job.soft_time_limit = True, 7200
        job.time_limit_override, job.time_limit = True, 0
        job.validated_save()
        limits = ensure_schedule("cleanup").celery_kwargs
        assert (limits["soft_time_limit"], "time_limit" in limits) == (7200, False)

    def test_another_name_makes_another_schedule(self):
        ensure_schedule("health")
        ensure_schedule("health", name="nightly", crontab="0 2 * * *")
        assert ScheduledJob.objects.count() == 2

    def test_a_class_path_serves_any_job(self):
        schedule = ensure_schedule("nautobot.core.jobs.cleanup.LogsCleanup", name="logs", crontab="0 4 * * 0")
        assert schedule.celery_kwargs["expires"] == 7 * 24 * 60 * 60

    def test_the_job_is_enabled_with_its_schedule(self):
        job = find_job("health")
        job.enabled = False
        job.validated_save()
        ensure_schedule("health")
        assert find_job("health").enabled

    def test_a_schedule_made_disabled_does_not_run_and_enables_no_job(self):
        job = find_job("health")
        job.enabled = False
        job.validated_save()
        assert not ensure_schedule("health", enabled=False).enabled
        assert not find_job("health").enabled

    def test_a_disabled_schedule_is_enabled_again(self):
        ensure_schedule("health", enabled=False)
        schedule = ensure_schedule("health")
        assert schedule.enabled
        assert schedule.state == ScheduledJobStateChoices.ACTIVE

    def test_a_schedule_keeps_its_owner_unless_another_is_given(self):
        alice = get_user_model().objects.create(username="alice")
        ensure_schedule("health", user=alice)
        assert ensure_schedule("health").user == alice
        bob = get_user_model().objects.create(username="bob")
        assert ensure_schedule("health", user=bob).user == bob

    def test_variables_are_stored_as_nautobot_stores_them(self):
        server = MCPServer.objects.create(name="one", url="http://one.example.com")
        schedule = ensure_schedule("health", name="one", job_kwargs={"server": server})
        schedule.refresh_from_db()
        assert schedule.kwargs == {"server": str(server.pk)}

    def test_the_shortest_time_between_two_runs_is_the_expiry(self):
        schedule = ensure_schedule("health", crontab="0 8,9 * * *")
        assert schedule.celery_kwargs["expires"] == 60 * 60

    def test_an_approval_workflow_makes_a_new_schedule_pending_and_it_stays_so(self):
        require_approval()
        for _ in range(2):
            schedule = ensure_schedule("health")
            schedule.refresh_from_db()
            assert schedule.state == ScheduledJobStateChoices.PENDING
            assert not schedule.enabled


class RefusalTest(TestCase):
    def assert_refused(self, sentence, *args, **kwargs):
        with pytest.raises(ConfigurationError, match=sentence):
            ensure_schedule(*args, **kwargs)
        assert not ScheduledJob.objects.exists()

    def test_a_crontab_that_cannot_be_run_is_named_with_an_example(self):
        for crontab in (
            "daily",
            "* * * *",
            "* * * * * *",
            "61 * * * *",
            "* 24 * * *",
            "*/0 * * * *",
            "a b c d e",
            "0 0 31 2 *",
            "@daily",
            "-1 * * * *",
            "0 0 0 * *",
            "?",
        ):
            with self.subTest(crontab):
                self.assert_refused(
                    "is not a crontab that Nautobot can run: give five fields", "health", crontab=crontab
                )

    def test_an_unknown_time_zone_is_named(self):
        for zone in ("Mars/Olympus", "../etc/passwd", "x" * 255):
            with self.subTest(zone):
                self.assert_refused("There is no time zone", "health", time_zone=zone)

    def test_an_argument_of_another_type_is_named(self):
        odd = (
            -5,
            2.5,
            b"x",
            [],
            ["x"],
            {"x": 1},
            {1: 2},
            object(),
            "x\0",
            "x" * 300,
            timezone.now() - timedelta(days=1),
        )
        texts, numbers = ("name", "queue", "user"), ("time_limit", "misfire_grace_time")
        times = ("crontab", "interval", "time_zone")
        of_functions = (
            (ensure_schedule, {"job": "health"}, ("job", "job_kwargs", "enabled", *texts, *times, *numbers)),
            (schedule_runs, {"kind": "health"}, ("kind", "options", *texts, *times, *numbers)),
            (schedule_once, {"kind": "health", "at": SOON}, ("kind", "at", "options", *texts, *numbers)),
            (retime_schedule, {"name": "health"}, ("name", *times, "misfire_grace_time")),
            *((function, {}, ("name",)) for function in (pause_schedule, resume_schedule, remove_schedule)),
        )
        ensure_schedule("health")
        for function, usual, names in of_functions:
            for name, value in itertools.product(names, odd):
                with self.subTest(function=function.__name__, name=name, value=value):
                    with pytest.raises(AiOpsError) as refused, transaction.atomic():
                        function(**usual | {name: value})
                    assert "<" not in str(refused.value), "a Python repr"
        assert ScheduledJob.objects.count() == 1

    def test_an_unknown_job_is_named(self):
        for job in ("no.such.Job", "nonsense", "."):
            with self.subTest(job):
                self.assert_refused("has no installed Job", job, name="x", crontab="* * * * *")

    def test_any_other_job_needs_a_name_and_a_crontab(self):
        self.assert_refused("needs a name and a crontab", "nautobot.core.jobs.cleanup.LogsCleanup")

    def test_an_unknown_variable_is_named(self):
        self.assert_refused("bogus: Job data contained an unknown property", "health", job_kwargs={"bogus": 1})

    def test_an_object_that_is_not_there_is_named(self):
        self.assert_refused(
            "does not accept these variables",
            "health",
            job_kwargs={"server": "00000000-0000-0000-0000-000000000000"},
        )
        self.assert_refused("does not accept these variables", "health", job_kwargs={"server": "nonsense"})

    def test_the_name_of_another_jobs_schedule_is_not_taken(self):
        ensure_schedule("nautobot.core.jobs.cleanup.LogsCleanup", name="mine", crontab="0 4 * * *")
        with pytest.raises(ConfigurationError, match="belongs to the Job Logs Cleanup: give another name"):
            ensure_schedule("health", name="mine")


class BeatTest(TestCase):
    """The scheduler that ``nautobot-server celery beat`` runs, on these schedules."""

    def entry_of(self, schedule):
        # Nautobot's own Celery app runs tasks at once in these tests; this one publishes them, in memory.
        app = Celery("beat", broker="memory://", set_as_current=False)
        self.scheduler = NautobotDatabaseScheduler(app=app, lazy=True)
        # What beat does after a run every few minutes, closing the connection that this test is in.
        self.scheduler.should_sync = lambda: False
        return next(entry for entry in self.scheduler.all_as_schedule().values() if entry.model.pk == schedule.pk)

    def test_a_schedule_is_not_due_before_its_time_and_beat_waits_for_its_first(self):
        for zone in ("UTC", "Asia/Tokyo"):
            with self.subTest(zone):
                soon = timezone.now().astimezone(ZoneInfo(zone)) + timedelta(hours=2)
                entry = self.entry_of(
                    ensure_schedule("health", crontab=f"{soon.minute} {soon.hour} * * *", time_zone=zone)
                )
                is_due, seconds = entry.is_due()
                assert not is_due
                assert 0 < seconds <= 2 * 60 * 60

    def test_a_schedule_is_due_when_its_time_has_come(self):
        schedule = ensure_schedule("health")
        ScheduledJob.objects.filter(pk=schedule.pk).update(start_time=schedule.start_time - timedelta(minutes=10))
        assert self.entry_of(schedule).is_due().is_due

    def test_a_missed_night_is_one_run(self):
        schedule = ensure_schedule("cleanup")
        ScheduledJob.objects.filter(pk=schedule.pk).update(last_run_at=timezone.now() - timedelta(days=5))
        entry = self.entry_of(schedule)
        assert entry.is_due().is_due
        assert not next(entry).is_due().is_due

    def test_a_schedule_enabled_again_makes_up_for_nothing(self):
        schedule = ensure_schedule("health", crontab=self.crontab_of_an_hour_ago(), enabled=False)
        a_week_ago = schedule.start_time - timedelta(days=7)
        ScheduledJob.objects.filter(pk=schedule.pk).update(start_time=a_week_ago)
        schedule = ensure_schedule("health", crontab=schedule.crontab)
        assert not self.entry_of(schedule).is_due().is_due

    def crontab_of_an_hour_ago(self):
        passed = timezone.localtime() - timedelta(hours=1)
        return f"{passed.minute} {passed.hour} * * *"

    def test_a_changed_crontab_waits_for_its_own_time(self):
        schedule = ensure_schedule("health", crontab="0 0 1 1 *")
        ScheduledJob.objects.filter(pk=schedule.pk).update(last_run_at=timezone.now() - timedelta(hours=2))
        schedule = ensure_schedule("health", crontab=self.crontab_of_an_hour_ago())
        assert not self.entry_of(schedule).is_due().is_due

    def test_a_run_waits_in_the_queue_no_longer_than_to_the_next_one(self):
        entry = self.entry_of(ensure_schedule("health"))
        with self.scheduler.app.connection_for_write() as connection:
            queue = connection.SimpleQueue(entry.model.queue)
            queue.clear()
            self.scheduler.apply_async(entry, advance=False)
            message = queue.get(block=False)
        waits = datetime.fromisoformat(message.headers["expires"]) - timezone.now()
        assert timedelta(minutes=9) < waits <= timedelta(minutes=10)
        assert message.payload[0] == [HEALTH_JOB]
        # The beat of Nautobot 3.2.0 makes no JobResult: a worker does, for the user that the message names.
        assert str(message.properties["nautobot_job_user_id"]) == str(service_user().pk)


class QueueAndLimitTest(TestCase):
    def test_a_queue_of_its_own_is_where_its_messages_go(self):
        long = JobQueue.objects.create(name="long", queue_type="celery")
        with pytest.raises(ConfigurationError, match='may not use a job queue "long", but default'):
            ensure_schedule("cleanup", queue="long")
        find_job("cleanup").job_queues.add(long)
        schedule = ensure_schedule("cleanup", queue="long")
        assert (schedule.job_queue, schedule.celery_kwargs["queue"]) == (long, "long")
        assert ensure_schedule("cleanup").celery_kwargs["queue"] == "default"

    def test_a_time_limit_of_its_own_wins_over_the_settings_and_the_job(self):
        with override_settings(PLUGINS_CONFIG={"ai_ops": {"time_limits": {"cleanup": 900}}}):
            limits = ensure_schedule("cleanup", time_limit=600).celery_kwargs
            assert (limits["soft_time_limit"], limits["time_limit"], limits["ai_ops_time_limit"]) == (600, 660, 600)
            limits = ensure_schedule("cleanup").celery_kwargs
            assert (limits["soft_time_limit"], "ai_ops_time_limit" in limits) == (900, False)
        with pytest.raises(ConfigurationError, match="time_limit must be a whole number of seconds"):
            ensure_schedule("cleanup", time_limit=1)

    def test_schedules_made_earlier_follow_their_job_and_the_settings(self):
        ensure_schedule("cleanup")
        ensure_schedule("cleanup", name="own", time_limit=600)
        job = find_job("cleanup")
        job.soft_time_limit_override, job.soft_time_limit = True, 7200
        job.validated_save()
        assert self.limit("AI Ops: clean up old checkpoints") == 7200
        assert self.limit("own") == 600
        with override_settings(PLUGINS_CONFIG={"ai_ops": {"time_limits": {"cleanup": 900}}}):
            beat_init.send(sender=None)
        assert self.limit("AI Ops: clean up old checkpoints") == 900

    def test_the_jobs_of_the_app_are_known_by_their_modules(self):
        ours = Job.objects.filter(installed=True, module_name__startswith=APP_JOBS)
        assert {job.class_path for job in ours} == {job.class_path for job in jobs}

    def test_a_job_is_saved_with_unusable_settings_too(self):
        ensure_schedule("cleanup")
        with override_settings(PLUGINS_CONFIG={"ai_ops": {"time_limits": 3}}):
            find_job("cleanup").validated_save()

    def limit(self, name):
        return ScheduledJob.objects.get(name=name).celery_kwargs["soft_time_limit"]


class ControlTest(TestCase):
    def test_a_single_run_is_stored_with_options_alone(self):
        at = timezone.now() + timedelta(hours=1)
        schedule = schedule_once("cleanup", at, options={"retention_days": 7, "trim_live_threads": True})
        schedule.refresh_from_db()
        assert (schedule.one_off, schedule.start_time, schedule.user.username) == (True, at, SERVICE_USER)
        assert schedule.kwargs == {"retention_days": 7, "trim_live_threads": "yes"}
        assert schedule.celery_kwargs["expires"] == 24 * 60 * 60

    def test_a_single_run_that_makes_no_sense_is_refused(self):
        ahead = timezone.now() + timedelta(hours=1)
        for at in (timezone.now() - timedelta(minutes=1), ahead.replace(tzinfo=None), "tomorrow"):
            with pytest.raises(ConfigurationError, match="must be in the future and have a time zone"):
                schedule_once("cleanup", at)
        with pytest.raises(RunOptionsError, match="has no option password"):
            schedule_once("cleanup", ahead, options={"password": "x"})
        schedule_once("cleanup", ahead, name="mine")
        with pytest.raises(ConfigurationError, match='There is a schedule "mine" already'):
            schedule_once("storage", ahead, name="mine")

    def test_a_paused_schedule_resumes_without_making_up_for_what_it_missed(self):
        ensure_schedule("health")
        ScheduledJob.objects.update(start_time=timezone.now() - timedelta(days=1))
        assert not pause_schedule("health").enabled
        schedule = resume_schedule("AI Ops: check MCP servers")
        assert (schedule.enabled, schedule.state) == (True, ScheduledJobStateChoices.ACTIVE)
        assert timezone.now() - schedule.start_time < timedelta(minutes=2)

    def test_what_can_not_be_resumed_says_why(self):
        schedule = schedule_once("storage", timezone.now() + timedelta(hours=1), name="once")
        ScheduledJob.objects.filter(pk=schedule.pk).update(
            start_time=timezone.now() - timedelta(hours=1), enabled=False, state="completed"
        )
        Job.objects.filter(pk=find_job("storage").pk).update(enabled=False)
        with pytest.raises(ConfigurationError, match="missing or disabled"):
            resume_schedule("once")
        Job.objects.filter(pk=find_job("storage").pk).update(enabled=True)
        with pytest.raises(ConfigurationError, match='The time of "once" has passed'):
            resume_schedule("once")
        ScheduledJob.objects.filter(pk=schedule.pk).update(state=ScheduledJobStateChoices.PENDING)
        for act in (pause_schedule, resume_schedule):
            with pytest.raises(ConfigurationError, match="held by an approval workflow"):
                act("once")
        with pytest.raises(ScheduleNotFoundError, match='There is no schedule "none": there are "once"'):
            pause_schedule("none")

    def test_a_removed_schedule_is_gone(self):
        ensure_schedule("health")
        remove_schedule("health")
        assert not ScheduledJob.objects.exists()


class StatusTest(TestCase):
    def setUp(self):
        super().setUp()
        see_workers(default=1)

    def only(self, now=None):
        (row,) = get_schedule_status(now=now)
        return row

    def test_a_new_schedule_waits_for_its_time(self):
        schedule = ensure_schedule("health", time_zone="UTC", queue="default")
        row = self.only()
        assert (row["kind"], row["crontab"], row["standing"], row["queue"]) == (
            "health", "*/10 * * * *", "active", "default",
        )  # fmt: skip
        assert (row["late"], row["why"], row["last_run"], row["last_outcome"]) == (False, None, None, None)
        wait = datetime.fromisoformat(row["next_run"]) - schedule.start_time
        assert timedelta(0) <= wait <= timedelta(minutes=10)

    def test_the_last_run_and_its_outcome_are_told(self):
        schedule = ensure_schedule("health")
        result = JobResult.objects.create(
            name="x", job_model=schedule.job_model, scheduled_job=schedule, status="STARTED"
        )
        assert self.only()["last_outcome"] == "STARTED"
        run = MaintenanceRun.objects.create(
            name="r", kind="health", trigger="schedule", job_result=result, state="failed", error="Redis is down."
        )
        row = self.only()
        assert (row["last_outcome"], row["last_error"], row["last_run_id"]) == ("failed", "Redis is down.", str(run.pk))

    def test_a_schedule_that_beat_does_not_start_is_late(self):
        ensure_schedule("health")
        row = self.only(timezone.now() + timedelta(hours=3))
        assert row["late"]
        assert "did not start: check that Celery beat is running." in row["why"]

    def test_what_no_worker_takes_is_late(self):
        schedule = ensure_schedule("cleanup")
        JobResult.objects.create(name="x", job_model=schedule.job_model, scheduled_job=schedule)
        see_workers()
        assert 'No Celery worker listens to the queue "default"' in self.only()["why"]
        assert not self.only()["late"]
        assert self.only(timezone.now() + timedelta(minutes=6))["late"]

    def test_paused_finished_and_held_ones_are_not_late(self):
        schedule = schedule_once("storage", timezone.now() + timedelta(hours=1))
        much_later = timezone.now() + timedelta(days=1)
        pause_schedule(schedule.name)
        assert (self.only(much_later)["standing"], self.only(much_later)["why"]) == ("paused", "Paused.")
        ScheduledJob.objects.update(start_time=timezone.now() - timedelta(hours=1))
        assert (self.only()["standing"], self.only()["why"], self.only()["late"]) == ("finished", None, False)
        ScheduledJob.objects.update(state=ScheduledJobStateChoices.PENDING)
        assert (self.only()["standing"], self.only()["late"]) == ("held", False)

    def test_a_disabled_job_is_told(self):
        schedule = ensure_schedule("health")
        Job.objects.filter(pk=schedule.job_model.pk).update(enabled=False)
        assert "Its Job is disabled" in self.only()["why"]

    def test_many_schedules_take_as_many_queries_as_one(self):
        ensure_schedule("health")
        with CaptureQueriesContext(connection) as one:
            get_schedule_status()
        for number in range(5):
            ensure_schedule("health", name=str(number), crontab="0 1 * * *")
        with CaptureQueriesContext(connection) as many:
            assert len(get_schedule_status()) == 6
        assert len(many) == len(one)
