"""Tests that commit what they write leave the database to the next test as they found it."""

from __future__ import annotations

import pytest
from django.db import connections
from nautobot.extras.models import Job, ScheduledJob, Status

from ai_ops.models import MCPServer

seen = []


@pytest.mark.django_db(transaction=True, databases=["default", "job_logs"])
@pytest.mark.parametrize("nth", range(2))
def test_what_one_test_commits_the_next_does_not_find(nth):
    rows = [sorted(model.objects.values_list()) for model in (Status, ScheduledJob, MCPServer)]
    seen.append((rows, Job.objects.filter(enabled=True).count()))
    assert seen[nth] == seen[0]
    # Added, changed and deleted, also on another connection, which is in the middle of something.
    MCPServer.objects.create(name="one", url="http://one.example.com")
    Status.objects.filter(name="Healthy").update(name="Well")
    ScheduledJob.objects.all().delete()
    other = connections.create_connection("default")
    with other.cursor() as cursor:
        cursor.execute("UPDATE extras_job SET enabled = NOT enabled")
        cursor.execute("BEGIN; LOCK TABLE extras_status")
