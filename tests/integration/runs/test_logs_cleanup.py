"""Nautobot's own Job "Logs Cleanup", which deletes results and changes past Django, beside runs of this app."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.apps import apps
from django.contrib.auth import get_user_model
from django.db import connection, models
from django.db.models.functions import Now
from django.test import TestCase
from django.urls import reverse
from django.utils import timezone
from nautobot.apps.change_logging import web_request_context
from nautobot.apps.testing import run_job_for_testing
from nautobot.core.graphql import execute_query
from nautobot.core.jobs.cleanup import CleanupTypes
from nautobot.extras.choices import JobResultStatusChoices
from nautobot.extras.models import Job, JobLogEntry, JobResult, ObjectChange, ScheduledJob
from nautobot.users.models import Token

from ai_ops.celery_tasks import get_recent_runs
from ai_ops.choices import RunStateChoices
from ai_ops.models import MaintenanceRun, PinnedThread
from ai_ops.runs.approvals import schedule_of
from ai_ops.runs.delivery import enqueue
from ai_ops.runs.queries import summary
from ai_ops.schedules import find_job, service_user
from ai_ops.schedules.status import get_schedule_status
from ai_ops.supervision.history import trim
from ai_ops.supervision.rescue import repair, rescue
from development.services import PROJECT
from tests.fakes.runs import FreeHold, recorded

pytestmark = pytest.mark.django_db

EXTENDING = PROJECT / "docs" / "dev" / "extending.md"
OLD = timedelta(days=5)
OTHERS = "another program's Job"


def old_result(name, user, job=None):
    """A result of five days ago with a line of log, as a worker leaves it."""
    result = JobResult.objects.create(name=name, job_model=job, user=user, task_name=name)
    result.set_status(JobResultStatusChoices.STATUS_SUCCESS)
    result.save()
    JobLogEntry.objects.create(job_result=result, message=f"{name} was here", log_level="info", grouping="run")
    JobResult.objects.filter(pk=result.pk).update(date_created=Now() - OLD, date_done=Now() - OLD)
    return result


def clean_up(user):
    """Run Nautobot's own Job for all that is older than a day."""
    job = Job.objects.get(module_name="nautobot.core.jobs.cleanup", job_class_name="LogsCleanup")
    Job.objects.filter(pk=job.pk).update(enabled=True)
    job.refresh_from_db()
    kinds = [CleanupTypes.JOB_RESULT, CleanupTypes.OBJECT_CHANGE]
    result = run_job_for_testing(job, username=user.username, cleanup_types=kinds, max_age=1)
    assert result.status == JobResultStatusChoices.STATUS_SUCCESS, result.traceback
    return result.result


