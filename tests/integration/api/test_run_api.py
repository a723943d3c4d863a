"""Maintenance runs in the REST API."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_user_model
from django.urls import include, path, reverse
from drf_spectacular.generators import SchemaGenerator
from nautobot.core.graphql import execute_query
from nautobot.extras.models import Job, JobResult, ScheduledJob
from nautobot.users.models import ObjectPermission

from ai_ops.celery_tasks import get_recent_runs
from ai_ops.choices import RunStateChoices
from ai_ops.models import MaintenanceRun
from ai_ops.schedules import find_job
from tests.fakes.jobs import enable_jobs, require_approval, see_workers
from tests.integration.api.cases import RestTestCase

NAME = "plugins-api:ai_ops-api:maintenancerun"


class RunAPITestCase(RestTestCase):
    model = MaintenanceRun

    @classmethod
    def setUpTestData(cls):
        enable_jobs()
        cls.bob = get_user_model().objects.create(username="bob")

    def setUp(self):
        super().setUp()
        see_workers(default=1)
        self.url = reverse(f"{NAME}-list")

    def ask(self, data, key=None):
        headers = {"HTTP_IDEMPOTENCY_KEY": key} if key else {}
        return self.client.post(self.url, data, format="json", **self.header, **headers)

    def do(self, run, action):
        return self.client.post(reverse(f"{NAME}-{action}", kwargs={"pk": run.pk}), format="json", **self.header)

    def get(self, run):
        return self.client.get(reverse(f"{NAME}-detail", kwargs={"pk": run.pk}), **self.header)

    def make(self, name, owner=None, **fields):
        return MaintenanceRun.objects.create(name=name, kind="storage", trigger="rest", owner=owner, **fields)


class AskTest(RunAPITestCase):
    def setUp(self):
        super().setUp()
        self.add_permissions("extras.run_job")

    def test_it_answers_with_the_run_and_where_to_watch_it(self):
        response = self.ask({"kind": "cleanup", "options": {"retention_days": 7}})
        self.assertHttpStatus(response, 202)
        run = MaintenanceRun.objects.get()
        assert response["Location"] == response.data["url"]
        assert response["Location"].endswith(reverse(f"{NAME}-detail", kwargs={"pk": run.pk}))
        assert response.data["name"] == run.name
        assert response.data["state"] == "pending"
        assert (run.owner, run.options, run.trigger) == (self.user, {"retention_days": 7}, "rest")

    def test_status_progress_and_result_are_at_that_address(self):
        with self.captureOnCommitCallbacks(execute=True):
            location = self.ask({"kind": "incidents"})["Location"]
        data = self.client.get(location, **self.header).data
        assert data["state"] == "succeeded"
        assert data["counters"]["total_checked"] == 0
        assert (data["error"], data["attempt"], data["attempts"], data["progress"]) == ("", 1, [], "")
        assert data["job_result"]["id"] == JobResult.objects.get(user=self.user).pk

    def test_the_same_key_gives_the_same_run(self):
        first = self.ask({"kind": "storage"}, key="4711")
        second = self.ask({"kind": "storage", "options": {}}, key="4711")
        self.assertHttpStatus(second, 202)
        assert first.data["id"] == second.data["id"]
        assert MaintenanceRun.objects.count() == 1

    def test_the_same_key_with_other_options_is_a_conflict(self):
        self.ask({"kind": "cleanup"}, key="4711")
        response = self.ask({"kind": "cleanup", "options": {"retention_days": 7}}, key="4711")
        self.assert_refused(response, 409, "another kind or other options: give a new key.")

    def test_what_can_not_be_read_is_refused_in_a_sentence(self):
        for data, sentence in (
            ([], "Send an object with a"),
            ({}, "Send an object with a"),
            ({"kind": "storage", "user": "bob"}, "Send an object with a"),
            ({"kind": ["storage"]}, "There is no kind of run that is a list"),
            ({"kind": "laundry"}, 'There is no kind of run "laundry": give one of cleanup'),
            ({"kind": "cleanup", "options": [1]}, "The options must be an object"),
            ({"kind": "cleanup", "options": {"redis_password": "x"}}, "has no option redis_password"),
            ({"kind": "cleanup", "options": {"retention_days": 0}}, "to 3650, not 0."),
            ({"kind": "cleanup", "options": {"thread_pattern": "a\x00"}}, "thread_pattern"),
        ):
            with self.subTest(data=data):
                self.assert_refused(self.ask(data), 400, sentence)
        self.assert_refused(self.ask({"kind": "storage"}, key="x" * 300), 400, "An idempotency key must have")
        assert not MaintenanceRun.objects.exists()

    def test_a_token_that_may_only_read_asks_for_nothing(self):
        self.token.write_enabled = False
        self.token.save()
        self.assertHttpStatus(self.ask({"kind": "storage"}), 403)

    def test_without_a_worker_or_with_a_disabled_job_it_says_so(self):
        see_workers()
        self.assert_refused(self.ask({"kind": "storage"}), 503, "No Celery worker listens to the queue")
        Job.objects.filter(pk=find_job("storage").pk).update(enabled=False)
        self.assert_refused(self.ask({"kind": "storage"}), 409, "is disabled: enable it")

    def test_where_approval_is_needed_the_run_waits(self):
        require_approval()
        response = self.ask({"kind": "storage"})
        self.assertHttpStatus(response, 202)
        assert (response.data["state"], response.data["job_result"]) == ("pending", None)
        assert not ScheduledJob.objects.get(user=self.user).enabled


class AskWithoutPermissionTest(RunAPITestCase):
    def test_the_permission_to_run_the_job_is_needed(self):
        self.assert_refused(self.ask({"kind": "storage"}), 403, "You may not run the Job")

    def test_a_request_without_a_token_is_refused(self):
        self.assertHttpStatus(self.client.post(self.url, {"kind": "storage"}, format="json"), [401, 403])


class WatchTest(RunAPITestCase):
    def names(self):
        response = self.client.get(self.url, **self.header)
        self.assertHttpStatus(response, 200)
        return [each["name"] for each in response.data["results"]]

    def test_owners_see_their_own_runs_and_others_are_not_there(self):
        own, other = self.make("own", self.user), self.make("other", self.bob)
        assert self.names() == ["own"]
        self.assertHttpStatus(self.get(own), 200)
        self.assertHttpStatus(self.get(other), 404)

    def test_who_may_view_all_sees_all_newest_first(self):
        self.make("own", self.user), self.make("other", self.bob)
        self.permit("view")
        assert self.names() == ["other", "own"]

    def test_a_constraint_on_viewing_is_respected(self):
        self.make("own", self.user), self.make("other", self.bob), self.make("third", self.bob)
        self.permit("view", name="third")
        assert self.names() == ["third", "own"]

    def test_a_query_for_others_by_filter_finds_nothing(self):
        self.make("other", self.bob)
        response = self.client.get(f"{self.url}?owner=bob", **self.header)
        assert response.data["results"] == []

    def test_no_run_is_made_or_changed_by_hand(self):
        run = self.make("own", self.user)
        for method in ("put", "patch", "delete"):
            url = reverse(f"{NAME}-detail", kwargs={"pk": run.pk})
            self.assertHttpStatus(getattr(self.client, method)(url, {}, format="json", **self.header), 405)


class ActTest(RunAPITestCase):
    def setUp(self):
        super().setUp()
        self.add_permissions("extras.run_job")

    def test_an_owner_may_cancel_a_pending_run(self):
        run = self.make("own", self.user)
        response = self.do(run, "cancel")
        self.assertHttpStatus(response, 202)
        assert response.data["state"] == "interrupted"
        assert response.data["error"] == f"The run was cancelled by {self.user}."
        self.assert_refused(self.do(run, "cancel"), 409, "own is interrupted already, so there is nothing to cancel.")

    def test_a_running_run_is_told_to_stop(self):
        run = self.make("own", self.user, state=RunStateChoices.RUNNING)
        data = self.do(run, "cancel").data
        assert (data["state"], data["cancel_requested"]) == ("running", True)

    def test_others_need_the_permission_to_cancel(self):
        run = self.make("other", self.bob)
        self.assertHttpStatus(self.do(run, "cancel"), 404)
        self.permit("view")
        self.assert_refused(self.do(run, "cancel"), 403, "You may not cancel other")
        self.permit("cancel")
        self.assertHttpStatus(self.do(run, "cancel"), 202)

    def test_redrive_makes_a_child_and_only_one(self):
        dead = self.make("own", self.user, state=RunStateChoices.DEAD, options={"time_limit": 60})
        self.assert_refused(self.do(dead, "redrive"), 403, "You may not redrive own")
        self.permit("redrive")
        response = self.do(dead, "redrive")
        self.assertHttpStatus(response, 202)
        child = MaintenanceRun.objects.get(parent=dead)
        assert response["Location"].endswith(f"{child.pk}/")
        assert (child.trigger, child.options, child.owner) == ("redrive", {"time_limit": 60}, self.user)
        self.permit("discard")
        for state in (RunStateChoices.PENDING, RunStateChoices.SUCCEEDED, RunStateChoices.DEAD):
            MaintenanceRun.objects.filter(pk=child.pk).update(state=state)
            for action in ("redrive", "discard"):
                with self.subTest(state=state, action=action):
                    sentence = f"own was already redriven: see {child}, which is {state}."
                    self.assert_refused(self.do(dead, action), 409, sentence)
        self.assertHttpStatus(self.do(child, "redrive"), 202)

    def test_only_what_is_dead_is_redriven_or_discarded(self):
        run = self.make("own", self.user, state=RunStateChoices.SUCCEEDED)
        self.permit("redrive")
        self.permit("discard")
        for action in ("redrive", "discard"):
            self.assert_refused(self.do(run, action), 409, "own is succeeded: only a dead run can be")

    def test_a_discarded_run_stays_dead(self):
        dead = self.make("own", self.bob, state=RunStateChoices.DEAD, error="Redis is away. It was tried 5 times.")
        self.permit("view")
        self.assert_refused(self.do(dead, "discard"), 403, "You may not discard own")
        self.permit("discard")
        response = self.do(dead, "discard")
        self.assertHttpStatus(response, 200)
        assert response.data["state"] == "dead"
        assert response.data["discarded"] is not None
        said = f"Redis is away. It was tried 5 times. It was discarded by {self.user}."
        assert response.data["error"] == self.get(dead).data["error"] == said
        self.assert_refused(self.do(dead, "discard"), 409, "own was discarded on")
        self.permit("redrive")
        self.assert_refused(self.do(dead, "redrive"), 409, "own was discarded on")

    def test_a_redrive_needs_the_permission_to_run_the_job(self):
        dead = self.make("own", self.user, state=RunStateChoices.DEAD)
        ObjectPermission.objects.filter(users=self.user).delete()
        self.permit("redrive")
        self.assert_refused(self.do(dead, "redrive"), 403, "You may not run the Job")


class ReadElsewhereTest(RunAPITestCase):
    def test_recent_runs_from_a_shell_are_newest_first(self):
        for number in range(12):
            self.make(f"run {number}", self.bob if number % 2 else None, counters={"n": number})
        recent = get_recent_runs()
        assert [each["name"] for each in recent] == [f"run {number}" for number in range(11, 1, -1)]
        assert recent[0]["owner"] == "bob"
        assert (recent[1]["owner"], recent[1]["counters"], recent[1]["error"]) == (None, {"n": 10}, None)
        assert len(get_recent_runs(limit=3)) == 3
        for limit in (0, "10", True, 1001):
            with pytest.raises(ValueError, match="limit must be a whole number from 1 to 1000"):
                get_recent_runs(limit)

    def test_graphql_reads_what_the_user_may_view(self):
        self.make("own", self.user), self.make("third", self.bob)
        query = "{ maintenance_runs { name kind state counters owner { username } } }"
        assert execute_query(query, user=self.user).data == {"maintenance_runs": []}
        self.permit("view", name="third")
        result = execute_query(query, user=get_user_model().objects.get(pk=self.user.pk))
        assert [(each["name"], each["state"]) for each in result.data["maintenance_runs"]] == [("third", "PENDING")]


class SchemaTest(RunAPITestCase):
    def test_the_api_describes_what_it_takes_and_answers(self):
        patterns = [path("api/plugins/ai-ops/", include("ai_ops.api.urls"))]
        schema = SchemaGenerator(patterns=patterns).get_schema(request=None, public=True)
        asked = schema["paths"]["/plugins/ai-ops/runs/"]["post"]
        (body,) = {each["schema"]["$ref"] for each in asked["requestBody"]["content"].values()}
        assert set(schema["components"]["schemas"][body.rpartition("/")[2]]["properties"]) == {"kind", "options"}
        assert "Idempotency-Key" in {each["name"] for each in asked["parameters"]}
        assert "202" in asked["responses"]
        for action in ("cancel", "redrive", "discard"):
            assert "requestBody" not in schema["paths"][f"/plugins/ai-ops/runs/{{id}}/{action}/"]["post"]
        listed = schema["paths"]["/plugins/ai-ops/schedules/"]
        assert {"200", "201", "409"} <= set(listed["post"]["responses"])
        assert listed["get"]["responses"]["200"]["content"]["application/json"]["schema"]["type"] == "array"
