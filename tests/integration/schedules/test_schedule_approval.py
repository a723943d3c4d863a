"""Approval workflows and changed schedules: what was approved is what runs, whichever way a change comes."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.test import Client, override_settings
from django.urls import reverse
from django.utils import timezone
from nautobot.extras.choices import ApprovalWorkflowStateChoices, ScheduledJobStateChoices
from nautobot.extras.models import (
    ApprovalWorkflow,
    ApprovalWorkflowDefinition,
    Job,
    JobQueue,
    ScheduledJob,
)
from nautobot.users.models import Token

from ai_ops.models import ProvisioningRecord
from ai_ops.provisioning import provision_schedules
from ai_ops.schedules import DEFAULT_SCHEDULES, ensure_schedule, find_job, service_user
from ai_ops.schedules.control import pause_schedule, refresh_time_limits, resume_schedule, schedule_once, schedule_runs
from tests.fakes.jobs import enable_jobs

pytestmark = pytest.mark.django_db

CLEANUP = DEFAULT_SCHEDULES["cleanup"].name
DAILY = "17 3 * * *"


@pytest.fixture(autouse=True)
def jobs_that_may_run(db):
    enable_jobs()


def define_workflow(**constraints):
    return ApprovalWorkflowDefinition.objects.create(
        name=f"schedules {constraints}",
        model_content_type=ContentType.objects.get_for_model(ScheduledJob),
        model_constraints=constraints,
        weight=1,
    )


def decide(schedule, state=ApprovalWorkflowStateChoices.APPROVED):
    """Decide as Nautobot's page of approvals does when the last stage is decided."""
    (workflow,) = ApprovalWorkflow.objects.filter(object_under_review_object_id=schedule.pk)
    ApprovalWorkflow.objects.filter(pk=workflow.pk).update(current_state=state, decision_date=timezone.now())
    workflow.refresh_from_db()
    decided = workflow.object_under_review
    if state == ApprovalWorkflowStateChoices.APPROVED:
        decided.on_workflow_approved(workflow)
    else:
        decided.on_workflow_denied(workflow)


@pytest.fixture
def approved(admin):
    """A harmless schedule that was approved: a dry run each night."""
    define_workflow()
    schedule = schedule_runs("cleanup", {"dryrun": True}, user=admin, crontab=DAILY)
    assert state_of(schedule) == ("pending", False)
    decide(schedule)
    assert state_of(schedule) == ("active", True)
    return schedule


def state_of(schedule):
    return ScheduledJob.objects.values_list("state", "enabled").get(pk=schedule.pk)


def saved(schedule, **changes):
    row = ScheduledJob.objects.get(pk=schedule.pk)
    for name, value in changes.items():
        setattr(row, name, value)
    row.validated_save()


def posted(user, **data):
    token = Token.objects.get_or_create(user=user)[0].key
    answer = Client().post(
        reverse("plugins-api:ai_ops-api:schedule-list"),
        data,
        content_type="application/json",
        HTTP_AUTHORIZATION=f"Token {token}",
    )
    assert answer.status_code == 200, answer.content
    return answer.json()


def another_queue():
    queue = JobQueue.objects.create(name="elsewhere", queue_type="celery")
    find_job("cleanup").job_queues.add(queue)
    return queue


def same(**changes):
    return {"job_kwargs": {"dryrun": True}, "crontab": DAILY} | changes


def without(messages, part):
    return {name: value for name, value in messages.items() if part not in name}


