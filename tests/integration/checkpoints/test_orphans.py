"""Keys of checkpoints that are gone are collected between cleanups, from a real Redis; nothing else is."""

from __future__ import annotations

import html
import re
from datetime import timedelta

import pytest
from django.db.models.functions import Now

from ai_ops.checkpoints import orphans
from ai_ops.choices import MaintenanceKindChoices, RunStateChoices, RunTriggerChoices
from ai_ops.models import MaintenanceRun
from ai_ops.runs import lease as leases
from ai_ops.runs.findings import Findings
from tests.fakes.conversations import days_ago, old_id, on
from tests.fakes.runs import FreeHold, recorded

pytestmark = pytest.mark.django_db


def names(client):
    return {key.decode() for key in client.scan_iter(count=1000)}


def test_what_belongs_to_a_checkpoint_that_is_gone_goes_and_the_rest_stays(app, checkpoint_redis):
    with days_ago(400):
        app.invoke({"said": ["hello"]}, on("old"))
    app.invoke({"said": ["hello"]}, on("young"))
    whole = names(checkpoint_redis)
    with days_ago(1):
        app.invoke({"said": ["hello"]}, on("broken"))
    documents = [key for key in names(checkpoint_redis) if key.startswith("checkpoint:broken:")]
    checkpoint_redis.delete(*documents)
    left_over = names(checkpoint_redis) - whole
    assert left_over

    found = orphans.collect(FreeHold())

    assert names(checkpoint_redis) == whole
    assert (found.fixed, found.unfixable) == (len(left_over), 0)
    assert found.checked >= len(whole) + len(left_over)
    run = MaintenanceRun.objects.get(kind=MaintenanceKindChoices.ORPHANS)
    assert (run.state, run.counters["fixed"]) == (RunStateChoices.SUCCEEDED, len(left_over))


def test_what_has_no_readable_age_or_is_too_young_stays(app, checkpoint_redis):
    undated = "checkpoint_blob:gone:__empty__:messages:00000000000000000000000000000001.0.5"
    checkpoint_redis.set(undated, "{}")
    checkpoint_redis.json().set(f"checkpoint_write:gone:__empty__:{old_id(0)}:task:0", "$", {})
    before = names(checkpoint_redis)
    found = orphans.collect(FreeHold())
    assert names(checkpoint_redis) == before
    assert (found.fixed, found.unfixable) == (0, 1)


def test_once_an_hour_is_enough(app):
    orphans.collect(FreeHold())
    assert orphans.collect(FreeHold()) == Findings()
    assert MaintenanceRun.objects.filter(kind=MaintenanceKindChoices.ORPHANS).count() == 1
    MaintenanceRun.objects.update(created=Now() - timedelta(minutes=61))
    orphans.collect(FreeHold())
    assert MaintenanceRun.objects.filter(kind=MaintenanceKindChoices.ORPHANS).count() == 2


def test_it_keeps_out_of_the_way_of_a_cleanup(app, checkpoint_redis, caplog):
    caplog.set_level("INFO")
    write = f"checkpoint_write:gone:__empty__:{old_id(1)}:task:0"
    checkpoint_redis.json().set(write, "$", {})
    cleanup = recorded("cleanup", RunTriggerChoices.JOB, state=RunStateChoices.RUNNING)
    leases.acquire("cleanup", "another host", cleanup.pk, 60)
    assert orphans.collect(FreeHold()) == Findings()
    assert checkpoint_redis.exists(write)
    assert f'Skipped: The lease "cleanup" is held by {cleanup} (another host)' in caplog.text
    assert MaintenanceRun.objects.get(kind=MaintenanceKindChoices.ORPHANS).state == RunStateChoices.SKIPPED


def test_a_redis_that_can_not_be_listed_is_one_thing_that_is_wrong(app, monkeypatch, redis_retries, caplog):
    redis_retries(0.01)
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", "redis://:wrong@127.0.0.1:1/0")
    assert orphans.collect(FreeHold()) == Findings(0, 0, 1)
    assert "Orphaned keys were not collected: The checkpoint Redis can't be reached" in caplog.text
    assert MaintenanceRun.objects.get().state == RunStateChoices.FAILED


def test_one_pass_deletes_so_many_and_the_next_goes_on(app, checkpoint_redis, monkeypatch):
    monkeypatch.setattr(orphans, "MAX_DELETIONS", 3)
    for number in range(5):
        checkpoint_redis.json().set(f"checkpoint_write:gone-{number}:__empty__:{old_id(1)}:task:0", "$", {})
    assert orphans.collect(FreeHold()).fixed == 3
    MaintenanceRun.objects.update(created=Now() - timedelta(hours=2))
    assert orphans.collect(FreeHold()).fixed == 2


def test_a_database_too_large_for_a_pass_is_left_to_the_cleanup(app, checkpoint_redis, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(orphans, "MAX_KEYS", 1)
    write = f"checkpoint_write:gone:__empty__:{old_id(1)}:task:0"
    checkpoint_redis.json().set(write, "$", {})
    checkpoint_redis.set("other", "1")
    assert orphans.collect(FreeHold()) == Findings()
    assert checkpoint_redis.exists(write)
    assert "the cleanup collects the orphans" in caplog.text


def test_each_orphan_has_its_line_the_first_twenty_and_then_a_count(app, checkpoint_redis, caplog):
    caplog.set_level("INFO")
    made = old_id(3)
    for number in range(23):
        checkpoint_redis.json().set(f"checkpoint_write:gone-{number:02}:__empty__:{made}:task:0", "$", {})
    assert orphans.collect(FreeHold()).fixed == 23
    # What others wrote is written so that Nautobot's Markdown shows it as it is.
    lines = [html.unescape(line) for line in caplog.messages if line.startswith("Orphan ")]
    assert len(lines) == len(set(lines)) == 20
    shape = re.compile(
        rf"Orphan checkpoint_write:(gone-\d\d):__empty__:{made}:task:0 of the thread \1, "
        r"without its checkpoint, 3 d old: 1 key\(s\) deleted"
    )
    assert [line for line in lines if not shape.fullmatch(line)] == []
    assert "And 3 more orphans" in caplog.messages
    assert "Orphaned keys: 23 scanned, 23 deleted, 0 without a readable age kept" in caplog.messages
    for record in caplog.records:
        if record.message.startswith(("Orphan", "And ")):
            assert record.grouping == "orphans"