class AfterCleanupTest(TestCase):
    """Runs in each state whose results Nautobot has deleted, and another Job's result that it has deleted too."""

    @classmethod
    def setUpTestData(cls):
        cls.admin = get_user_model().objects.create_superuser("admin", password="secret")
        old_result(OTHERS, cls.admin)
        cls.runs = {state: cls.make_run(state) for state in RunStateChoices.values()}
        with web_request_context(cls.admin):
            PinnedThread.objects.create(thread_id="user-1-a")
        ObjectChange.objects.update(time=timezone.now() - OLD)
        cls.summary = clean_up(cls.admin)
        for run in cls.runs.values():
            run.refresh_from_db()

    @classmethod
    def make_run(cls, state):
        result = old_result(f"of {state}", cls.admin, find_job("cleanup"))
        attempts = [{"attempt": 1, "state": "failed", "error": "", "job_result": str(result.pk)}]
        fields = {"job_result": result, "owner": cls.admin, "attempts": attempts, "attempt": 2}
        due = {"next_attempt": Now() - timedelta(minutes=1)} if state == RunStateChoices.PENDING else {}
        return recorded(state=state, ago=OLD, **fields, **due)

    def test_logs_cleanup_succeeds_and_takes_old_results_with_their_logs(self):
        assert self.summary["extras.JobResult"] == 1 + len(self.runs)
        assert self.summary["extras.ObjectChange"] >= 1
        connection.check_constraints()
        assert not JobResult.objects.filter(name__startswith="of ").exists()
        assert not JobResult.objects.filter(name=OTHERS).exists()
        assert not JobLogEntry.objects.filter(message__endswith="was here").exists()
        assert MaintenanceRun.objects.count() == len(RunStateChoices.values())

    def test_what_reads_a_run_finds_no_result(self):
        for run in MaintenanceRun.objects.all():
            assert run.job_result is None
        for run in MaintenanceRun.objects.select_related("job_result"):
            assert run.job_result is None
        for run in MaintenanceRun.objects.prefetch_related("job_result"):
            assert run.job_result is None
            run.validated_save()
            assert schedule_of(run) is None
        assert [run["job_result"] for run in get_recent_runs(100)] == [None] * len(self.runs)
        told = [summary(run)["job_result"] for run in MaintenanceRun.objects.select_related("owner")]
        assert told == [None] * len(self.runs)
        get_schedule_status()

    def test_pages_show_a_run_whose_result_is_gone(self):
        self.client.force_login(self.admin)
        for page in [
            reverse("plugins:ai_ops:maintenancerun_list"),
            reverse("plugins:ai_ops:deadletters"),
            reverse("plugins:ai_ops:schedules"),
            *(run.get_absolute_url() for run in self.runs.values()),
        ]:
            assert self.client.get(page).status_code == 200, page

    def test_apis_show_a_run_whose_result_is_gone(self):
        api = {"HTTP_AUTHORIZATION": f"Token {Token.objects.create(user=self.admin).key}"}
        address = reverse("plugins-api:ai_ops-api:maintenancerun-list")
        assert self.client.get(f"{address}?format=csv", **api).status_code == 200
        for depth in (0, 1, 2):
            listed = self.client.get(f"{address}?depth={depth}", **api).json()
            assert [run["job_result"] for run in listed["results"]] == [None] * len(self.runs)
            one = self.client.get(f"{address}{listed['results'][0]['id']}/?depth={depth}", **api)
            assert (one.status_code, one.json()["job_result"]) == (200, None)
        found = execute_query("query { maintenance_runs { name job_result { id } } }", user=self.admin)
        assert found.errors is None
        assert {run["job_result"] for run in found.data["maintenance_runs"]} == {None}

    def test_the_supervisor_deals_with_runs_whose_result_is_gone(self):
        none_alive = lambda ids: frozenset()  # noqa: E731
        pending = self.runs["pending"].pk
        with self.assertLogs() as logs:
            assert rescue(FreeHold(), None, ask=none_alive).fixed == 1
            repair(FreeHold(), ask=none_alive)
            trim(FreeHold())
            MaintenanceRun.objects.filter(pk=pending).update(owner=service_user())
            enqueue(MaintenanceRun.objects.get(pk=pending))
        assert "Traceback" not in "\n".join(logs.output)


def test_the_example_of_the_documentation_makes_a_schedule_whose_runs_succeed(admin):
    old_result(OTHERS, admin)
    long_ago = Now() - timedelta(days=91)
    JobResult.objects.update(date_created=long_ago, date_done=long_ago)
    example, *_ = re.findall(r"^```python\n(.*?)^```", EXTENDING.read_text(), re.DOTALL | re.MULTILINE)
    exec(example, {})
    schedule = ScheduledJob.objects.get(name="Clean up logs")
    assert (schedule.enabled, schedule.job_model.enabled) == (True, True)
    result = run_job_for_testing(schedule.job_model, username=schedule.user.username, **schedule.kwargs)
    assert result.status == JobResultStatusChoices.STATUS_SUCCESS, result.traceback
    assert not JobResult.objects.filter(name=OTHERS).exists()


def deleted_raw(model, found):
    """Models whose rows go with those of `model`, as Logs Cleanup follows them."""
    if model in found:
        return found
    found.add(model)
    for related in model._meta.related_objects:
        if related.on_delete is models.CASCADE:
            deleted_raw(related.related_model, found)
    for field in model._meta.private_fields:
        if hasattr(field, "bulk_related_objects"):
            deleted_raw(field.related_model, found)
    return found


def test_no_table_of_this_app_has_a_constraint_to_one_that_is_deleted_raw():
    raw = {model._meta.db_table for start in (JobResult, ObjectChange) for model in deleted_raw(start, set())}
    assert {"extras_jobresult", "extras_joblogentry", "extras_objectchange", "extras_fileproxy"} <= raw
    tables = [model._meta.db_table for model in apps.get_app_config("ai_ops").get_models(include_auto_created=True)]
    with connection.cursor() as cursor:
        for table in tables:
            for name, constraint in connection.introspection.get_constraints(cursor, table).items():
                target = constraint["foreign_key"]
                assert not target or target[0] not in raw, f"{name} of {table}"


def test_a_result_that_is_there_is_told(admin):
    result = old_result("there", admin)
    recorded(job_result=result)
    assert [run["job_result"] for run in get_recent_runs()] == [str(result.pk)]


def test_deleting_a_result_the_ordinary_way_empties_the_reference(admin):
    run = recorded(job_result=old_result("ordinary", admin))
    JobResult.objects.filter(name="ordinary").delete()
    run.refresh_from_db()
    assert run.job_result_id is None
