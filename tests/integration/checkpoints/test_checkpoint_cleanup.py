"""Cleanups of conversations that real savers wrote to a real Redis."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta

import pytest
import redis
from langgraph.types import Command

from ai_ops.celery_tasks import cleanup_old_checkpoints
from tests.fakes.conversations import days_ago, graph, old_id, on, undated_id

pytestmark = pytest.mark.django_db


def names(client: redis.Redis) -> set[str]:
    return {key.decode(errors="replace") for key in client.scan_iter(count=1000)}


def of_thread(client: redis.Redis, thread: str) -> set[str]:
    return {name for name in names(client) if f":{thread}:" in name}


def iso(days: float) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat()


def test_an_idle_thread_goes_whole_and_a_live_one_stays(saver, checkpoint_redis):
    app = graph(saver)
    with days_ago(40):
        app.invoke({"said": ["hello"]}, on("idle"))
    app.invoke({"said": ["hello"]}, on("live"))
    live = of_thread(checkpoint_redis, "live")
    total = len(names(checkpoint_redis))

    report = cleanup_old_checkpoints(30)

    assert report["success"] is True
    assert report["error"] is None
    assert names(checkpoint_redis) == live
    assert report["processed_count"] == total
    assert report["deleted_count"] == total - len(live)
    assert (report["threads_deleted"], report["threads_kept"]) == (1, 1)


def test_an_old_tail_is_trimmed_and_the_next_turn_works(saver, checkpoint_redis):
    app = graph(saver)
    with days_ago(40):
        app.invoke({"said": ["hello"]}, on("live"))
    app.invoke({"said": ["again"]}, on("live"))
    before = app.get_state(on("live"))

    report = cleanup_old_checkpoints(30)

    assert report["threads_deleted"] == 0
    assert report["checkpoints_trimmed"] == 4
    assert app.get_state(on("live")) == before
    assert len(list(app.get_state_history(on("live")))) == 4
    assert app.invoke({"said": ["more"]}, on("live"))["said"][:6] == before.values["said"]


def test_last_activity_counts_over_all_namespaces(saver, checkpoint_redis):
    app = graph(saver, subgraph=True)
    with days_ago(40):
        app.invoke({"said": ["hello"]}, on("a:b"))
        app.invoke({"said": ["hello"]}, on("a"))
    child = next(name for name in names(checkpoint_redis) if name.startswith("checkpoint_latest:a:b:child"))
    checkpoint = next(saver.list({"configurable": {"thread_id": "a:b", "checkpoint_ns": "child"}}))
    fresh = {**checkpoint.checkpoint, "id": old_id(1)}
    saver.put(checkpoint.config, fresh, checkpoint.metadata, {})

    report = cleanup_old_checkpoints(30)

    assert (report["threads_deleted"], report["threads_kept"]) == (1, 1)
    assert not of_thread(checkpoint_redis, "a") - of_thread(checkpoint_redis, "a:b")
    assert child in names(checkpoint_redis)
    assert app.get_state(on("a:b")).values["said"]


def test_a_thread_that_waits_for_an_answer_is_not_trimmed(saver, checkpoint_redis):
    app = graph(saver, asks=True, subgraph=True)
    with days_ago(40):
        app.invoke({"said": ["first"]}, on("asked"))
        app.invoke(Command(resume="yes"), on("asked"))
    app.invoke({"said": ["second"]}, on("asked"))
    before = names(checkpoint_redis)

    report = cleanup_old_checkpoints(30)

    assert report["deleted_count"] == 0
    assert names(checkpoint_redis) == before
    assert app.invoke(Command(resume="no"), on("asked"))["said"][-1] == "you said no"


def test_orphans_go_after_an_hour(saver, checkpoint_redis):
    for hours, thread in ((2, "left"), (0.5, "fresh")):
        config = {"configurable": {"thread_id": thread, "checkpoint_ns": "", "checkpoint_id": old_id(hours / 24)}}
        saver.put_writes(config, [("said", ["lost"])], "task")
        checkpoint_redis.zadd(f"write_keys_zset:{thread}:__empty__:{config['configurable']['checkpoint_id']}", {"k": 0})
    checkpoint_redis.set("checkpoint_latest:lone:__empty__", f"checkpoint:lone:__empty__:{old_id(1)}")
    checkpoint_redis.set("checkpoint_latest:young:__empty__", f"checkpoint:young:__empty__:{old_id(0)}")
    fresh = of_thread(checkpoint_redis, "fresh") | of_thread(checkpoint_redis, "young")

    report = cleanup_old_checkpoints(30)

    # A write, its registry, the stub that marking the missing checkpoint left, and a pointer to nothing.
    assert report["orphan_count"] == 4
    assert names(checkpoint_redis) == fresh


def test_plain_keys_with_uuids_iso_times_and_times_inside(checkpoint_redis):
    gone = {
        f"checkpoint:uuid:{old_id(40)}": "{}",
        f"checkpoint:iso:2024:{iso(40)}": "not even JSON, and its time is in the key",
        f"checkpoint:inside:{undated_id()}": json.dumps({"ts": iso(40)}),
        f"checkpoint:deeper:{undated_id()}": json.dumps({"checkpoint": {"ts": iso(40)}}),
        f"checkpoint:live:{iso(40)}": "{}",
    }
    stays = {f"checkpoint:live:{iso(1)}": "{}", f"checkpoint:new:{undated_id()}": json.dumps({"ts": iso(1)})}
    checkpoint_redis.mset(gone | stays)

    report = cleanup_old_checkpoints(30)

    assert names(checkpoint_redis) == set(stays)
    assert (report["threads_deleted"], report["checkpoints_trimmed"], report["unfixable_count"]) == (4, 1, 0)


def test_a_dry_run_deletes_nothing_and_counts_the_same(saver, checkpoint_redis):
    with days_ago(40):
        graph(saver).invoke({"said": ["hello"]}, on("idle"))
    before = names(checkpoint_redis)

    dry = cleanup_old_checkpoints(30, dryrun=True)
    assert names(checkpoint_redis) == before
    wet = cleanup_old_checkpoints(30)

    assert dry["deleted_count"] == wet["deleted_count"] == len(before)
    assert dry["dryrun"] is True


def test_the_lines_operators_search_for(saver, checkpoint_redis, caplog):
    caplog.set_level(logging.INFO)
    with days_ago(40):
        graph(saver).invoke({"said": ["hello"]}, on("idle"))
    count = len(names(checkpoint_redis))

    cleanup_old_checkpoints(7)

    assert "Starting checkpoint cleanup task..." in caplog.messages
    assert f"✅ Checkpoint cleanup completed: processed {count} keys (retention: 7 days)" in caplog.messages
    assert f"Deleted {count} old checkpoint keys" in caplog.messages


def test_a_conversation_that_goes_on_while_the_plan_is_made_loses_nothing(saver, checkpoint_redis, monkeypatch):
    from ai_ops.checkpoints.redis.store import CheckpointStore

    app = graph(saver)
    with days_ago(40):
        app.invoke({"said": ["hello"]}, on("revived"))
    apply = CheckpointStore.apply

    def apply_after_a_turn(self, deletions, *, dryrun):
        app.invoke({"said": ["I am back"]}, on("revived"))
        return apply(self, deletions, dryrun=dryrun)

    monkeypatch.setattr(CheckpointStore, "apply", apply_after_a_turn)
    report = cleanup_old_checkpoints(30)

    assert report["changed_count"] == 1
    assert app.get_state(on("revived")).values["said"] == [
        "hello", "answer 1", "answer 2", "I am back", "answer 4", "answer 5",
    ]  # fmt: skip


@pytest.mark.parametrize("days", [0, -1, 3651, "thirty", "30", True, 0.04, float("nan"), float("inf")])
def test_bad_retention__a_sentence_and_nothing_deleted(checkpoint_redis, days):
    checkpoint_redis.set(f"checkpoint:old:{old_id(4000)}", "{}")
    report = cleanup_old_checkpoints(days)
    assert report["success"] is False
    assert "a number of days from 1/24, which is an hour, to 3650" in report["error"]
    assert checkpoint_redis.dbsize() == 1


@pytest.mark.parametrize(("days", "left"), [(1 / 24, 1), (0.0417, 1), (0.1, 2), (1.5, 2)])
def test_a_retention_may_be_a_fraction_of_a_day_from_an_hour(checkpoint_redis, caplog, days, left):
    checkpoint_redis.set(f"checkpoint:two-hours:{old_id(2 / 24)}", "{}")
    checkpoint_redis.set(f"checkpoint:half-an-hour:{old_id(0.5 / 24)}", "{}")
    report = cleanup_old_checkpoints(days)
    assert (report["applied_retention_days"], checkpoint_redis.dbsize()) == (days, left)
    assert f"(retention: {days:g} days)" in caplog.text


def test_keys_and_values_that_tell_no_time_stay_and_are_named(checkpoint_redis, caplog):
    odd = {
        b"checkpoint:\xff\xfe:" + old_id(40).encode(): b"{}",
        f"checkpoint:no-json:{undated_id()}".encode(): b"{ not json",
        f"checkpoint:no-time:{undated_id()}".encode(): b"{}",
        f"checkpoint:year-1:{undated_id()}".encode(): b'{"ts": "0001-01-01T00:00:00+14:00"}',
        f"checkpoint:year-9999:{undated_id()}".encode(): b'{"ts": "9999-12-31T23:59:59-12:00"}',
        b"checkpoint:year-1:0001-01-01T00:00:00": b"{}",
        f"checkpoint:deep:{undated_id()}".encode(): b"[" * 100_000,
    }
    checkpoint_redis.mset(odd)
    checkpoint_redis.execute_command("JSON.SET", f"checkpoint:doc:__empty__:{undated_id()}", "$", "{}")
    checkpoint_redis.hset("checkpoint:hash:" + old_id(40), "a", "b")
    checkpoint_redis.hset("checkpoint_latest:other:", "a", "b")

    report = cleanup_old_checkpoints(30)

    assert report["success"] is True
    assert report["deleted_count"] == 0
    assert report["unfixable_count"] == len(odd) + 3
    assert checkpoint_redis.dbsize() == len(odd) + 3
    assert any("inspect them" in message for message in caplog.messages)


def test_redis_down(checkpoint_server, checkpoint_redis, redis_retries):
    redis_retries(0.01)
    checkpoint_server.stop()
    try:
        report = cleanup_old_checkpoints(30)
    finally:
        checkpoint_server.start()
    assert report["success"] is False
    assert "can't be reached" in report["error"]
    assert "LANGGRAPH_REDIS_URL" in report["error"]


def test_wrong_password(checkpoint_server, checkpoint_redis, monkeypatch):
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", checkpoint_server.url(0, password="wrong"))
    report = cleanup_old_checkpoints(30)
    assert "refused the user name or password" in report["error"]
    assert "wrong" not in report["error"].replace("WRONGPASS", "")


@pytest.mark.parametrize(("seconds", "phases"), [(0, {"Scanning", "Deleting"}), (3600, set())])
def test_each_phase_says_how_far_it_is_but_not_more_often_than_it_should(
    checkpoint_redis, monkeypatch, caplog, seconds, phases
):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("ai_ops.checkpoints.cleanup.PROGRESS_SECONDS", seconds)
    checkpoint_redis.mset({f"checkpoint:old-{number}:{old_id(40)}": "{}" for number in range(3)})
    cleanup_old_checkpoints(30)
    said = [message for message in caplog.messages if message.startswith(("Scanning: ", "Deleting: "))]
    assert {message.partition(":")[0] for message in said} == phases
    assert not phases or any("3 of about 3 keys" in message for message in said)