CHANGES = {
    "POST, for real, every minute": lambda s, u: posted(
        u, kind="cleanup", crontab="* * * * *", options={"retention_days": 1}
    ),
    "POST, another variable": lambda s, u: posted(u, kind="cleanup", crontab=DAILY, options={"dryrun": False}),
    "POST, another crontab": lambda s, u: posted(u, kind="cleanup", crontab="* * * * *", options={"dryrun": True}),
    "POST, another time zone": lambda s, u: posted(
        u, kind="cleanup", crontab=DAILY, options={"dryrun": True}, time_zone="Asia/Tokyo"
    ),
    "POST, another limit": lambda s, u: posted(
        u, kind="cleanup", crontab=DAILY, options={"dryrun": True, "time_limit": 86_400}
    ),
    "POST, another queue": lambda s, u: (
        another_queue(),
        posted(u, kind="cleanup", crontab=DAILY, options={"dryrun": True}, queue="elsewhere"),
    ),
    "ensure_schedule, variables": lambda s, u: ensure_schedule("cleanup", **same(job_kwargs={})),
    "ensure_schedule, crontab": lambda s, u: ensure_schedule("cleanup", **same(crontab="18 3 * * *")),
    "ensure_schedule, owner": lambda s, u: ensure_schedule("cleanup", **same(user=service_user())),
    "ensure_schedule, limit": lambda s, u: ensure_schedule("cleanup", **same(time_limit=7200)),
    "ensure_schedule, queue": lambda s, u: (another_queue(), ensure_schedule("cleanup", **same(queue="elsewhere"))),
    "schedule_runs": lambda s, u: schedule_runs("cleanup", {"max_deletions": 10**9}, crontab=DAILY),
    "while paused": lambda s, u: (
        pause_schedule("cleanup"),
        ensure_schedule("cleanup", **same(job_kwargs={}, enabled=False)),
    ),
    "paused, changed, asked for again": lambda s, u: (
        ensure_schedule("cleanup", **same(job_kwargs={}, enabled=False)),
        ensure_schedule("cleanup", **same(job_kwargs={})),
    ),
    "Nautobot's button": lambda s, u: ownership_assumed(s),
    "saved by other code": lambda s, u: saved(s, kwargs={}),
    "saved in part": lambda s, u: partly_saved(s),
    "a soft limit in its messages": lambda s, u: saved(s, celery_kwargs=s.celery_kwargs | {"soft_time_limit": 86_400}),
    "a hard limit in its messages": lambda s, u: saved(s, celery_kwargs=s.celery_kwargs | {"time_limit": 90_000}),
    "no limits in its messages": lambda s, u: saved(s, celery_kwargs=without(s.celery_kwargs, "limit")),
    "another grace": lambda s, u: ensure_schedule("cleanup", **same(misfire_grace_time=60)),
    "its messages never expire": lambda s, u: saved(s, celery_kwargs=without(s.celery_kwargs, "expires")),
    "another name": lambda s, u: saved(s, name="Harmless"),
    "moved to another Job": lambda s, u: saved(
        s, job_model=find_job("health"), task=DEFAULT_SCHEDULES["health"].class_path, kwargs={}
    ),
    "made a single run": lambda s, u: saved(
        s, interval="future", one_off=True, start_time=timezone.now() + timedelta(days=1)
    ),
    "an interval of Nautobot's own": lambda s, u: saved(s, interval="hourly"),
}


def ownership_assumed(schedule):
    """Assume its ownership on Nautobot's own page."""
    boss = get_user_model().objects.create_superuser("boss", password="secret")
    browser = Client()
    browser.force_login(boss)
    address = reverse("extras:scheduledjob_assume_ownership", kwargs={"pk": schedule.pk})
    assert browser.post(address).status_code == 302
    assert ScheduledJob.objects.get(pk=schedule.pk).user == boss


def daily_resumed():
    """One that was made on Nautobot's page a month ago, at another time of day than now."""
    job, start = find_job("incidents"), timezone.now() - timedelta(days=30, hours=5)
    daily = ScheduledJob.create_schedule(
        job, service_user(), name="daily", start_time=start, interval="daily", job_kwargs={}
    )
    decide(daily)
    pause_schedule("daily")
    again = resume_schedule("daily")
    assert (again.state, again.enabled) == ("active", True)
    assert again.to_cron() == daily.to_cron()
    assert again.start_time > timezone.now() - timedelta(days=7)


def limited_by_settings():
    with override_settings(PLUGINS_CONFIG={"ai_ops": {"time_limits": {"cleanup": 1200}}}):
        assert refresh_time_limits() == 1


def partly_saved(schedule):
    row = ScheduledJob.objects.get(pk=schedule.pk)
    row.kwargs = {}
    row.save(update_fields=["kwargs"])


