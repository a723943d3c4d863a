"""A large fleet is divided among the workers, and each server is checked once."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone
from nautobot.extras.models import Job, JobQueue, JobResult, Status

from ai_ops.celery_tasks import perform_mcp_health_checks
from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import ConfigurationError
from ai_ops.logic.shards import Shard
from ai_ops.mcp.shards import enqueue_shards
from ai_ops.models import MCPServer, MCPServerCheck, MCPServerHealth, MCPServerIncident
from ai_ops.runs.context import current_request, requested_by
from tests.fakes.jobs import see_workers
from tests.fakes.servers import add_many

pytestmark = pytest.mark.django_db
committed = pytest.mark.django_db(transaction=True, databases=["default", "job_logs"])


@pytest.fixture(autouse=True)
def workers():
    """Let Nautobot find so many workers: it remembers for some seconds what Celery told it."""

    def set_workers(count: int) -> None:
        see_workers(default=count)

    set_workers(2)
    return set_workers


@pytest.fixture(autouse=True)
def shard_size(settings):
    """Set the size of shards; 2 unless a test says otherwise."""

    def set_size(size: object, **others: object) -> None:
        settings.PLUGINS_CONFIG = {
            "ai_ops": {"allow_loopback": True, "health_check_shard_size": size, "provision_schedules": False, **others}
        }

    set_size(2)
    return set_size


def run_of_the_job(parent: JobResult) -> dict:
    """Run the Job for all servers up to the start of its shards, in a run like `parent`."""
    run = JobResult.objects.create(
        name=parent.name, job_model=parent.job_model, user=parent.user, celery_kwargs=parent.celery_kwargs
    )
    with requested_by(replace(current_request(), trigger="job", owner=run.user, job_result=run)):
        return perform_mcp_health_checks()


@pytest.fixture
def parent(job, user):
    """A run of the Job, as a worker has it."""
    return JobResult.objects.create(name=job.name, job_model=job, user=user, celery_kwargs={"queue": "default"})


def enqueued(shards) -> list[str]:
    """The shards as the queued runs have them."""
    return [JobResult.objects.get(pk=shard["job_result"]).task_kwargs["shard"] for shard in shards]


def finish(shards, status: str = "SUCCESS") -> None:
    JobResult.objects.filter(pk__in=[shard["job_result"] for shard in shards]).update(status=status)


@committed
def test_the_job_divides_a_large_fleet_and_each_server_is_checked_once(job, user, up):
    servers = add_many(5, up.url)
    run = JobResult.enqueue_job(job, user, synchronous=True, job_kwargs={})
    run.refresh_from_db()
    assert run.result | {"shards": None, "run": None} == {
        "success": True,
        "checked_count": 0,
        "changed_count": 0,
        "failed_count": 0,
        "worker_count": 0,
        "cache_cleared": False,
        "error": None,
        "errors": [],
        "shards": None,
        "run": None,
    }
    assert [shard["server_count"] for shard in run.result["shards"]] == [1, 2, 2]
    runs = JobResult.objects.filter(job_model=job).exclude(pk=run.pk)
    assert {str(each.pk) for each in runs} == {shard["job_result"] for shard in run.result["shards"]}
    assert {(each.status, each.user) for each in runs} == {("SUCCESS", user)}
    probed = [path for _, path in up.requests if path == "/health"]
    assert sum(each.result["checked_count"] for each in runs) == len(probed) == 5
    assert Counter(MCPServerCheck.objects.values_list("server", flat=True)) == {server.pk: 1 for server in servers}
    assert run.job_log_entries.filter(
        message="5 due server(s) are checked by 3 further run(s) of this Job, one for each shard"
    ).exists()


def test_a_fleet_within_the_size_is_checked_by_the_run_itself(parent, up, shard_size):
    add_many(2, up.url)
    assert run_of_the_job(parent)["checked_count"] == 2
    add_many(1, up.url, name="one more")
    shard_size(0)
    assert run_of_the_job(parent)["checked_count"] == 3


def test_the_function_checks_all_servers_itself_whatever_their_number(up):
    add_many(5, up.url)
    assert perform_mcp_health_checks()["checked_count"] == 5


def test_without_workers_or_on_kubernetes_the_run_checks_all_itself(parent, up, workers):
    add_many(3, up.url)
    workers(0)
    assert run_of_the_job(parent)["checked_count"] == 3
    workers(2)
    JobQueue.objects.filter(name="default").update(queue_type="kubernetes")
    assert run_of_the_job(parent)["checked_count"] == 3
    JobQueue.objects.filter(name="default").update(queue_type="celery")
    assert len(run_of_the_job(parent)["shards"]) == 2


def test_a_second_run_leaves_what_is_queued_or_running_to_those_who_have_it(parent, up):
    add_many(4, up.url)
    first = run_of_the_job(parent)["shards"]
    assert run_of_the_job(parent)["shards"] == []
    JobResult.objects.filter(pk=first[0]["job_result"]).update(status="STARTED", date_started=timezone.now())
    assert run_of_the_job(parent)["shards"] == []
    finish(first[:1])
    again = run_of_the_job(parent)["shards"]
    assert [shard["server_count"] for shard in again] == [2]
    assert enqueued(again)[0].rpartition("/")[0] == enqueued(first)[0].rpartition("/")[0]


def test_shards_of_dead_workers_and_lost_queues_are_taken_over(parent, up):
    add_many(4, up.url)
    killed, lost = run_of_the_job(parent)["shards"]
    JobResult.objects.filter(pk=killed["job_result"]).update(
        status="STARTED", date_started=timezone.now() - timedelta(seconds=1861)
    )
    JobResult.objects.filter(pk=lost["job_result"]).update(date_created=timezone.now() - timedelta(seconds=3601))
    assert [shard["server_count"] for shard in run_of_the_job(parent)["shards"]] == [2, 2]


def test_a_queued_shard_expires_when_others_no_longer_count_on_it(parent, up):
    add_many(3, up.url)
    (run, _) = run_of_the_job(parent)["shards"]
    kwargs = JobResult.objects.get(pk=run["job_result"]).celery_kwargs
    assert (kwargs["expires"], kwargs["queue"]) == (3600, "default")


@committed
def test_two_runs_that_divide_at_the_same_time_give_no_server_to_two_shards(job, parent, up):
    servers = add_many(8, up.url)
    queue, found, at_once = JobQueue.objects.get(name="default"), [], threading.Barrier(2)
    # What is enqueued stays queued: there is a job, and no user enabled it.
    Job.objects.filter(pk=job.pk).update(enabled=False)

    def divide():
        at_once.wait()
        found.append(enqueue_shards(parent, queue, 2, timezone.now()))
        connection.close()

    threads = [threading.Thread(target=divide) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shards = [Shard.parse(run.task_kwargs["shard"]) for run in JobResult.objects.filter(task_kwargs__has_key="shard")]
    for server in servers:
        assert sum(shard.first <= server.pk <= shard.last for shard in shards) == 1
    assert sorted(map(len, found)) == [0, 4]


def test_a_shard_leaves_out_who_was_checked_since_and_who_is_no_longer_due(parent, up):
    servers = sorted(add_many(4, up.url), key=lambda server: server.pk)
    (shard,) = enqueue_shards(parent, JobQueue.objects.get(name="default"), 10, timezone.now())
    checked, vulnerable, waits, left = servers
    MCPServerHealth.objects.create(server=checked, checked=timezone.now())
    MCPServer.objects.filter(pk=vulnerable.pk).update(status=Status.objects.get(name="Vulnerable"))
    MCPServerHealth.objects.create(
        server=waits,
        checked=timezone.now() - timedelta(hours=1),
        retry_at=timezone.now() + timedelta(hours=1),
    )
    (text,) = enqueued([shard])
    assert perform_mcp_health_checks(shard=text)["checked_count"] == 1
    assert list(MCPServerCheck.objects.values_list("server", flat=True)) == [left.pk]
    assert perform_mcp_health_checks(shard=text)["checked_count"] == 0, "delivered twice"


def test_what_fails_in_all_shards_is_one_incident(parent, up):
    up.health_status = 500
    add_many(8, up.url)
    texts = enqueued(enqueue_shards(parent, JobQueue.objects.get(name="default"), 4, timezone.now()))
    for text, name in zip(texts, ("4 servers: HTTP", "8 servers: HTTP"), strict=True):
        assert perform_mcp_health_checks(shard=text)["changed_count"] == 4
        assert MCPServerIncident.objects.get().name == name
    assert MCPServerIncident.objects.get().servers.count() == 8


def test_an_outage_of_another_run_is_another_incident(parent, up):
    up.health_status = 500
    add_many(4, up.url)
    assert perform_mcp_health_checks()["changed_count"] == 4
    add_many(4, up.url, name="later")
    for text in enqueued(enqueue_shards(parent, JobQueue.objects.get(name="default"), 10, timezone.now())):
        perform_mcp_health_checks(shard=text)
    assert sorted(MCPServerIncident.objects.values_list("name", flat=True)) == ["4 servers: HTTP"] * 2


def test_the_guard_looks_at_each_shard_and_there_is_one_alert(parent, shard_size):
    closed = "http://127.0.0.1:1"
    shard_size(3, mass_failure_percent=50, control_url=closed)
    add_many(6, closed)
    for text in enqueued(run_of_the_job(parent)["shards"]):
        result = perform_mcp_health_checks(shard=text)
        assert "INCONCLUSIVE: 3 of 3 Healthy servers newly fail" in result["error"]
    assert MCPServerIncident.objects.get().kind == "inconclusive"
    assert set(MCPServer.objects.values_list("status__name", flat=True)) == {"Healthy"}


@pytest.mark.parametrize("size", [-1, True, "1000", 1.5, 1_000_001])
def test_a_size_that_no_shard_can_have_is_refused(parent, shard_size, size):
    shard_size(size)
    with pytest.raises(ConfigurationError, match="health_check_shard_size must be a whole number from 1 to 1000000"):
        AiOpsSettings.load()
    assert "health_check_shard_size must be" in run_of_the_job(parent)["error"]


def test_what_is_no_shard_is_refused_in_a_sentence(up):
    add_many(1, up.url)
    result = perform_mcp_health_checks(shard="1/4")
    assert (result["success"], result["error"]) == (
        False,
        '"1/4" is not a shard. Omit it to check all servers.',
    )
    assert up.requests == []
