"""The cleanup Job: its form, its outcome, its log."""

from __future__ import annotations

import csv
import os
import re
import signal

import pytest
from django.test import override_settings
from nautobot.apps.testing import create_job_result_and_run_job
from nautobot.core.templatetags.helpers import render_markdown
from nautobot.extras.choices import JobResultStatusChoices, LogLevelChoices
from nautobot.extras.models import Job

from ai_ops.checkpoints.redis.client import RetryingRedis
from ai_ops.jobs.checkpoint_cleanup import CleanupCheckpointsJob
from ai_ops.models.runs import MaintenanceRun
from tests.fakes.conversations import old_id

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "job_logs"])

MODULE, CLASS = "ai_ops.jobs.checkpoint_cleanup", "CleanupCheckpointsJob"


@pytest.fixture
def job() -> Job:
    job = Job.objects.get(module_name=MODULE, job_class_name=CLASS)
    job.enabled = True
    job.validated_save()
    return job


def run(**variables):
    return create_job_result_and_run_job(MODULE, CLASS, **variables)


def messages(result, level=None):
    entries = result.job_log_entries.all()
    return [entry.message for entry in entries if level is None or entry.log_level == level]


def test_the_job_is_registered_and_can_be_scheduled(job):
    assert (job.name, job.grouping, job.has_sensitive_variables) == ("Cleanup Old Checkpoints", "AI Agents", False)


def test_a_run_logs_its_lines_and_returns_its_report(job, checkpoint_redis):
    checkpoint_redis.set(f"checkpoint:old:{old_id(40)}", "{}")
    checkpoint_redis.set(f"checkpoint:new:{old_id(1)}", "{}")

    result = run(retention_days=7, dryrun=False)

    assert result.status == JobResultStatusChoices.STATUS_SUCCESS
    assert result.result["deleted_count"] == 1
    assert "Starting checkpoint cleanup task..." in messages(result)
    assert "✅ Checkpoint cleanup completed: processed 2 keys (retention: 7 days)" in messages(result)
    assert "Deleted 1 old checkpoint keys" in messages(result)


def test_without_variables_the_configured_retention_applies(job, checkpoint_redis):
    checkpoint_redis.set(f"checkpoint:old:{old_id(12)}", "{}")
    assert run().result["deleted_count"] == 0
    with override_settings(PLUGINS_CONFIG={"ai_ops": {"retention_days": 10}}):
        result = run()
    assert (result.result["retention_days"], result.result["deleted_count"]) == (10, 1)


def test_the_form_shows_the_configured_retention(job):
    assert CleanupCheckpointsJob.as_form().fields["retention_days"].initial == 30
    with override_settings(PLUGINS_CONFIG={"ai_ops": {"retention_days": 10}}):
        assert CleanupCheckpointsJob.as_form().fields["retention_days"].initial == 10


def test_a_failed_run_says_why_and_keeps_its_report(job, checkpoint_server, checkpoint_redis, monkeypatch):
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", checkpoint_server.url(0, password="wrong"))

    result = run(retention_days=7)

    assert result.status == JobResultStatusChoices.STATUS_FAILURE
    assert result.result["success"] is False
    assert "refused the user name or password" in result.result["error"]
    assert any("refused the user name" in message for message in messages(result, LogLevelChoices.LOG_FAILURE))


def test_every_option_of_the_settings_is_in_the_form_with_its_configured_value(job):
    configured = {"keep_last": 3, "trim_live_threads": False, "memory_limit_mb": 64, "memory_retention_days": 2}
    with override_settings(PLUGINS_CONFIG={"ai_ops": configured}):
        fields_of_form = CleanupCheckpointsJob.as_form().fields
        assert {name: fields_of_form[name].initial for name in configured} == configured | {"trim_live_threads": "no"}


def test_a_request_that_names_no_option_is_run_as_configured(job, checkpoint_redis):
    cleaned = CleanupCheckpointsJob.validate_data({"retention_days": 30})
    checkpoint_redis.mset({f"checkpoint:live:{old_id(days)}": "{}" for days in (60, 50, 1)})
    result = run(**cleaned)
    assert result.status == JobResultStatusChoices.STATUS_SUCCESS
    assert result.result["checkpoints_trimmed"] == 2


