"""What the cleanup leaves of keys that were recorded from savers which can't be installed beside the present ones.

``python -m development.layouts.record`` has written them: three threads idle for 400 days, three live ones.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from ai_ops.adapters.checkpoint_store import CheckpointStore
from ai_ops.celery_tasks import cleanup_old_checkpoints, sample_checkpoint_storage
from tests.fakes.conversations import old_id

pytestmark = pytest.mark.django_db

FIXTURES = Path(__file__).parents[1] / "fixtures" / "layouts"
OLD, LIVE = {"old", "old:1", "asked:old"}, {"live", "live:1", "asked:live"}
RECORDED = [
    (path.stem, saver) for path in sorted(FIXTURES.glob("*.json")) for saver in ("RedisSaver", "ShallowRedisSaver")
]
DAY = 86_400


def restore(client: redis.Redis, name: str, saver: str) -> int:
    """Write what was recorded; the retention in days to which the old threads are old."""
    fixture = json.loads((FIXTURES / f"{name}.json").read_text())
    for key, (value,) in ((key, value.items()) for key, value in fixture["savers"][saver].items()):
        kind, content = value
        if kind == "json":
            client.json().set(key, "$", content)
        elif kind == "zset":
            client.zadd(key, dict(content))
        else:
            client.set(key, content)
    return round((time.time() - fixture["recorded"]) / DAY) + 30


def thread_of(key: bytes) -> str:
    rest = key.decode().partition(":")[2]
    return max((thread for thread in OLD | LIVE if rest.startswith(f"{thread}:")), key=len)


def dumped(client: redis.Redis) -> dict[bytes, bytes]:
    return {key: client.dump(key) for key in client.scan_iter()}


def documents(client: redis.Redis, thread: str) -> dict[bytes, Any]:
    keys = [key for key in client.scan_iter("checkpoint:*") if thread_of(key) == thread]
    return {key: client.json().get(key.decode()) for key in keys}


def needed(client: redis.Redis, thread: str) -> set[bytes]:
    """The thread's documents, the writes of their checkpoints, and the blobs they name."""
    found = documents(client, thread)
    ids = {each["checkpoint"]["id"] for each in found.values()}
    versions = {
        f":{channel}:{version}"
        for each in found.values()
        for channel, version in each["checkpoint"]["channel_versions"].items()
    }
    for key in client.scan_iter():
        text = key.decode()
        if thread_of(key) == thread and (
            (text.startswith("checkpoint_blob:") and any(text.endswith(each) for each in versions))
            or (text.startswith(("checkpoint_write:", "write_keys_zset:")) and any(each in text for each in ids))
        ):
            found[key] = None
    return set(found)


@pytest.mark.parametrize(("name", "saver"), RECORDED)
def test_old_threads_go_without_a_trace_and_live_ones_keep_what_they_need(checkpoint_redis, name, saver):
    days = restore(checkpoint_redis, name, saver)
    before = dumped(checkpoint_redis)
    untouched = needed(checkpoint_redis, "live") | needed(checkpoint_redis, "asked:live")
    planned = cleanup_old_checkpoints(days, dryrun=True)
    assert dumped(checkpoint_redis) == before

    report = cleanup_old_checkpoints(days)

    after = dumped(checkpoint_redis)
    assert report["error"] is None
    assert (report["threads_deleted"], report["threads_kept"], report["unfixable_count"]) == (3, 3, 0)
    assert report["deleted_count"] == planned["deleted_count"] == len(before) - len(after)
    assert {thread_of(key) for key in after} == LIVE
    assert all(before[key] == value for key, value in after.items())
    assert untouched <= after.keys()
    assert len(after) < len(before) - sum(thread_of(key) in OLD for key in before) or "Shallow" in saver
    assert cleanup_old_checkpoints(days)["deleted_count"] == 0


@pytest.mark.parametrize(("name", "saver"), RECORDED)
def test_a_trimmed_thread_keeps_its_newest_checkpoints_and_their_blobs(checkpoint_redis, name, saver):
    days = restore(checkpoint_redis, name, saver)
    before = documents(checkpoint_redis, "live:1")
    newest = {
        each["checkpoint_ns"]: key for key, each in sorted(before.items(), key=lambda item: item[1]["checkpoint"]["id"])
    }
    report = cleanup_old_checkpoints(days)
    left = documents(checkpoint_redis, "live:1")
    assert set(newest.values()) <= left.keys()
    assert bool(report["checkpoints_trimmed"]) == (len(left) < len(before)) == (saver == "RedisSaver")
    present = set(checkpoint_redis.scan_iter())
    # The savers name blobs for channels that were empty too, and write none for those.
    restore(checkpoint_redis, name, saver)
    named = {
        f"{channel}:{version}".encode()
        for each in left.values()
        for channel, version in each["checkpoint"]["channel_versions"].items()
    }
    blobs = [key for key in checkpoint_redis.scan_iter("checkpoint_blob:*") if thread_of(key) == "live:1"]
    assert [key for key in blobs if any(key.endswith(b":" + each) for each in named) and key not in present] == []


def newest_of(client: redis.Redis, thread: str) -> str:
    root = {key: each for key, each in documents(client, thread).items() if b":child:" not in key}
    return max(root, key=lambda key: root[key]["checkpoint"]["id"]).decode()


def test_a_key_of_long_ago_may_hold_the_checkpoint_of_a_moment_ago(checkpoint_redis):
    days = restore(checkpoint_redis, "python-0.0.8", "RedisSaver")
    # What a turn does first: its input becomes a checkpoint, under the key of the one before.
    checkpoint_redis.json().set(newest_of(checkpoint_redis, "old"), "$.checkpoint.id", old_id(0))
    before = {key for key in checkpoint_redis.scan_iter() if thread_of(key) == "old"}
    assert sample_checkpoint_storage()["ages"][0]["threads"] >= 1
    report = cleanup_old_checkpoints(days)
    assert report["threads_deleted"] == 2
    assert needed(checkpoint_redis, "old") & before
    assert newest_of(checkpoint_redis, "old").encode() in before


def test_a_thread_that_goes_on_just_before_its_deletion_keeps_everything(checkpoint_redis, monkeypatch):
    days = restore(checkpoint_redis, "python-0.0.8", "RedisSaver")
    original = CheckpointStore.apply

    def go_on(self, deletions, *, dryrun):
        checkpoint_redis.json().set(newest_of(checkpoint_redis, "old"), "$.checkpoint.id", old_id(0))
        return original(self, deletions, dryrun=dryrun)

    kept = needed(checkpoint_redis, "old")
    monkeypatch.setattr(CheckpointStore, "apply", go_on)
    report = cleanup_old_checkpoints(days)
    assert (report["threads_deleted"], report["changed_count"]) == (2, 1)
    assert kept <= set(checkpoint_redis.scan_iter())
