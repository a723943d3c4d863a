"""Runs that are asked for: recorded first, sent after, one for each idempotency key."""

from __future__ import annotations

import threading
import uuid
from contextlib import nullcontext
from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.db import connection, transaction
from django.utils import timezone
from nautobot.extras.choices import JobResultStatusChoices, ScheduledJobStateChoices
from nautobot.extras.models import Job, JobResult
from nautobot.users.models import ObjectPermission

from ai_ops.choices import RunStateChoices, RunTriggerChoices
from ai_ops.exceptions import NoWorkerError, RunConflictError, RunNotPermittedError, RunOptionsError, RunRefusedError
from ai_ops.models import MaintenanceRun, MCPServer
from ai_ops.runs.approvals import schedule_of
from ai_ops.runs.context import limited_to
from ai_ops.runs.delivery import REDELIVERY_GRACE, enqueue
from ai_ops.runs.execution import run_as
from ai_ops.runs.options import job_variables
from ai_ops.runs.requests import discard_run, request_run
from ai_ops.schedules import SERVICE_USER, find_job
from tests.fakes.jobs import enable_jobs, require_approval, see_workers
from tests.fakes.runs import recorded
from tests.fakes.users import permit
from tests.locks import wait_for_a_lock

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def enabled_jobs(db):
    enable_jobs()
    see_workers(default=1)


def make_user(name, *, permitted=True):
    user = get_user_model().objects.create(username=name)
    if permitted:
        permit(user, Job, MCPServer, actions=["run", "view"])
    return user


@pytest.fixture
def alice():
    return make_user("alice")


def test_the_record_is_there_before_the_message_and_names_it(alice):
    run = request_run("cleanup", {"retention_days": 7, "keep_last": None}, alice)
    run.refresh_from_db()
    assert (run.kind, run.trigger, run.state, run.owner) == ("cleanup", RunTriggerChoices.REST, "pending", alice)
    assert (run.options, run.attempt, run.max_attempts) == ({"retention_days": 7}, 0, 5)
    assert run.job_result.celery_kwargs["ai_ops_run"] == str(run.pk)
    assert run.job_result.user == alice
    assert run.next_attempt - timezone.now() > REDELIVERY_GRACE / 2


def test_the_job_does_the_run_that_was_asked_for(alice, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        run = request_run("incidents", user=alice)
    run.refresh_from_db()
    assert (run.state, run.attempt, run.next_attempt) == (RunStateChoices.SUCCEEDED, 1, None)
    assert run.counters["total_checked"] == 0
    assert run.job_result.status == JobResultStatusChoices.STATUS_SUCCESS
    assert MaintenanceRun.objects.count() == 1


def test_from_a_shell_it_runs_as_the_service_user():
    assert request_run("storage").owner.username == SERVICE_USER


def test_a_server_is_named_by_its_id(alice):
    server = MCPServer.objects.create(name="one", url="http://one.example.com")
    run = request_run("server", {"server": str(server.pk)}, alice)
    assert (run.subject, run.options) == (str(server.pk), {"server": str(server.pk)})
    assert job_variables(run.kind, run.options) == {"server": str(server.pk)}


def test_options_become_the_variables_of_the_job():
    options = {"retention_days": 7, "trim_live_threads": False, "time_limit": 600}
    assert job_variables("cleanup", options) == {"retention_days": 7, "trim_live_threads": "no"}


@pytest.mark.parametrize(
    ("kind", "options", "sentence"),
    [
        ("laundry", {}, 'There is no kind of run "laundry": give one of cleanup, storage,'),
        ("orphans", {}, "There is no kind of run"),
        ("cleanup", {"password": "x"}, "A run of kind cleanup has no option password: it has dryrun, keep_last,"),
        ("cleanup", ["retention_days"], "The options must be an object"),
        (
            "cleanup",
            {"retention_days": "7"},
            'retention_days must be a number of days from 1/24, which is an hour, to 3650, not "7".',
        ),
        ("cleanup", {"dryrun": "yes"}, "dryrun must be true or false"),
        ("cleanup", {"thread_pattern": {"a": 1}}, "thread_pattern must be a glob"),
        ("cleanup", {"memory_limit_mb": 5}, "set both or neither"),
        ("health", {"shard": "a"}, '"a" is not a shard: omit it'),
        ("health", {"time_limit": 1}, "time_limit must be a whole number of seconds from 10 to 86400, not 1."),
        ("server", {}, "give the id of an MCP server"),
        ("server", {"server": str(uuid.UUID(int=1))}, "There is no MCP server with the id"),
    ],
)
def test_what_can_not_be_asked_for_is_refused_in_a_sentence(alice, kind, options, sentence):
    with pytest.raises(RunOptionsError) as refusal:
        request_run(kind, options, alice)
    assert sentence in str(refusal.value)
    assert not MaintenanceRun.objects.exists()


def test_a_server_that_the_user_may_not_view_is_not_there():
    bob = make_user("bob", permitted=False)
    server = MCPServer.objects.create(name="one", url="http://one.example.com")
    with pytest.raises(RunOptionsError, match="There is no MCP server"):
        request_run("server", {"server": str(server.pk)}, bob)


def test_without_the_permission_to_run_the_job_there_is_no_run():
    with pytest.raises(RunNotPermittedError, match="You may not run the Job"):
        request_run("storage", user=make_user("bob", permitted=False))


def test_a_disabled_job_and_a_missing_worker_are_named(alice):
    see_workers(other=1)
    with pytest.raises(NoWorkerError, match='No Celery worker listens to the queue "default"'):
        request_run("storage", user=alice)
    Job.objects.filter(pk=find_job("storage").pk).update(enabled=False)
    with pytest.raises(RunRefusedError, match="is disabled: enable it"):
        request_run("storage", user=alice)
    assert not MaintenanceRun.objects.exists()


def test_the_same_key_gives_the_same_run(alice):
    first = request_run("storage", {}, alice, idempotency_key="k")
    see_workers()
    assert request_run("storage", None, alice, idempotency_key="k") == first
    see_workers(default=1)
    assert request_run("storage", {}, make_user("bob"), idempotency_key="k") != first
    assert request_run("storage", {}, alice) != first
    assert JobResult.objects.filter(user=alice).count() == 2


def test_the_same_key_with_other_options_is_a_conflict(alice):
    request_run("cleanup", {"retention_days": 7}, alice, idempotency_key="k")
    for kind, options in (("cleanup", {"retention_days": 8}), ("cleanup", {}), ("storage", {})):
        with pytest.raises(RunConflictError, match="another kind or other options"):
            request_run(kind, options, alice, idempotency_key="k")
    assert MaintenanceRun.objects.count() == 1


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "a\nb"])
def test_a_key_is_printable_and_short(alice, key):
    with pytest.raises(RunRefusedError, match="An idempotency key must have"):
        request_run("storage", {}, alice, idempotency_key=key)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("options", [{}, {"time_limit": 600}])