def test_the_threads_that_would_go_are_attached_as_csv(job, checkpoint_redis, monkeypatch):
    monkeypatch.setattr("ai_ops.checkpoints.cleanup.MEASURED_THREADS", 11)
    monkeypatch.setattr("ai_ops.checkpoints.cleanup.DELETIONS_PER_BATCH", 5)
    checkpoint_redis.mset({f"checkpoint:old,{number}:{old_id(40)}": "x" * 1000 for number in range(12)})
    result = run(dryrun=True)
    (proxy,) = result.files.all()
    lines = proxy.file.read().decode().splitlines()
    assert proxy.name == "threads-to-delete.csv"
    assert lines[0] == "thread,namespaces,keys,bytes,last_activity,policy"
    assert len(lines) == 13
    assert any(line.startswith('"old,0",1,1,') for line in lines)
    sizes = [row["bytes"] for row in csv.DictReader(lines)]
    assert sorted(bool(size) for size in sizes) == [False] + 11 * [True]
    assert all(1000 < int(size) < 1500 for size in sizes if size)
    assert len([message for message in messages(result) if message.startswith("Would delete thread")]) == 10


def test_unusable_settings_fail_the_run_with_a_sentence(job):
    with override_settings(PLUGINS_CONFIG={"ai_ops": {"retention_days": 0}}):
        result = run()
    assert result.status == JobResultStatusChoices.STATUS_FAILURE
    assert 'PLUGINS_CONFIG["ai_ops"] is not valid: retention_days must be' in result.result["error"]
    assert result.result["error"] in messages(result, LogLevelChoices.LOG_FAILURE)
    assert not result.traceback


def test_whatever_a_thread_is_called_the_result_can_be_kept(job, checkpoint_redis):
    ids = (b"nul\x00byte", b"lone \xed\xa0\x80 surrogate", b"\xff\xfe", "🧵".encode())
    for each in ids:
        checkpoint_redis.set(b"checkpoint:" + each + b":" + old_id(40).encode(), "{}")
    result = run(retention_days=30)
    assert result.status == JobResultStatusChoices.STATUS_SUCCESS
    result.refresh_from_db()
    assert {row["thread"] for row in result.result["largest_threads"]} == {"nul\\x00byte", "🧵"}
    assert result.result["unfixable_count"] == 2, "what is no text can't be a thread's id: it stays"


def test_when_its_time_is_up_the_result_says_what_was_done(job, checkpoint_redis, monkeypatch):
    monkeypatch.setattr("ai_ops.checkpoints.cleanup.DELETIONS_PER_BATCH", 4)
    checkpoint_redis.mset({f"checkpoint:old-{number}:{old_id(40)}": "{}" for number in range(20)})
    original, calls = RetryingRedis.script, []

    def time_is_up(self, *args):
        calls.append(args)
        if len(calls) == 2:
            # In the middle of a batch, whose keys are deleted a moment later.
            os.kill(os.getpid(), signal.SIGALRM)
        return original(self, *args)

    monkeypatch.setattr(RetryingRedis, "script", time_is_up)
    result = run(retention_days=30)

    assert result.status == JobResultStatusChoices.STATUS_FAILURE
    assert "reached its time limit" in result.result["error"]
    assert result.result["deleted_count"] == 8 == 20 - checkpoint_redis.dbsize()
    record = MaintenanceRun.objects.get(job_result=result)
    assert (record.state, record.counters["deleted_count"]) == ("interrupted", 8)
    assert len(result.files.get().file.read().splitlines()) == 9
    assert job.time_limit > job.soft_time_limit > 300


def test_what_a_thread_is_called_is_no_markdown_in_the_log_and_no_formula_in_the_csv(job, checkpoint_redis):
    names = ["=HYPERLINK(0)", "![x](http://evil)", "@a;=1+1"]
    checkpoint_redis.mset({f"checkpoint:{name}:{old_id(40)}": "{}" for name in names})
    checkpoint_redis.set("checkpoint:[log in](http://evil)", "{}")
    result = run(dryrun=True)
    html = "".join(map(render_markdown, messages(result)))
    assert "http://evil" in html
    assert not re.search(r"<img|href=.?http", html)
    lines = result.files.get().file.read().decode().splitlines()
    assert {row["thread"] for row in csv.DictReader(lines)} == {"'=HYPERLINK(0)", names[1], "'@a;=1+1"}
    assert any(line.startswith('"\'@a;=1+1",') for line in lines), "a semicolon in it begins no new cell"
