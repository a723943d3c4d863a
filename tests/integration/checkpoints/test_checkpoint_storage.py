"""Sampling the checkpoint storage: what is found in a real Redis, and what it costs."""

from __future__ import annotations

import pytest
from django.test import override_settings
from langgraph.checkpoint.redis.shallow import ShallowRedisSaver
from nautobot.apps.testing import create_job_result_and_run_job
from nautobot.extras.choices import JobResultStatusChoices
from nautobot.extras.models import Job

from ai_ops.celery_tasks import cleanup_old_checkpoints, pin_thread, sample_checkpoint_storage
from ai_ops.checkpoints.snapshots import KEPT, latest_snapshots
from ai_ops.models import CheckpointStorageSnapshot
from tests.fakes.conversations import days_ago, graph, old_id, on, undated_id

MODULE, CLASS = "ai_ops.jobs.checkpoint_storage", "SampleCheckpointStorageJob"


def talk(saver, **days):
    app = graph(saver)
    for thread, age in days.items():
        with days_ago(age):
            app.invoke({"said": ["hello"]}, on(thread))


def test_keys_and_threads_are_counted_by_age(saver, checkpoint_redis):
    talk(saver, today=0, yesterday=1.5, month=29)
    result = sample_checkpoint_storage()
    assert result["success"], result
    assert result["age_unit"] == "day"
    threads = {bar["label"]: bar["threads"] for bar in result["ages"] if bar["threads"]}
    assert threads == {"0": 1, "1": 1, "29": 1}
    assert sum(bar["keys"] for bar in result["ages"]) == result["checkpoint_keys"] == checkpoint_redis.dbsize()
    assert (result["thread_count"], result["savers"], result["complete"]) == (3, {"RedisSaver": 3}, True)
    assert result["server"]["version"]
    assert "correct" not in str(result["server"])
    assert result["memory_bytes"] > 0


def test_older_keys_are_counted_by_week_and_the_last_bar_takes_the_rest(checkpoint_redis):
    for days in (0, 6, 7, 100, 2000):
        checkpoint_redis.set(f"checkpoint:t{days}:{old_id(days + 0.01)}", "{}")
    result = sample_checkpoint_storage()
    assert result["age_unit"] == "week"
    assert {bar["label"]: bar["threads"] for bar in result["ages"] if bar["threads"]} == {
        "0": 2,
        "1": 1,
        "14": 1,
        "52+": 1,
    }


def test_what_a_cleanup_would_delete_is_what_a_dry_run_says(saver):
    talk(saver, old=40, older=50, live=1, kept=60)
    pin_thread("kept")
    before = cleanup_old_checkpoints(30, dryrun=True)
    planned = sample_checkpoint_storage()["cleanup"]
    assert planned == {name: before[name] for name in planned}
    assert (planned["threads_deleted"], planned["threads_kept"]) == (2, 2)


def test_the_options_are_those_of_the_settings(saver):
    talk(saver, week=8)
    with override_settings(PLUGINS_CONFIG={"ai_ops": {"retention_days": 7}}):
        assert sample_checkpoint_storage()["cleanup"]["threads_deleted"] == 1
    assert sample_checkpoint_storage()["cleanup"]["threads_deleted"] == 0


def test_a_sampling_deletes_nothing_and_writes_nothing(saver, checkpoint_redis):
    talk(saver, old=40, live=1)
    before = {key: checkpoint_redis.dump(key) for key in checkpoint_redis.scan_iter()}
    sample_checkpoint_storage()
    assert {key: checkpoint_redis.dump(key) for key in checkpoint_redis.scan_iter()} == before


def test_the_oldest_and_the_largest_threads_are_named(checkpoint_redis):
    for number in range(30):
        checkpoint_redis.set(f"checkpoint:t{number}:{old_id(number)}", "x" * 10)
    for number in range(20):
        checkpoint_redis.set(f"checkpoint:many:{old_id(1 + number / 100)}", "x" * 100)
    checkpoint_redis.set(f"checkpoint:fat:{old_id(3)}", "x" * 1_000_000)
    result = sample_checkpoint_storage()
    assert [row["thread"] for row in result["oldest_threads"]] == [f"t{number}" for number in range(29, 19, -1)]
    assert len(result["largest_threads"]) == 10
    fat, many = result["largest_threads"][:2]
    assert (fat["thread"], many["thread"]) == ("fat", "many")
    assert fat["bytes"] > 1_000_000
    assert 20 * 100 < many["bytes"] < 20 * 400
    assert result["checkpoint_bytes"] > fat["bytes"] + many["bytes"]
    assert result["sized_keys"] == 51


def test_which_savers_have_written_here(saver, checkpoint_redis):
    talk(saver, full=1)
    shallow = ShallowRedisSaver(redis_client=checkpoint_redis)
    shallow.setup()
    talk(shallow, shallow=1)
    checkpoint_redis.set(f"checkpoint:plain:{old_id(1)}", "{}")
    checkpoint_redis.lpush("thread:{valkey}:", old_id(1))
    checkpoint_redis.set(f"checkpoint:{{valkey}}::{old_id(1)}", "{}")
    checkpoint_redis.set("something else", "")
    result = sample_checkpoint_storage()
    assert result["savers"] == {"RedisSaver": 1, "Shallow savers": 1, "plain keys": 1, "ValkeySaver": 1}
    assert result["database_keys"] == result["checkpoint_keys"] + 1


def test_what_carries_no_time_is_counted_as_such(checkpoint_redis):
    checkpoint_redis.set(f"checkpoint:undated:{undated_id()}", "{}")
    result = sample_checkpoint_storage()
    assert (result["undated_keys"], result["oldest_threads"]) == (1, [])
    assert result["cleanup"]["unfixable_count"] == 1