def test_of_two_requests_that_arrive_together_the_constraint_decides(options):
    alice, outcome = make_user("alice"), []

    def ask():
        try:
            outcome.append(request_run("incidents", options, alice, idempotency_key="k").pk)
        except RunConflictError:
            outcome.append(RunConflictError)
        finally:
            connection.close()

    with transaction.atomic():
        # Not committed yet: the other finds nothing under the key, and has to insert.
        first = request_run("incidents", {}, alice, idempotency_key="k")
        other = threading.Thread(target=ask)
        other.start()
        wait_for_a_lock()
    other.join()
    assert outcome == [RunConflictError if options else first.pk]
    assert MaintenanceRun.objects.count() == 1
    assert JobResult.objects.filter(user=alice).count() == 1


def test_where_approval_is_needed_the_run_waits_for_it(alice):
    require_approval()
    run = request_run("cleanup", {"retention_days": 7}, alice)
    run.refresh_from_db()
    schedule = schedule_of(run)
    assert (run.state, run.next_attempt, run.job_result) == (RunStateChoices.PENDING, None, None)
    assert (schedule.enabled, schedule.kwargs, schedule.user) == (False, {"retention_days": 7}, alice)
    assert enqueue(run) is None
    assert not JobResult.objects.exists()


def test_an_approved_run_is_sent_by_its_schedule_and_by_the_supervisor_if_that_is_lost(alice):
    require_approval()
    run = request_run("cleanup", {}, alice)
    schedule = schedule_of(run)
    schedule.state, schedule.enabled = ScheduledJobStateChoices.ACTIVE, True
    schedule.save()
    run.refresh_from_db()
    assert run.next_attempt > timezone.now()
    assert enqueue(run).celery_kwargs["ai_ops_run"] == str(run.pk)


@pytest.mark.parametrize("how", ["denied", "deleted"])
def test_a_run_that_is_not_approved_ends(alice, how):
    require_approval()
    run = request_run("cleanup", {}, alice)
    schedule = schedule_of(run)
    if how == "denied":
        schedule.state = ScheduledJobStateChoices.DENIED
        schedule.save()
    else:
        schedule.delete()
    run.refresh_from_db()
    assert run.state == RunStateChoices.INTERRUPTED
    assert how in run.error


