"""Faults in the middle of a cleanup: nothing is lost, and the next run finishes the work."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from langgraph.checkpoint.redis import RedisSaver
from redis import Redis
from redis.exceptions import BusyLoadingError
from redis.exceptions import ConnectionError as RedisConnectionError

from ai_ops.celery_tasks import cleanup_old_checkpoints
from ai_ops.checkpoints.redis.client import RetryingRedis
from ai_ops.checkpoints.redis.pipelining import PipelinedCalls
from ai_ops.checkpoints.redis.store import CheckpointStore
from development import services
from tests.fakes.conversations import days_ago, graph, old_id, on
from tests.waiting import until

pytestmark = pytest.mark.django_db

PHASES = ["size", "memory", "_scan_at", "ask", "script"]


def talk(app, *, old=6, live=3):
    for number in range(old):
        with days_ago(40):
            app.invoke({"said": ["hello"]}, on(f"old-{number}"))
    for number in range(live):
        with days_ago(40):
            app.invoke({"said": ["hello"]}, on(f"live-{number}"))
        app.invoke({"said": ["again"]}, on(f"live-{number}"))
    return {number: app.get_state(on(f"live-{number}")) for number in range(live)}


def assert_end_state(app, client, states):
    keys = {key.decode() for key in client.scan_iter()}
    assert not [key for key in keys if ":old-" in key]
    assert {number: app.get_state(on(f"live-{number}")) for number in states} == states
    assert len([key for key in keys if key.startswith("checkpoint:live-")]) == 4 * len(states)


@pytest.mark.parametrize("phase", PHASES)
def test_a_connection_cut_in_each_phase_is_retried(app, checkpoint_redis, monkeypatch, redis_retries, phase):
    states = talk(app)
    redis_retries(0.01, 0.05)
    original = getattr(RetryingRedis, phase)
    calls = []

    def cut_first(self, *args, **kwargs):
        calls.append(phase)
        if len(calls) in (1, 4):
            # The server hangs up on everybody else, in the middle of whatever they do.
            checkpoint_redis.client_kill_filter(_type="normal", skipme=True)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(RetryingRedis, phase, cut_first)
    report = cleanup_old_checkpoints(30)

    assert report["error"] is None
    assert calls
    assert_end_state(app, checkpoint_redis, states)


def test_a_server_restarted_while_keys_are_scanned(
    app, checkpoint_server, checkpoint_redis, monkeypatch, redis_retries
):
    states = talk(app)
    monkeypatch.setattr("ai_ops.checkpoints.redis.client.SCAN_COUNT", 5)
    redis_retries(0.05, 0.5, 1.0)
    original, calls = RetryingRedis._scan_at, []

    def restart_once(self, cursor, *args):
        calls.append(cursor)
        if len(calls) == 4:
            checkpoint_server.stop()
            checkpoint_server.start()
        return original(self, cursor, *args)

    monkeypatch.setattr(RetryingRedis, "_scan_at", restart_once)
    total = checkpoint_redis.dbsize()
    report = cleanup_old_checkpoints(30)

    assert report["error"] is None
    assert report["processed_count"] == total
    assert calls.count(0) >= 2, "a cursor means nothing to a server that was started anew"
    assert_end_state(app, checkpoint_redis, states)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_a_server_that_stays_away_fails_clearly_and_the_next_run_goes_on(
    app, checkpoint_server, checkpoint_redis, monkeypatch, redis_retries, batch
):
    states = talk(app)
    redis_retries(0.01)
    monkeypatch.setattr("ai_ops.checkpoints.redis.deleter.KEYS_PER_COMMAND", 7)
    original, calls = RetryingRedis.script, []

    def stop_at(self, *args):
        calls.append(1)
        if len(calls) == batch:
            checkpoint_server.stop()
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(RetryingRedis, "script", stop_at)
        report = cleanup_old_checkpoints(30)
    checkpoint_server.start()

    assert report["success"] is False
    assert "The next run continues" in report["error"]
    assert {number: app.get_state(on(f"live-{number}")) for number in states} == states
    assert cleanup_old_checkpoints(30)["success"] is True
    assert_end_state(app, checkpoint_redis, states)


def test_the_soft_time_limit_ends_the_run_and_what_was_done_is_logged(app, checkpoint_redis, monkeypatch, caplog):
    caplog.set_level("INFO")
    states = talk(app)
    original, calls = CheckpointStore.apply, []
    monkeypatch.setattr("ai_ops.checkpoints.cleanup.DELETIONS_PER_BATCH", 2)

    def limit(self, deletions, *, dryrun):
        if calls:
            raise SoftTimeLimitExceeded
        calls.append(1)
        return original(self, deletions, dryrun=dryrun)

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "apply", limit)
        with pytest.raises(SoftTimeLimitExceeded):
            cleanup_old_checkpoints(30)
    assert any("time limit" in message for message in caplog.messages)
    assert any(message.startswith("Deleted ") and not message.startswith("Deleted 0") for message in caplog.messages)
    assert cleanup_old_checkpoints(30)["success"] is True
    assert_end_state(app, checkpoint_redis, states)


def test_a_bug_is_no_result(checkpoint_redis, monkeypatch):
    def bug(self):
        raise ZeroDivisionError

    monkeypatch.setattr(CheckpointStore, "size", bug)
    with pytest.raises(ZeroDivisionError):
        cleanup_old_checkpoints(30)


def replica_has_a_key(replica):
    try:
        return replica.dbsize()
    except BusyLoadingError:
        return False


def test_a_read_only_replica_is_named(checkpoint_server, checkpoint_redis, tmp_path, monkeypatch):
    checkpoint_redis.set(f"checkpoint:old:{old_id(40)}", "{}")
    (port,) = services.free_ports(1)
    service = services.redis_server(
        "replica", port, "", folder=Path(tmp_path), modules=True,
        options=["--replicaof", f"127.0.0.1 {checkpoint_server.port}", "--masterauth", checkpoint_server.password],
    )  # fmt: skip
    service.start()
    try:
        service.wait_ready(time.monotonic() + 60)
        monkeypatch.setenv("LANGGRAPH_REDIS_URL", f"redis://127.0.0.1:{port}/0")
        with Redis(port=port) as replica:
            until(lambda: replica_has_a_key(replica), "the key at the replica")
        assert cleanup_old_checkpoints(30, dryrun=True)["deleted_count"] == 1
        report = cleanup_old_checkpoints(30)
    finally:
        service.stop()
    assert "read-only replica" in report["error"]
    assert "LANGGRAPH_REDIS_URL" in report["error"]
    assert checkpoint_redis.dbsize() == 1


def test_a_writer_that_keeps_talking_loses_no_message(app, checkpoint_server, checkpoint_redis, monkeypatch):
    for number in range(50):
        with days_ago(40):
            app.invoke({"said": ["hello"]}, on(f"t-{number}"))
    revived = list(range(20))
    busy = list(range(20, 50))
    for number in busy:
        app.invoke({"said": ["today"]}, on(f"t-{number}"))
    monkeypatch.setattr("ai_ops.checkpoints.cleanup.DELETIONS_PER_BATCH", 5)
    original, stop, failures = CheckpointStore.apply, threading.Event(), []
    writer_saver = RedisSaver(redis_client=checkpoint_server.client(0))
    writer_app = graph(writer_saver)

    def keep_talking():
        try:
            while not stop.is_set():
                writer_app.invoke({"said": ["more"]}, on(f"t-{random.choice(busy)}"))
        except RedisConnectionError as error:
            failures.append(error)

    def revive_just_before(self, deletions, *, dryrun):
        while revived:
            app.invoke({"said": ["I am back"]}, on(f"t-{revived.pop()}"))
        return original(self, deletions, dryrun=dryrun)

    monkeypatch.setattr(CheckpointStore, "apply", revive_just_before)
    thread = threading.Thread(target=keep_talking)
    thread.start()
    try:
        report = cleanup_old_checkpoints(30)
    finally:
        stop.set()
        thread.join()

    assert report["error"] is None
    assert not failures
    assert report["threads_deleted"] == 0
    assert report["changed_count"] == 20
    for number in range(50):
        said = app.get_state(on(f"t-{number}")).values["said"]
        assert said[:3] == ["hello", "answer 1", "answer 2"]
        assert said[3] == ("I am back" if number < 20 else "today")
        assert len(said) % 3 == 0


def test_ten_thousand_hostile_keys(checkpoint_redis):
    chance = random.Random(7)
    kinds = (
        "checkpoint",
        "checkpoint_latest",
        "checkpoint_write",
        "write_keys_zset",
        "checkpoint_blob",
        "write_registry",
    )
    total = 10_000
    with checkpoint_redis.pipeline(transaction=False) as pipeline:
        for number in range(total):
            head, tail = chance.choice(kinds).encode(), chance.randbytes(chance.choice((3, 20, 200)))
            old = old_id(40).encode()
            key = chance.choice(
                (
                    head + b":" + tail + b":" + old,
                    head + b":\xff\xfe" + str(number).encode() + b":__empty__:" + old,
                    head + b":t%d:__empty__:0001-01-01T00:00:00" % number,
                    head + b":t%d:__empty__:9999-12-31T23:59:59" % number,
                    head + b":hash%d:__empty__:" % number + old + b":task:0",
                    head + b":" + b":" * chance.randrange(40) + str(number).encode(),
                )
            )
            pipeline.hset(key, "what", "ever")
        for number in range(20):
            pipeline.set(b"checkpoint:" + b"x" * 1_000_000 + b"%d" % number, b"{}")
            pipeline.set(f"checkpoint:bomb{number}:text", "[" * 200_000)
            pipeline.set(f"checkpoint:cut{number}:text", '{"ts": "2020-')
        pipeline.execute()
    before = checkpoint_redis.dbsize()

    report = cleanup_old_checkpoints(30)

    assert report["error"] is None
    assert report["deleted_count"] == 0
    assert checkpoint_redis.dbsize() == report["processed_count"] == before
    assert report["unfixable_count"] > 60


class CutConnection:
    """A connection that breaks once, after so many bytes of scripts sent or so many replies read."""

    def __init__(self, connection, room, replies):
        self.is_cut = False
        self.connection = connection
        self._room, self._replies = room, replies

    def __getattr__(self, name):
        return getattr(self.connection, name)

    def send_packed_command(self, command, **options):
        sent = b"".join(command)
        self.connection.send_packed_command([sent[: self._room]], **options)
        self._room -= len(sent)
        if self._room < 0:
            self._cut()

    def read_response(self, **options):
        reply = self.connection.read_response(**options)
        self._replies -= 1
        if self._replies < 0:
            # Redis has done it, and no process will hear of it.
            self._cut()
        return reply

    def _cut(self):
        self.is_cut = True
        self.connection.disconnect()
        raise RedisConnectionError("cut")


EVERYTHING = 10**9


@pytest.mark.parametrize(
    ("room", "replies"),
    [
        *((room, EVERYTHING) for room in (1, 700, 2_000, 4_000, 7_000, 9_000)),
        *((EVERYTHING, replies) for replies in (0, 1, 2, 4)),
    ],
)
def test_a_pipeline_that_is_cut_anywhere_goes_on_in_order_and_counts_right(
    app, checkpoint_redis, monkeypatch, redis_retries, room, replies
):
    states = talk(app, old=4, live=2)
    total, cuts = checkpoint_redis.dbsize(), []
    redis_retries(0.01, 0.05)
    monkeypatch.setattr("ai_ops.checkpoints.redis.deleter.KEYS_PER_COMMAND", 20)
    deliver, release = PipelinedCalls._send_next, PipelinedCalls._release

    def deliver_on_it(self):
        if not (cuts and cuts[0].is_cut):
            # A pool gives a connection back as it is: what was sent and read on it counts on.
            connection = self._connection or self._pool.get_connection()
            cuts[:] = cuts or [CutConnection(connection, room, replies)]
            cuts[0].connection = getattr(connection, "connection", connection)
            self._connection = cuts[0]
        deliver(self)

    def release_what_is_below(self):
        self._connection = getattr(self._connection, "connection", self._connection)
        release(self)

    monkeypatch.setattr(PipelinedCalls, "_send_next", deliver_on_it)
    monkeypatch.setattr(PipelinedCalls, "_release", release_what_is_below)
    report = cleanup_old_checkpoints(30)

    assert report["error"] is None
    assert cuts[0].is_cut
    assert report["deleted_count"] == total - checkpoint_redis.dbsize()
    assert report["threads_deleted"] == 4
    assert_end_state(app, checkpoint_redis, states)