@contextmanager
def undone():
    """Undo what the block has written, so that the next begins with the same approved schedule."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def test_a_change_of_what_was_approved_waits_for_approval_again(approved, admin, subtests):
    for name, change in CHANGES.items():
        with subtests.test(name), undone():
            change(ScheduledJob.objects.get(pk=approved.pk), admin)
            assert state_of(approved) == ("pending", False)
            (workflow,) = ApprovalWorkflow.objects.filter(object_under_review_object_id=approved.pk)
            assert workflow.current_state == ApprovalWorkflowStateChoices.PENDING
            decide(approved)
            assert state_of(approved) == ("active", True)


# Each part of a schedule that decides what runs, when, where and as which user, changed without any other.
DECIDES = {
    "name": lambda s: "Harmless",
    "task": lambda s: DEFAULT_SCHEDULES["health"].class_path,
    "job_model": lambda s: find_job("health"),
    "args": lambda s: ["more"],
    "kwargs": lambda s: {},
    "interval": lambda s: "hourly",
    "crontab": lambda s: "18 3 * * *",
    "time_zone": lambda s: ZoneInfo("Asia/Tokyo"),
    "one_off": lambda s: True,
    "job_queue": lambda s: another_queue(),
    "celery_kwargs": lambda s: s.celery_kwargs | {"queue": "elsewhere"},
    "user": lambda s: service_user(),
}
# The start of a recurrent schedule decides nothing; another test has that of a single run. Nautobot does not use the
# fields of NOT_USED.
DECIDES_NOTHING = {"id", "start_time", "state", "enabled", "description", "decision_date"}
NOTED_BY_BEAT = {"last_run_at", "total_run_count", "date_changed"}
NOT_USED = {"solar", "clocked", "exchange", "routing_key", "headers", "priority", "expires", "expire_seconds"}


def changed_alone(schedule, **changes):
    """Save without Nautobot's checks, of which some refuse a change of one field."""
    row = ScheduledJob.objects.get(pk=schedule.pk)
    for name, value in changes.items():
        setattr(row, name, value)
    row.save()


@pytest.mark.parametrize("field", DECIDES)
def test_a_change_of_one_field_alone_waits_for_approval_again(approved, field):
    changed_alone(approved, **{field: DECIDES[field](ScheduledJob.objects.get(pk=approved.pk))})
    assert state_of(approved) == ("pending", False)


def test_no_field_of_a_schedule_is_forgotten():
    fields = {field.name for field in ScheduledJob._meta.concrete_fields}
    assert fields <= {*DECIDES} | DECIDES_NOTHING | NOTED_BY_BEAT | NOT_USED


@pytest.mark.parametrize("one_off", [True, False])
def test_a_single_run_at_another_time_waits_for_approval_again(approved, one_off):
    changed_alone(approved, interval="future", one_off=one_off, start_time=timezone.now() + timedelta(days=1))
    decide(approved)
    changed_alone(approved, start_time=timezone.now() + timedelta(days=2))
    assert state_of(approved) == ("pending", False)


def test_a_schedule_waits_for_approval_when_it_is_moved_to_or_from_a_job_of_this_app(approved):
    other = ensure_schedule("nautobot.core.jobs.cleanup.LogsCleanup", name="logs", crontab="0 4 * * 0")
    decide(other)
    moved = ScheduledJob.objects.get(pk=approved.pk)
    changed_alone(approved, task=other.task, job_model=other.job_model)
    changed_alone(other, task=moved.task, job_model=moved.job_model)
    assert [state_of(approved), state_of(other)] == [("pending", False)] * 2


def test_what_an_instance_has_but_does_not_save_changes_nothing(approved):
    row = ScheduledJob.objects.get(pk=approved.pk)
    row.kwargs, row.description = {}, "harmless"
    row.save(update_fields=["description"])
    assert state_of(approved) == ("active", True)