def test_a_message_that_was_lost_is_sent_again_once(alice):
    run = request_run("storage", {}, alice)
    MaintenanceRun.objects.update(next_attempt=timezone.now() - timedelta(minutes=1))
    run.refresh_from_db()
    seen = MaintenanceRun.objects.get()
    first = run.job_result
    assert enqueue(run) not in (None, first)
    assert enqueue(seen) is None
    assert JobResult.objects.filter(user=alice).count() == 2


def test_without_a_worker_no_more_messages_are_piled_up(alice):
    run = request_run("storage", {}, alice)
    due = run.next_attempt
    see_workers()
    assert enqueue(run) is None
    run.refresh_from_db()
    assert (run.state, JobResult.objects.count()) == (RunStateChoices.PENDING, 1)
    assert run.next_attempt > due


def take_permission(user):
    ObjectPermission.objects.filter(users=user).delete()


def deactivate(user):
    get_user_model().objects.filter(pk=user.pk).update(is_active=False)


def delete(user):
    user.delete()


def disable_job(_user):
    Job.objects.filter(pk=find_job("storage").pk).update(enabled=False)


def fail_job(_user):
    JobResult.objects.update(status=JobResultStatusChoices.STATUS_FAILURE)


@pytest.mark.parametrize(
    ("happening", "sentence"),
    [
        (take_permission, "Its owner alice may no longer run the Job"),
        (deactivate, "Its owner alice is inactive"),
        (delete, "Its owner was deleted"),
        (disable_job, "is disabled: enable it"),
        (fail_job, "Its Job failed before the work started"),
    ],
)
def test_what_can_not_be_done_any_more_is_dead_and_says_why(alice, happening, sentence):
    run = request_run("storage", {}, alice)
    happening(alice)
    run = MaintenanceRun.objects.get()
    assert enqueue(run) is None
    run.refresh_from_db()
    assert (run.state, run.next_attempt) == (RunStateChoices.DEAD, None)
    assert sentence in run.error


def test_a_run_of_the_service_user_is_tried_again():
    run = request_run("storage")
    assert enqueue(run) is not None


def test_a_time_limit_goes_with_the_message(alice, settings):
    settings.PLUGINS_CONFIG = {"ai_ops": {"time_limits": {"storage": 120}}}
    configured = request_run("storage", {}, alice).job_result.celery_kwargs
    own = request_run("storage", {"time_limit": 600}, alice).job_result.celery_kwargs
    assert (configured["soft_time_limit"], configured["time_limit"]) == (120, 180)
    assert (own["soft_time_limit"], own["time_limit"]) == (600, 660)


def test_a_run_whose_server_is_gone_ends_by_itself(alice, django_capture_on_commit_callbacks):
    server = MCPServer.objects.create(name="one", url="http://one.example.com")
    with django_capture_on_commit_callbacks(execute=True):
        run = request_run("server", {"server": str(server.pk)}, alice)
        server.delete()
    run.refresh_from_db()
    assert (run.state, run.next_attempt) == (RunStateChoices.FAILED, None)
    assert "The object of this run was deleted" in run.error
    assert run.job_result.status == JobResultStatusChoices.STATUS_FAILURE


def test_a_job_that_fails_before_its_work_ends_the_run(alice, settings, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks() as messages:
        run = request_run("cleanup", {}, alice)
    settings.PLUGINS_CONFIG = {"ai_ops": {"retention_days": 0}}
    messages[-1]()
    run.refresh_from_db()
    assert run.state == RunStateChoices.FAILED
    assert "retention_days must be a number" in run.error


@pytest.mark.parametrize("configured", [True, False])
def test_a_run_from_a_shell_stops_at_its_time_limit(settings, configured):
    if configured:
        settings.PLUGINS_CONFIG = {"ai_ops": {"time_limits": {"cleanup": 10}}}

    def work(hold):
        # What the clock says in ten seconds, or a day, is known by now.
        hold._ends -= 10
        hold.confirm()

    with nullcontext() if configured else limited_to(10):
        report = run_as("cleanup", {}, work, lambda error: {"error": error})
    assert report["run"]["state"] == RunStateChoices.INTERRUPTED
    assert "time limit of 10 s was reached" in report["error"]
    assert run_as("storage", {}, lambda hold: {"error": None}, dict)["run"]["state"] == RunStateChoices.SUCCEEDED


def test_a_run_that_is_discarded_from_a_shell_says_so():
    run = recorded(state=RunStateChoices.DEAD)
    assert discard_run(run).error == "It was discarded by a user of a shell."
    with pytest.raises(RunConflictError, match="was discarded on"):
        discard_run(run)
