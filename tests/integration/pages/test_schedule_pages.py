"""The page of the app's schedules, looked at as a user."""

from datetime import timedelta

from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from nautobot.apps.testing import TestCase, extract_page_body
from nautobot.extras.models import JobResult, ScheduledJob

from ai_ops.choices import RunStateChoices, RunTriggerChoices
from ai_ops.models import MaintenanceRun
from ai_ops.schedules import DEFAULT_SCHEDULES, ensure_schedule
from ai_ops.schedules.control import pause_schedule
from tests.fakes import jobs

NAME = DEFAULT_SCHEDULES["cleanup"].name


class SchedulesTest(TestCase):
    @classmethod
    def setUpTestData(cls):
        ScheduledJob.objects.all().delete()
        cls.schedule = ensure_schedule("cleanup")

    def setUp(self):
        super().setUp()
        self.user.is_superuser = True
        self.user.save()
        self.url = reverse("plugins:ai_ops:schedules")
        # The page asks for workers, and without one waits a second for an answer.
        jobs.see_workers(default=1)

    def page(self):
        response = self.client.get(self.url)
        self.assertHttpStatus(response, 200)
        return extract_page_body(response.content.decode())

    def allow(self, *permissions):
        self.user.is_superuser = False
        self.user.save()
        self.add_permissions(*permissions)

    def test_it_shows_when_a_schedule_runs_and_leads_to_nautobots_own_page(self):
        page = self.page()
        for text in (NAME, self.schedule.get_absolute_url(), "17 3 * * *", "Checkpoint cleanup", "03:17"):
            with self.subTest(text):
                assert text in page

    def test_it_shows_how_the_last_run_ended(self):
        result = JobResult.objects.create(name="the Job", scheduled_job=self.schedule, user=self.user)
        run = MaintenanceRun.objects.create(
            name="the last",
            kind="cleanup",
            trigger=RunTriggerChoices.SCHEDULE,
            state=RunStateChoices.DEAD,
            error="Redis <is> away.",
            job_result=result,
        )
        page = self.page()
        assert f'href="{run.get_absolute_url()}"' in page
        assert ">Dead</span>" in page
        assert "Redis &lt;is&gt; away." in page

    def test_a_schedule_that_beat_has_not_started_is_late_and_says_why(self):
        long_ago = timezone.now() - timedelta(days=3)
        ScheduledJob.objects.filter(pk=self.schedule.pk).update(start_time=long_ago, last_run_at=long_ago)
        page = self.page()
        assert ">Late</span>" in page
        assert "check that Celery beat is running" in page

    def test_those_that_need_the_operator_are_shown_alone_on_request(self):
        ensure_schedule("health")
        pause_schedule("health")
        page = extract_page_body(self.client.get(self.url, {"needs_you": "true"}).content.decode())
        assert DEFAULT_SCHEDULES["health"].name in page
        assert NAME not in page
        assert f'href="{self.url}">show all</a>' in page
        assert "show all" not in self.page()

    def test_it_is_paused_and_resumed(self):
        self.allow("extras.view_scheduledjob", "extras.change_scheduledjob", "extras.run_job")
        for action, enabled, other in (("pause", False, "resume"), ("resume", True, "pause")):
            with self.subTest(action):
                response = self.client.post(self.url, {"action": action, "name": NAME})
                self.assertRedirects(response, self.url)
                assert ScheduledJob.objects.get(name=NAME).enabled == enabled
                assert f'value="{other}"' in self.page()

    def test_who_may_not_run_the_job_can_not_resume_it(self):
        ScheduledJob.objects.filter(pk=self.schedule.pk).update(enabled=False)
        self.allow("extras.view_scheduledjob", "extras.change_scheduledjob")
        assert 'value="resume"' not in self.page()
        self.assertHttpStatus(self.client.post(self.url, {"action": "resume", "name": NAME}), 403)
        assert not ScheduledJob.objects.get(name=NAME).enabled

    def test_the_form_gives_a_schedule_other_times_and_leaves_the_rest(self):
        ensure_schedule("cleanup", job_kwargs={"retention_days": 7}, time_limit=600, time_zone="Europe/Berlin")
        pause_schedule("cleanup")
        form = {"action": "retime", "name": NAME, "crontab": "", "interval": "7200", "misfire_grace_time": "60"}
        self.assertHttpStatus(self.client.post(self.url, form), 302)
        schedule = ScheduledJob.objects.get(name=NAME)
        assert (schedule.crontab, str(schedule.time_zone), schedule.enabled) == ("0 */2 * * *", "Europe/Berlin", False)
        assert (schedule.kwargs, schedule.celery_kwargs["expires"]) == ({"retention_days": 7}, 60)
        assert schedule.celery_kwargs["soft_time_limit"] == 600
        assert schedule.user.username == "ai-ops-scheduler"

    def test_times_that_can_not_be_are_refused_in_a_sentence(self):
        for times, sentence in (
            ({"interval": "90"}, "90 seconds apart can&#x27;t be scheduled"),
            ({"interval": "soon"}, "Enter a whole number."),
            ({"interval": "300", "crontab": "* * * * *"}, "not both"),
            ({"crontab": "soon"}, "is not a crontab that Nautobot can run"),
            ({"time_zone": "Mars/Base"}, "There is no time zone"),
            ({"misfire_grace_time": "1000000"}, "a whole number of seconds from 1 to 86400"),
        ):
            with self.subTest(times):
                response = self.client.post(self.url, {"action": "retime", "name": NAME, **times}, follow=True)
                self.assertContains(response, sentence)

    def test_who_may_only_view_sees_no_buttons_and_can_change_nothing(self):
        self.allow("extras.view_scheduledjob")
        page = self.page()
        assert NAME in page
        assert 'value="pause"' not in page
        self.assertHttpStatus(self.client.post(self.url, {"action": "pause", "name": NAME}), 403)
        assert ScheduledJob.objects.get(name=NAME).enabled

    def test_who_may_change_other_schedules_can_not_change_this_one(self):
        self.allow("extras.view_scheduledjob")
        self.add_permissions("extras.change_scheduledjob", constraints={"name": "another"})
        assert 'value="pause"' not in self.page()
        self.assertHttpStatus(self.client.post(self.url, {"action": "pause", "name": NAME}), 403)
        assert ScheduledJob.objects.get(name=NAME).enabled

    def test_schedules_of_others_are_not_this_pages(self):
        ScheduledJob.objects.filter(pk=self.schedule.pk).update(job_model=None)
        assert NAME not in self.page()
        self.assertHttpStatus(self.client.post(self.url, {"action": "pause", "name": NAME}), 404)

    def test_without_permission_there_is_no_page(self):
        self.allow("ai_ops.view_maintenancerun")
        self.assertHttpStatus(self.client.get(self.url), 403)

    def test_it_takes_no_more_queries_for_more_schedules(self):
        self.page()
        with CaptureQueriesContext(connection) as few:
            self.page()
        for number in range(5):
            ensure_schedule("cleanup", name=f"more {number}", crontab="30 4 * * 0")
        with CaptureQueriesContext(connection) as many:
            self.page()
        assert len(many) <= len(few)
