"""The check of one server on demand, by button and by REST."""

import re
import uuid
from datetime import timedelta

from django.test import Client
from django.urls import reverse
from django.utils import timezone
from nautobot.apps.testing import APITestCase, TestCase
from nautobot.extras.models import Job, JobResult, ScheduledJob, Status
from nautobot.users.models import ObjectPermission

from ai_ops.models import MaintenanceRun, MCPServer
from ai_ops.schedules import find_job
from tests.fakes.jobs import require_approval, see_workers
from tests.fakes.users import permit


class CheckTestCase:
    """One server, an enabled Job, and a worker listening."""

    all_that_is_needed = ("ai_ops.view_mcpserver", "extras.run_job", "extras.view_jobresult")

    @classmethod
    def setUpTestData(cls):
        cls.server = MCPServer.objects.create(name="one", url="http://one.example.com")
        cls.job = find_job("health")
        Job.objects.filter(pk=cls.job.pk).update(enabled=True)

    def setUp(self):
        super().setUp()
        see_workers(default=1)

    def make_vulnerable(self):
        self.server.status = Status.objects.get(name="Vulnerable")
        self.server.validated_save()

    def disable_job(self):
        Job.objects.filter(pk=self.job.pk).update(enabled=False)

    def permit_another_job_only(self):
        ObjectPermission.objects.filter(actions__contains=["run"]).delete()
        permit(self.user, Job, actions=["run"], constraints={"name": "Logs Cleanup"})

    def only_run(self):
        run = JobResult.objects.get(job_model=self.job)
        assert run.user == self.user
        return run

    def assert_no_run(self):
        assert not JobResult.objects.filter(job_model=self.job).exists()


class CheckButtonTest(CheckTestCase, TestCase):
    def post(self, **kwargs):
        return self.client.post(reverse("plugins:ai_ops:mcpserver_check", kwargs={"pk": self.server.pk}), **kwargs)

    def page(self):
        return self.client.get(self.server.get_absolute_url()).content.decode()

    def assert_told(self, sentence):
        response = self.post(follow=True)
        self.assertRedirects(response, self.server.get_absolute_url())
        self.assertContains(response, sentence)
        self.assert_no_run()

    def test_it_asks_for_a_check_and_the_servers_page_follows_it(self):
        self.add_permissions(*self.all_that_is_needed)
        response = self.post(follow=True)
        self.assertRedirects(response, self.server.get_absolute_url())
        self.assertContains(response, self.only_run().get_absolute_url())
        self.assertContains(response, "A check of this server is running.")
        MaintenanceRun.objects.update(state="succeeded")
        assert "A check of this server is running" not in self.page()

    def test_what_is_over_or_waits_for_approval_or_was_lost_long_ago_is_not_followed(self):
        self.add_permissions(*self.all_that_is_needed)
        self.post()
        for fields in (
            {"state": "failed"},
            {"state": "pending", "next_attempt": None},
            {"state": "running", "created": timezone.now() - timedelta(hours=1)},
            {"state": "running", "created": timezone.now(), "subject": str(uuid.uuid4())},
        ):
            with self.subTest(fields):
                MaintenanceRun.objects.update(**fields)
                assert "A check of this server is running" not in self.page()

    def test_the_job_runs_for_this_server_alone(self):
        self.add_permissions(*self.all_that_is_needed)
        # No server listens there, so that the server stays what it is: Unhealthy, found out by one probe.
        MCPServer.objects.filter(pk=self.server.pk).update(url="http://127.0.0.1:9")
        with self.captureOnCommitCallbacks(execute=True):
            self.post()
        assert self.only_run().task_kwargs == {"server": str(self.server.pk)}

    def test_who_may_not_see_runs_is_told_and_stays(self):
        self.add_permissions("ai_ops.view_mcpserver", "extras.run_job")
        response = self.post(follow=True)
        self.assertRedirects(response, self.server.get_absolute_url())
        self.assertContains(response, "The check of one has been requested.")
        self.only_run()

    def test_the_page_has_a_button_that_posts_with_a_token(self):
        self.add_permissions(*self.all_that_is_needed)
        page = self.page()
        assert f'action="{self.server.get_absolute_url()}check/"' in page
        assert "csrfmiddlewaretoken" in page
        assert "Check now" in page

    def test_without_the_permission_to_run_the_job_there_is_no_button(self):
        self.add_permissions("ai_ops.view_mcpserver")
        assert "Check now" not in self.page()
        self.assertHttpStatus(self.post(), 403)
        self.assert_no_run()

    def test_the_permission_to_run_another_job_is_not_enough(self):
        self.add_permissions("ai_ops.view_mcpserver")
        self.permit_another_job_only()
        assert "Check now" not in self.page()
        self.assertHttpStatus(self.post(), 403)
        self.assert_no_run()

    def test_a_server_that_the_user_may_not_view_is_not_found(self):
        self.add_permissions("extras.run_job")
        permit(self.user, MCPServer, actions=["view"], constraints={"name": "two"})
        self.assertHttpStatus(self.post(), 404)
        self.assert_no_run()

    def test_a_get_checks_nothing(self):
        self.add_permissions(*self.all_that_is_needed)
        response = self.client.get(reverse("plugins:ai_ops:mcpserver_check", kwargs={"pk": self.server.pk}))
        self.assertRedirects(response, self.server.get_absolute_url())
        self.assert_no_run()

    def test_a_post_checks_only_with_the_token_of_the_page(self):
        self.add_permissions(*self.all_that_is_needed)
        self.client = Client(enforce_csrf_checks=True)
        self.client.force_login(self.user)
        token = re.search('name="csrfmiddlewaretoken" value="(.+?)"', self.page()).group(1)
        self.assertHttpStatus(self.post(), [403, 404])
        self.assert_no_run()
        self.assertHttpStatus(self.post(data={"csrfmiddlewaretoken": token}), 302)
        self.only_run()

    def test_a_stdio_server_is_not_checked_and_the_button_says_why(self):
        self.add_permissions(*self.all_that_is_needed)
        MCPServer.objects.filter(pk=self.server.pk).update(protocol="stdio")
        assert 'title="one is not checked: a STDIO server' in self.page()
        self.assert_told("one is not checked: a STDIO server runs inside the agent")

    def test_a_vulnerable_server_is_not_checked_and_the_button_says_why(self):
        self.add_permissions(*self.all_that_is_needed)
        self.make_vulnerable()
        assert 'title="one is not checked while its status is Vulnerable' in self.page()
        self.assert_told("one is not checked while its status is Vulnerable: give it another status first.")

    def test_a_disabled_job_is_named(self):
        self.add_permissions(*self.all_that_is_needed)
        self.disable_job()
        self.assert_told("is disabled: enable it on its page under Jobs.")

    def test_a_job_that_is_not_installed_is_named(self):
        self.add_permissions(*self.all_that_is_needed)
        Job.objects.filter(pk=self.job.pk).update(installed=False)
        self.assert_told("MCPServerHealthCheckJob is not installed: run nautobot-server post_upgrade.")

    def test_a_renamed_job_is_found_all_the_same(self):
        self.add_permissions(*self.all_that_is_needed)
        Job.objects.filter(pk=self.job.pk).update(name="Look after our servers", name_override=True)
        self.post()
        assert self.only_run().name == "Look after our servers"

    def test_without_a_worker_it_says_so(self):
        self.add_permissions(*self.all_that_is_needed)
        see_workers(another=1)
        self.assert_told("No Celery worker listens to the queue &quot;default&quot;: start a worker")

    def test_where_approval_is_needed_it_waits_for_it(self):
        self.add_permissions(*self.all_that_is_needed)
        require_approval()
        response = self.post(follow=True)
        schedule = ScheduledJob.objects.get(user=self.user)
        assert (schedule.enabled, schedule.kwargs) == (False, {"server": str(self.server.pk)})
        self.assertContains(response, f'The check of one waits for <a href="{schedule.get_absolute_url()}">approval')
        self.assert_no_run()