def test_pins_of_threads_that_are_not_there_are_known(checkpoint_redis):
    checkpoint_redis.set(f"checkpoint:a:b:{old_id(1)}", "{}")
    checkpoint_redis.set(f"checkpoint:münchen:{old_id(1)}", "{}")
    for thread in ("a:b", "münchen", "nowhere"):
        pin_thread(thread)
    result = sample_checkpoint_storage()
    assert (result["pin_count"], result["missing_pins"]) == (3, ["nowhere"])


@pytest.mark.parametrize("name", [b"nul\x00byte", b"\xff\xfe", "x" * 5000, "<script>", "🧵" * 200])
def test_any_thread_id_can_be_kept(checkpoint_redis, name):
    name = name if isinstance(name, bytes) else name.encode()
    checkpoint_redis.set(b"checkpoint:" + name + b":" + old_id(40).encode(), "{}")
    assert sample_checkpoint_storage()["success"]
    rows = CheckpointStorageSnapshot.objects.get().data["largest_threads"]
    assert all(len(row["thread"]) <= 120 for row in rows)


def test_past_a_million_keys_it_makes_do_with_those_it_has_seen(checkpoint_redis, monkeypatch):
    monkeypatch.setattr("ai_ops.checkpoints.sampling.MAX_KEYS", 2000)
    checkpoint_redis.mset({f"checkpoint:{number}:{old_id(40)}": "{}" for number in range(5000)})
    pin_thread("nowhere")
    result = sample_checkpoint_storage()
    assert (result["complete"], result["cleanup"], result["missing_pins"]) == (False, None, None)
    assert result["database_keys"] == 5000
    assert 2000 <= result["scanned_keys"] == result["checkpoint_keys"] < 5000


def test_the_scan_ends_when_its_time_is_up(checkpoint_redis, monkeypatch):
    monkeypatch.setattr("ai_ops.checkpoints.sampling.MAX_SCAN_SECONDS", 0)
    checkpoint_redis.mset({f"checkpoint:{number}:{old_id(40)}": "{}" for number in range(5000)})
    assert sample_checkpoint_storage()["complete"] is False


def test_an_empty_database(checkpoint_redis):
    result = sample_checkpoint_storage()
    assert (result["success"], result["thread_count"], result["ages"][0]["keys"]) == (True, 0, 0)
    assert result["checkpoint_bytes"] is None


def test_a_user_who_may_ask_little_still_gets_the_counts(checkpoint_server, checkpoint_redis, monkeypatch):
    checkpoint_redis.set(f"checkpoint:a:{old_id(40)}", "{}")
    allowed = ("scan", "dbsize", "type", "get", "json.get", "eval", "client", "hello", "auth", "select")
    commands = ["-@all", *(f"+{command}" for command in allowed)]
    checkpoint_redis.acl_setuser("little", enabled=True, passwords=["+secret"], keys=["*"], commands=commands)
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", f"redis://little:secret@127.0.0.1:{checkpoint_server.port}/0")
    try:
        result = sample_checkpoint_storage()
    finally:
        checkpoint_redis.acl_deluser("little")
    assert result["success"], result["error"]
    assert (result["server"], result["memory_bytes"], result["checkpoint_bytes"]) == (None, None, None)
    assert result["cleanup"]["threads_deleted"] == 1
    assert [row["bytes"] for row in result["largest_threads"]] == [None]


def test_a_failure_is_kept_beside_the_last_success(checkpoint_server, checkpoint_redis, monkeypatch):
    sample_checkpoint_storage()
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", checkpoint_server.url(0, password="wrong"))
    for _ in range(KEPT + 2):
        result = sample_checkpoint_storage()
    assert result["success"] is False
    assert "refused the user name or password" in result["error"]
    good, failed = latest_snapshots()
    assert good.data["success"] is True
    assert failed.data["error"] == result["error"]
    assert CheckpointStorageSnapshot.objects.count() == KEPT + 1


def test_only_the_last_few_are_kept(checkpoint_redis):
    for _ in range(KEPT + 3):
        sample_checkpoint_storage()
    assert CheckpointStorageSnapshot.objects.count() == KEPT


@pytest.mark.django_db(transaction=True, databases=["default", "job_logs"])
def test_the_job_returns_what_was_found(saver):
    talk(saver, old=40)
    job = Job.objects.get(module_name=MODULE, job_class_name=CLASS)
    assert (job.name, job.grouping, job.hidden, job.has_sensitive_variables) == (
        "Sample Checkpoint Storage",
        "AI Agents",
        True,
        False,
    )
    job.enabled = True
    job.validated_save()
    result = create_job_result_and_run_job(MODULE, CLASS)
    assert result.status == JobResultStatusChoices.STATUS_SUCCESS
    assert result.result["thread_count"] == 1
    lines = [entry.message for entry in result.job_log_entries.all()]
    assert any(line.startswith("✅ Checkpoint storage sampled: 1 threads, ") for line in lines)


@pytest.mark.django_db(transaction=True, databases=["default", "job_logs"])
def test_a_failed_job_says_why(checkpoint_server, checkpoint_redis, monkeypatch):
    Job.objects.filter(module_name=MODULE).update(enabled=True)
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", checkpoint_server.url(0, password="wrong"))
    result = create_job_result_and_run_job(MODULE, CLASS)
    assert result.status == JobResultStatusChoices.STATUS_FAILURE
    assert "refused the user name or password" in result.result["error"]