HARMLESS = {
    "the same again": lambda s, u: ensure_schedule("cleanup", **same()),
    "the same by POST": lambda s, u: posted(u, kind="cleanup", crontab=DAILY, options={"dryrun": True}),
    "paused and resumed": lambda s, u: (pause_schedule("cleanup"), resume_schedule("cleanup")),
    "a daily one resumed": lambda s, u: daily_resumed(),
    "stopped and started": lambda s, u: (
        ensure_schedule("cleanup", **same(enabled=False)),
        ensure_schedule("cleanup", **same()),
    ),
    "what beat notes": lambda s, u: saved(s, last_run_at=timezone.now(), total_run_count=7),
    "another description": lambda s, u: saved(s, description="harmless"),
    "limits of its Job": lambda s, u: (
        Job.objects.filter(pk=s.job_model_id).update(soft_time_limit=100, time_limit=200),
        refresh_time_limits(),
    ),
    "limits of the settings": lambda s, u: limited_by_settings(),
}


def test_what_changes_nothing_that_was_approved_stays_approved(approved, admin, subtests):
    for name, change in HARMLESS.items():
        with subtests.test(name), undone():
            change(ScheduledJob.objects.get(pk=approved.pk), admin)
            assert state_of(approved) == ("active", True)


def test_the_same_request_leaves_a_denied_schedule_denied_and_a_change_asks_again(admin):
    define_workflow()
    schedule = ensure_schedule("cleanup")
    decide(schedule, ApprovalWorkflowStateChoices.DENIED)
    ensure_schedule("cleanup")
    assert state_of(schedule) == ("denied", False)
    ensure_schedule("cleanup", job_kwargs={"dryrun": True})
    assert state_of(schedule) == ("pending", False)


def test_an_approver_who_looked_at_an_earlier_version_approves_nothing(admin):
    define_workflow()
    schedule = ensure_schedule("cleanup", job_kwargs={"dryrun": True})
    (looked_at,) = ApprovalWorkflow.objects.all()
    ensure_schedule("cleanup")
    assert not ApprovalWorkflow.objects.filter(pk=looked_at.pk).exists()
    assert state_of(schedule) == ("pending", False)


def test_provisioned_schedules_wait_and_change_as_any_other(admin):
    define_workflow()
    ProvisioningRecord.objects.filter(key__startswith="schedule:").delete()
    provision_schedules()
    assert {*ScheduledJob.objects.values_list("state", "enabled", "user__username")} == {
        ("pending", False, "ai-ops-scheduler")
    }
    schedule = ScheduledJob.objects.get(name=CLEANUP)
    decide(schedule)
    posted(admin, kind="cleanup", crontab="* * * * *", options={"retention_days": 1})
    assert state_of(schedule) == ("pending", False)


@pytest.mark.parametrize("make", [
    lambda: ensure_schedule("cleanup", job_kwargs={"dryrun": False, "retention_days": 1}),
    lambda: schedule_once("cleanup", timezone.now() + timedelta(hours=1), options={"retention_days": 1}),
])  # fmt: skip
def test_a_workflow_for_some_variables_alone_sees_the_schedule_as_it_becomes(make):
    define_workflow(kwargs__retention_days=1)
    schedule = make()
    assert schedule.state == ScheduledJobStateChoices.PENDING
    assert ApprovalWorkflow.objects.count() == 1


def test_a_change_that_a_workflow_has_no_say_in_is_active_as_a_new_one_would_be():
    define_workflow(kwargs__retention_days=1)
    schedule = ensure_schedule("cleanup", job_kwargs={"retention_days": 1})
    assert state_of(schedule) == ("pending", False)
    ensure_schedule("cleanup", job_kwargs={"dryrun": True}, enabled=False)
    assert state_of(schedule)[1] is False
    ensure_schedule("cleanup", job_kwargs={"dryrun": True})
    assert state_of(schedule) == ("active", True)


def test_without_a_workflow_a_change_is_active_at_once(admin):
    schedule = ensure_schedule("cleanup", **same())
    ensure_schedule("cleanup", crontab="* * * * *")
    assert state_of(schedule) == ("active", True)
    assert not ApprovalWorkflow.objects.exists()


def test_schedules_of_other_jobs_are_nautobots_matter(admin):
    schedule = ensure_schedule("nautobot.core.jobs.cleanup.LogsCleanup", name="logs", crontab="0 4 * * 0")
    define_workflow()
    saved(schedule, crontab="0 5 * * 0")
    assert state_of(schedule) == ("active", True)