class CheckRESTTest(CheckTestCase, APITestCase):
    def post(self):
        url = reverse("plugins-api:ai_ops-api:mcpserver-check", kwargs={"pk": self.server.pk})
        return self.client.post(url, format="json", **self.header)

    def assert_refused(self, status, sentence):
        response = self.post()
        self.assertHttpStatus(response, status)
        assert sentence in response.data["detail"]
        self.assert_no_run()

    def test_it_answers_with_the_run(self):
        self.add_permissions(*self.all_that_is_needed)
        response = self.post()
        self.assertHttpStatus(response, 202)
        assert response.data["job_result"]["id"] == str(self.only_run().pk)
        assert response.data["job_result"]["status"]["value"] == "PENDING"

    def test_the_permission_to_add_servers_is_not_needed_nor_enough(self):
        self.add_permissions("ai_ops.add_mcpserver", "extras.run_job")
        self.assertHttpStatus(self.post(), 403)
        self.assert_no_run()

    def test_without_the_permission_to_run_the_job_it_is_forbidden(self):
        self.add_permissions("ai_ops.view_mcpserver")
        self.assert_refused(403, "You may not run the Job")

    def test_the_permission_to_run_another_job_is_not_enough(self):
        self.add_permissions("ai_ops.view_mcpserver")
        self.permit_another_job_only()
        self.assert_refused(403, "You may not run the Job")

    def test_a_token_that_may_only_read_is_refused(self):
        self.add_permissions(*self.all_that_is_needed)
        self.token.write_enabled = False
        self.token.save()
        self.assertHttpStatus(self.post(), 403)
        self.assert_no_run()

    def test_a_vulnerable_server_is_a_conflict(self):
        self.add_permissions(*self.all_that_is_needed)
        self.make_vulnerable()
        self.assert_refused(409, "one is not checked while its status is Vulnerable")

    def test_a_disabled_job_is_a_conflict(self):
        self.add_permissions(*self.all_that_is_needed)
        self.disable_job()
        self.assert_refused(409, "is disabled: enable it")

    def test_without_a_worker_it_is_unavailable(self):
        self.add_permissions(*self.all_that_is_needed)
        see_workers()
        self.assert_refused(503, "No Celery worker listens to the queue")

    def test_where_approval_is_needed_it_answers_with_what_waits_for_it(self):
        self.add_permissions(*self.all_that_is_needed)
        require_approval()
        response = self.post()
        self.assertHttpStatus(response, 202)
        assert response.data["job_result"] is None
        assert response.data["scheduled_job"]["id"] == str(ScheduledJob.objects.get(user=self.user).pk)
        self.assert_no_run()
