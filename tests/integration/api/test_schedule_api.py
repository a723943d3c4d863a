"""Schedules in the REST API."""

from __future__ import annotations

from datetime import timedelta

from django.urls import reverse
from django.utils import timezone
from nautobot.extras.models import Job, ScheduledJob

from ai_ops.models import MCPServer
from ai_ops.schedules import SERVICE_USER, ensure_schedule
from tests.fakes.jobs import let_jobs_run
from tests.integration.api.cases import RestTestCase

NAME = "plugins-api:ai_ops-api:schedule"


class ScheduleAPITest(RestTestCase):
    model = ScheduledJob

    def setUp(self):
        super().setUp()
        let_jobs_run()
        self.url = reverse(f"{NAME}-list")

    def ask(self, **data):
        return self.client.post(self.url, data, format="json", **self.header)

    def do(self, schedule, action, method="post"):
        url = reverse(f"{NAME}-{action}", kwargs={"pk": schedule.pk})
        return getattr(self.client, method)(url, format="json", **self.header)

    def test_the_list_tells_how_each_stands(self):
        ensure_schedule("health")
        ensure_schedule("nautobot.core.jobs.cleanup.LogsCleanup", name="logs", crontab="0 4 * * 0")
        assert self.client.get(self.url, **self.header).data["results"] == []
        self.permit("view")
        (row,) = self.client.get(self.url, **self.header).data["results"]
        assert (row["name"], row["kind"], row["standing"], row["late"]) == (
            "AI Ops: check MCP servers", "health", "active", False,
        )  # fmt: skip

    def found(self, **filters):
        return [row["name"] for row in self.client.get(self.url, filters, **self.header).data["results"]]

    def test_the_list_is_filtered_and_comes_in_pages(self):
        for kind in ("health", "cleanup", "storage"):
            ensure_schedule(kind, name=kind)
        ScheduledJob.objects.filter(name="cleanup").update(enabled=False)
        self.permit("view")
        assert self.found(name="health") == self.found(kind="health") == ["health"]
        assert self.found(kind=["health", "storage"]) == self.found(standing="active") == ["health", "storage"]
        assert self.found(enabled="false") == self.found(standing="paused") == self.found(q="CLEAN") == ["cleanup"]
        assert self.found(late="true") == self.found(owner="stranger") == self.found(queue="other") == []
        assert self.found(owner=SERVICE_USER, queue="default", late="false") == ["cleanup", "health", "storage"]
        assert self.found(limit=1, offset=1) == ["health"]
        page = self.client.get(self.url, {"limit": 1}, **self.header).data
        assert (page["count"], page["previous"]) == (3, None)
        assert self.client.get(page["next"], **self.header).data["results"][0]["name"] == "health"
        self.assertHttpStatus(self.client.get(self.url, {"colour": "red"}, **self.header), 400)
        self.assertHttpStatus(self.client.get(self.url, {"standing": "red"}, **self.header), 400)

    def test_what_the_user_may_not_view_is_not_there(self):
        schedule = ensure_schedule("health")
        self.permit("view", name="another")
        self.assertHttpStatus(self.do(schedule, "detail", "get"), 404)
        self.assertHttpStatus(self.do(schedule, "pause"), 404)

    def test_a_schedule_is_made_as_the_user_and_changed(self):
        self.permit("run", Job)
        self.permit("view")
        self.assert_refused(self.ask(kind="cleanup"), 403, "You may not add schedules")
        self.permit("add")
        response = self.ask(kind="cleanup", crontab="0 5 * * *", options={"retention_days": 7, "time_limit": 600})
        self.assertHttpStatus(response, 201)
        assert (response.data["options"], response.data["time_limit"], response.data["owner"]) == (
            {"retention_days": 7}, 600, self.user.username,
        )  # fmt: skip
        self.assert_refused(
            self.ask(kind="cleanup", crontab="0 6 * * *"), 403, "ask for the permission to change scheduled jobs"
        )
        self.permit("change")
        response = self.ask(kind="cleanup", crontab="0 6 * * *", time_zone="Europe/Berlin")
        self.assertHttpStatus(response, 200)
        assert (response.data["crontab"], response.data["time_zone"]) == ("0 6 * * *", "Europe/Berlin")

    def test_a_changed_schedule_keeps_its_owner(self):
        ensure_schedule("health")
        self.permit("run", Job), self.permit("view"), self.permit("change")
        assert self.ask(kind="health", crontab="0 * * * *").data["owner"] == SERVICE_USER

    def test_an_interval_and_how_long_a_run_waits_for_a_worker(self):
        self.permit("run", Job), self.permit("add"), self.permit("view"), self.permit("change")
        response = self.ask(kind="health", interval=300, misfire_grace_time=60)
        self.assertHttpStatus(response, 201)
        assert (response.data["crontab"], response.data["misfire_grace_time"]) == ("*/5 * * * *", 60)
        at = (timezone.now() + timedelta(hours=1)).isoformat()
        response = self.ask(kind="storage", at=at, misfire_grace_time=600, name="once")
        assert (response.data["crontab"], response.data["misfire_grace_time"]) == (None, 600)

    def test_a_single_run_and_one_of_a_server(self):
        server = MCPServer.objects.create(name="one", url="http://one.example.com")
        self.permit("run", Job), self.permit("add"), self.permit("view", MCPServer)
        at = (timezone.now() + timedelta(hours=1)).isoformat()
        response = self.ask(kind="server", at=at, options={"server": str(server.pk)}, name="once")
        self.assertHttpStatus(response, 201)
        assert (response.data["kind"], response.data["crontab"]) == ("server", None)
        assert response.data["options"] == {"server": str(server.pk)}

    def test_what_can_not_be_scheduled_is_refused_in_a_sentence(self):
        self.assert_refused(self.ask(kind="storage"), 403, "You may not run the Job")
        self.permit("run", Job), self.permit("add")
        for data, sentence in (
            ({}, "Send an object with kind"),
            ({"kind": "storage", "user": "admin"}, "Send an object with kind"),
            ({"kind": "laundry"}, "There is no kind of run"),
            ({"kind": "storage", "crontab": "soon"}, "is not a crontab that Nautobot can run"),
            ({"kind": "storage", "crontab": 5}, "crontab must be a text"),
            ({"kind": "storage", "time_zone": "Mars/Base"}, "There is no time zone"),
            ({"kind": "storage", "time_zone": "Europe"}, "There is no time zone"),
            ({"kind": "storage", "time_zone": "ü" * 200}, "There is no time zone"),
            ({"kind": "storage", "queue": "none"}, 'may not use a job queue "none"'),
            ({"kind": "health", "interval": 90}, "Runs 90 seconds apart can't be scheduled"),
            ({"kind": "health", "interval": "300"}, 'a whole number of seconds, not "300"'),
            ({"kind": "health", "interval": 300, "crontab": "* * * * *"}, "not both"),
            ({"kind": "health", "interval": 300, "at": "2030-01-01T00:00:00Z"}, "not both"),
            ({"kind": "health", "interval": 300, "misfire_grace_time": 301}, "from 1 to 300, not 301"),
            ({"kind": "health", "misfire_grace_time": []}, "from 1 to 600, not a list"),
            ({"kind": "storage", "at": "2030-01-01T00:00:00Z", "misfire_grace_time": 0}, "from 1 to 86400, not 0"),
            ({"kind": "storage", "at": "tomorrow"}, "at must be a time such as"),
            ({"kind": "storage", "at": "2020-01-01T00:00:00Z"}, "must be in the future"),
            ({"kind": "storage", "at": "2030-01-01T00:00:00Z", "crontab": "* * * * *"}, "not both"),
            ({"kind": "cleanup", "options": {"token": "x"}}, "has no option token"),
        ):
            with self.subTest(data=data):
                self.assert_refused(self.ask(**data), 400, sentence)
        ensure_schedule("nautobot.core.jobs.cleanup.LogsCleanup", name="logs", crontab="0 4 * * 0")
        self.assert_refused(self.ask(kind="storage", name="logs"), 409, "which does not belong to this app")
        Job.objects.filter(module_name__startswith="ai_ops.").update(enabled=False)
        self.assert_refused(self.ask(kind="storage"), 409, "is disabled: enable it")

    def test_pause_resume_and_removal_have_their_permissions(self):
        schedule = ensure_schedule("health")
        self.permit("view")
        for action in ("pause", "resume"):
            self.assert_refused(
                self.do(schedule, action), 403, f"You may not change {schedule}: ask for the permission"
            )
        self.permit("change")
        assert self.do(schedule, "pause").data["standing"] == "paused"
        self.assert_refused(self.do(schedule, "resume"), 403, "You may not run the Job")
        self.permit("run", Job)
        assert self.do(schedule, "resume").data["standing"] == "active"
        self.assert_refused(self.do(schedule, "detail", "delete"), 403, f"You may not delete {schedule}")
        self.permit("delete")
        self.assertHttpStatus(self.do(schedule, "detail", "delete"), 204)
        assert not ScheduledJob.objects.exists()
