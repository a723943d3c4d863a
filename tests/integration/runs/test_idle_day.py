"""A day on which nothing happens, played with the Jobs themselves: what of it is left in Nautobot's database."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.db.models import F, OuterRef, Subquery
from django.utils import timezone
from nautobot.extras.choices import JobResultStatusChoices
from nautobot.extras.models import JobLogEntry, JobResult, Status

from ai_ops.models import MaintenanceRun, MCPServer, MCPServerToolSet
from ai_ops.schedules import find_job
from ai_ops.supervision import history
from tests.fakes.jobs import delete_schedules, enable_jobs
from tests.fakes.mcp_server import FakeMCPServer
from tests.fakes.runs import FreeHold

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "job_logs"])

SERVERS = 50
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
# How often the schedules of a new installation start each Job in a day.
A_DAY = {"cleanup": 1, "storage": 24, "health": 144, "incidents": 288, "supervisor": 1440}
MAX_JOB_RESULTS, MAX_LINES = 250, 1000


def run(kind, user):
    """Run the Job as a worker does."""
    result = JobResult.enqueue_job(find_job(kind), user, synchronous=True, job_kwargs={})
    result.refresh_from_db()
    assert result.status == JobResultStatusChoices.STATUS_SUCCESS, result.traceback
    return result


def copy(of, id_, **changes):
    """The same row with another id, not saved."""
    values = {field.attname: getattr(of, field.attname) for field in of._meta.concrete_fields}
    return type(of)(**values | {"id": id_} | changes)


def play(kind, result, now):
    """Leave what the Job has left as often as it is started in a day, spread over the day that ends now."""
    runs = list(MaintenanceRun.objects.filter(job_result=result))
    lines = list(result.job_log_entries.all())
    results, records, log = [], [], []
    for nth in range(1, A_DAY[kind] + 1):
        at = now - DAY * nth / A_DAY[kind]
        results.append(copy(result, uuid.uuid4(), date_created=at, date_done=at))
        of_result = {"job_result_id": results[-1].pk}
        records += [copy(each, uuid.uuid4(), name=f"{each.name} {nth}", **of_result) for each in runs]
        log += [copy(line, uuid.uuid4(), **of_result) for line in lines]
    JobResult.objects.bulk_create(results)
    JobLogEntry.objects.bulk_create(log)
    MaintenanceRun.objects.bulk_create(records)
    # Django sets the time at which a row was made by itself.
    JobResult.objects.filter(pk__in=[each.pk for each in results]).update(date_created=F("date_done"))
    made = JobResult.objects.filter(pk=OuterRef("job_result_id")).values("date_created")
    MaintenanceRun.objects.filter(pk__in=[each.pk for each in records]).update(created=Subquery(made))
    MaintenanceRun.objects.filter(pk__in=[each.pk for each in runs]).delete()
    result.delete()


def test_a_day_of_fifty_servers_that_are_well_leaves_little(checkpoint_redis, monkeypatch):
    enable_jobs()
    delete_schedules()
    user = get_user_model().objects.create_superuser("beat", password="-")
    healthy = Status.objects.get_for_model(MCPServer).get(name="Healthy")
    with FakeMCPServer().running() as up:
        for number in range(SERVERS):
            MCPServer.objects.create(name=f"server {number:02}", url=up.url, status=healthy)
        # Tools are listed for the first time, and orphans looked for: neither is so each time.
        for kind in ("health", "supervisor"):
            run(kind, user).delete()
        # A twelfth of the servers is due for another list in each run.
        MCPServerToolSet.objects.filter(server__name__lt="server 05").update(asked=timezone.now() - DAY)
        real = {kind: run(kind, user) for kind in A_DAY}
    logged = JobLogEntry.objects.filter(job_result=real["health"]).values_list("message", flat=True)
    assert not [line for line in logged if "server 1" in line]
    now = timezone.now()
    for kind, result in real.items():
        play(kind, result, now)
    assert JobResult.objects.count() == sum(A_DAY.values())
    # As the passes of the supervisor do, each a part, and here a larger one than theirs.
    monkeypatch.setattr(history, "MAX_QUIET_PASSES", history.MAX_RECORDS)
    while history.trim(FreeHold()).fixed:
        pass
    left, lines = JobResult.objects.count(), JobLogEntry.objects.count()
    assert left <= MAX_JOB_RESULTS, left
    assert lines <= MAX_LINES, lines
    assert MaintenanceRun.objects.count() <= MAX_JOB_RESULTS
    kept = {kind: JobResult.objects.filter(job_model=find_job(kind)).count() for kind in A_DAY}
    assert {kind: kept[kind] for kind in ("cleanup", "storage", "health")} == {
        kind: A_DAY[kind] for kind in ("cleanup", "storage", "health")
    }
    assert max(kept["supervisor"], kept["incidents"]) <= 10
