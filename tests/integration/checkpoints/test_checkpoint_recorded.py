"""Cleanups of keys that were recorded from every version of the savers that changed its layout.

``python -m development.layouts.record`` has written them: four threads idle for 400 days, four live ones.
"""

from __future__ import annotations

import json
import re
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import redis

from ai_ops.celery_tasks import cleanup_old_checkpoints, explain_thread, sample_checkpoint_storage
from ai_ops.checkpoints.logic.times import id_time
from ai_ops.checkpoints.redis.store import CheckpointStore
from tests.fakes.conversations import old_id

pytestmark = pytest.mark.django_db

FIXTURES = Path(__file__).parents[2] / "fixtures" / "layouts"
OLD, LIVE = {"old", "old:1", "{old}:1", "asked:old"}, {"live", "live:1", "{live}:1", "asked:live"}
TRIMMED = {"live:1", "{live}:1"}  # begun 400 days ago; no user is asked anything there
PREFIXED = "RedisSaver with prefixes"
PREFIXES = {"checkpoint_prefix": "app:cp", "checkpoint_write_prefix": "app:cp:w"}
HEADS = (
    "app:cp:w:", "app:cp_latest:", "app:cp:", "checkpoint_latest:", "checkpoint_blob:", "checkpoint_write:",
    "checkpoint:", "write_keys_zset:", "write_registry:", "writes:", "thread:",
)  # fmt: skip
UUID6 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-6[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
DAY = 86_400
# That savers of these versions are recorded is what makes the table worth something.
VERSIONS = {
    "python-0.0.8", "python-0.1.0", "python-0.1.2", "python-0.1.3", "python-0.2.1", "python-0.3.0", "python-0.4.1",
    "python-0.5.2", "aws-1.0.2", "aws-1.0.4", "aws-1.1.0", "aws-1.2.6", "javascript-1.0.0", "javascript-1.0.11",
}  # fmt: skip


@cache
def fixture(name: str) -> dict[str, Any]:
    return json.loads((FIXTURES / f"{name}.json").read_text())


RECORDED = [(path.stem, saver) for path in sorted(FIXTURES.glob("*.json")) for saver in fixture(path.stem)["savers"]]
WITH_BLOBS = [(name, saver) for name, saver in RECORDED if name == "python-0.0.8" or name.startswith("javascript")]


@pytest.fixture(autouse=True)
def prefixes(request, monkeypatch):
    if "saver" in request.fixturenames and request.getfixturevalue("saver") == PREFIXED:
        monkeypatch.setattr("django.conf.settings.PLUGINS_CONFIG", {"ai_ops": PREFIXES})


def restore(client: redis.Redis, name: str, saver: str) -> int:
    """Write what was recorded; the retention in days to which the old threads are old."""
    with client.pipeline(transaction=False) as pipeline:
        for command in commands(name, saver):
            pipeline.execute_command(*command)
        pipeline.execute()
    return round((time.time() - fixture(name)["recorded"]) / DAY) + 30


@cache
def commands(name: str, saver: str) -> list[tuple[Any, ...]]:
    """The commands that write what was recorded."""
    written: list[tuple[Any, ...]] = []
    for key, (value,) in ((key, value.items()) for key, value in fixture(name)["savers"][saver].items()):
        kind, content = value
        if kind == "json":
            written.append(("JSON.SET", key, "$", json.dumps(content)))
        elif kind == "zset":
            written.append(("ZADD", key, *(each for member, score in content for each in (score, member))))
        elif kind == "list":
            written += [("DEL", key), ("RPUSH", key, *content)]
        else:
            written.append(("SET", key, content))
    return written


@cache
def thread_of(key: bytes) -> str:
    rest = key.decode().removeprefix(next(head for head in HEADS if key.decode().startswith(head)))
    names = {shape: thread for thread in OLD | LIVE for shape in (f"{thread}:", f"{{{thread}}}:")}
    return names[max((shape for shape in names if rest.startswith(shape)), key=len)]


def keys_of(client: redis.Redis, pattern: str = "*") -> list[bytes]:
    return list(client.scan_iter(pattern, count=1000))


def of_each(client: redis.Redis, keys: list[bytes], command: str) -> dict[bytes, Any]:
    """The answer to a command for each of these keys."""
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.execute_command(command, key)
        return dict(zip(keys, pipeline.execute(), strict=True))


def dumped(client: redis.Redis) -> dict[bytes, bytes]:
    return of_each(client, keys_of(client), "DUMP")


def all_documents(client: redis.Redis) -> dict[str, dict[bytes, Any]]:
    """The documents of each thread."""
    keys = [key for head in ("checkpoint", "app:cp") for key in keys_of(client, f"{head}:*")]
    keys = [key for key in keys if not key.startswith(b"app:cp:w:")]
    kinds = of_each(client, keys, "TYPE")
    found: dict[str, dict[bytes, Any]] = {thread: {} for thread in OLD | LIVE}
    for key, text in of_each(client, [key for key in keys if kinds[key] == b"string"], "GET").items():
        name = key.decode()
        found[thread_of(key)][key] = json.loads(text) | {"checkpoint": {"id": name[-36:]}, "checkpoint_ns": name[:-37]}
    rest = [key for key in keys if kinds[key] != b"string"]
    with client.pipeline(transaction=False) as pipeline:
        reader = pipeline.json()
        for key in rest:
            reader.get(key.decode())
        for key, document in zip(rest, pipeline.execute(), strict=True):
            found[thread_of(key)][key] = document
    return found


def documents(client: redis.Redis, thread: str) -> dict[bytes, Any]:
    return all_documents(client)[thread]


def expected_left(client: redis.Redis, days: int, saver: str) -> set[bytes]:
    """All keys that must be left but blobs: what carries no id, or that of a checkpoint that stays."""
    left, keys = set(), keys_of(client)
    if saver.startswith("Shallow"):
        return {key for key in keys if thread_of(key) in LIVE}
    of_threads = all_documents(client)
    for thread in LIVE:
        own = of_threads[thread]
        ids = {key: each["checkpoint"]["id"] for key, each in own.items()}
        newest = {each["checkpoint_ns"]: ids[key] for key, each in sorted(own.items(), key=lambda item: ids[item[0]])}
        stay = {each for each in ids.values() if id_time(each.encode()) >= time.time() - days * DAY}
        stay |= set(newest.values()) if thread in TRIMMED else set(ids.values())
        for key in keys:
            if thread_of(key) == thread and not key.startswith(b"checkpoint_blob:"):
                found = UUID6.findall(key.decode())
                own_id = ids.get(key) or (found[0] if found else None)
                left |= {key} if own_id is None or own_id in stay else set()
    return left


def blobs_named(client: redis.Redis, thread: str) -> set[bytes]:
    """The blobs of the channel versions that the thread's checkpoints name."""
    versions = tuple(
        f":{channel}:{version}".encode()
        for each in documents(client, thread).values()
        for channel, version in each["checkpoint"]["channel_versions"].items()
    )
    return {key for key in keys_of(client, "checkpoint_blob:*") if thread_of(key) == thread and key.endswith(versions)}


def test_the_documentation_names_exactly_what_is_recorded():
    page = (Path(__file__).parents[3] / "docs/user/checkpoint_retention.md").read_text()
    section = page.partition("## Tested savers")[2].partition("\n## ")[0]
    rows = {tuple(map(str.strip, row.strip("|").split("|"))) for row in re.findall(r"^\|.*langgraph.*$", section, re.M)}
    recorded = [fixture(path.stem) for path in FIXTURES.glob("*.json")]
    savers = {(each["library"], each["version"]): sorted(each["savers"]) for each in recorded}
    assert {(library, version): sorted(names.split(", ")) for library, version, names in rows} == savers
    assert {path.stem for path in FIXTURES.glob("*.json")} == VERSIONS


@pytest.mark.parametrize(("name", "saver"), RECORDED)
def test_exactly_what_is_old_goes_and_live_threads_keep_what_they_need(checkpoint_redis, name, saver):
    days = restore(checkpoint_redis, name, saver)
    before = dumped(checkpoint_redis)
    left = expected_left(checkpoint_redis, days, saver)
    planned = cleanup_old_checkpoints(days, dryrun=True)
    assert dumped(checkpoint_redis) == before

    report = cleanup_old_checkpoints(days)

    after = dumped(checkpoint_redis)
    assert report["error"] is None
    assert (report["threads_deleted"], report["threads_kept"], report["unfixable_count"]) == (4, 4, 0)
    assert {each["thread"] for each in report["largest_threads"]} == OLD
    assert report["deleted_count"] == planned["deleted_count"] == len(before) - len(after)
    assert {key for key in after if saver.startswith("Shallow") or not key.startswith(b"checkpoint_blob:")} == left
    assert all(before[key] == value for key, value in after.items() if not key.startswith(b"thread:"))
    assert {thread_of(key) for key in after} == LIVE
    assert bool(report["checkpoints_trimmed"]) == (not saver.startswith("Shallow"))
    for key in keys_of(checkpoint_redis, "thread:*"):
        assert all(any(each in document for document in left) for each in checkpoint_redis.lrange(key, 0, -1))
    assert cleanup_old_checkpoints(days)["deleted_count"] == 0


@pytest.mark.parametrize(("name", "saver"), RECORDED)
def test_pins_patterns_and_the_retention_of_questions_hold_in_every_version(checkpoint_redis, name, saver):
    days = restore(checkpoint_redis, name, saver)
    before = set(keys_of(checkpoint_redis))
    report = cleanup_old_checkpoints(days, thread_pattern="{old}*", trim_live_threads=False)
    assert {thread_of(key) for key in before - set(keys_of(checkpoint_redis))} == {"{old}:1"}
    assert report["threads_deleted"] == 1
    report = cleanup_old_checkpoints(
        days, pinned_threads=["old:1"], pending_retention_days=days + 500, trim_live_threads=False
    )
    assert {thread_of(key) for key in keys_of(checkpoint_redis)} == LIVE | {"old:1", "asked:old"}
    assert report["threads_deleted"] == 1
    left = set(keys_of(checkpoint_redis))
    # 0.0.8 writes documents over others: what belonged to those is orphaned.
    assert {thread_of(key) for key in before - left} - {"asked:live"} == {"old", "{old}:1"}


@pytest.mark.parametrize(("name", "saver"), WITH_BLOBS)
def test_a_trimmed_thread_keeps_the_blobs_that_its_checkpoints_name_and_no_older_ones(checkpoint_redis, name, saver):
    days = restore(checkpoint_redis, name, saver)
    report = cleanup_old_checkpoints(days)
    present = set(keys_of(checkpoint_redis))
    left = {thread: {key for key in present if thread_of(key) == thread} for thread in TRIMMED}
    kept = {thread: documents(checkpoint_redis, thread) for thread in TRIMMED}
    # The savers name blobs for channels that were empty too, and write none for those.
    restore(checkpoint_redis, name, saver)
    gone = set(keys_of(checkpoint_redis)) - present
    for thread in TRIMMED:
        all_documents = documents(checkpoint_redis, thread)
        checkpoint_redis.delete(*(all_documents.keys() - kept[thread].keys() or {"none"}))
        assert blobs_named(checkpoint_redis, thread) <= left[thread]
    if name != "javascript-1.0.0":  # which writes no blobs
        trimmed = any(key.startswith(b"checkpoint_blob:live:1") for key in gone)
        assert trimmed == bool(report["checkpoints_trimmed"])


def all_ids(client: redis.Redis) -> dict[str, set[str]]:
    """The ids of the checkpoints of each thread."""
    return {
        thread: {each["checkpoint"]["id"] for each in own.values()} for thread, own in all_documents(client).items()
    }


@pytest.mark.parametrize(("name", "saver"), RECORDED)
def test_an_explanation_of_each_version_says_what_the_cleanup_does(checkpoint_redis, monkeypatch, name, saver):
    days = restore(checkpoint_redis, name, saver)
    config = {"retention_days": days, **(PREFIXES if saver == PREFIXED else {})}
    monkeypatch.setattr("django.conf.settings.PLUGINS_CONFIG", {"ai_ops": config})
    before = all_ids(checkpoint_redis)
    explained = {thread: explain_thread(thread) for thread in OLD | LIVE}
    cleanup_old_checkpoints(days)
    after = all_ids(checkpoint_redis)
    for thread, explanation in explained.items():
        told = [each for space in explanation["namespaces"] for each in space["checkpoints"]]
        left = after[thread]
        assert (explanation["complete"], explanation["notes"]) == (True, []), thread
        assert {each["checkpoint_id"] for each in told if each["goes"]} == before[thread] - left, thread
        assert {each["checkpoint_id"] for each in told if not each["goes"]} == left, thread
        assert explanation["waits"] == (thread == "asked:live" or thread == "asked:old")
        assert ("deletes the whole thread" in explanation["decision"]) == (thread in OLD)


def newest_of(client: redis.Redis, thread: str) -> str:
    root = {key: each for key, each in documents(client, thread).items() if b":child:" not in key}
    return max(root, key=lambda key: root[key]["checkpoint"]["id"]).decode()


def test_a_key_of_long_ago_may_hold_the_checkpoint_of_a_moment_ago(checkpoint_redis):
    days = restore(checkpoint_redis, "python-0.0.8", "RedisSaver")
    # What a turn does first: its input becomes a checkpoint, under the key of the one before.
    checkpoint_redis.json().set(newest_of(checkpoint_redis, "old"), "$.checkpoint.id", old_id(0))
    before = {key for key in keys_of(checkpoint_redis) if thread_of(key) == "old"}
    kept = set(documents(checkpoint_redis, "old")) | blobs_named(checkpoint_redis, "old")
    assert sample_checkpoint_storage()["ages"][0]["threads"] >= 1
    report = cleanup_old_checkpoints(days)
    assert report["threads_deleted"] == 3
    assert kept & before
    assert newest_of(checkpoint_redis, "old").encode() in before


def test_a_thread_that_goes_on_just_before_its_deletion_keeps_everything(checkpoint_redis, monkeypatch):
    days = restore(checkpoint_redis, "python-0.0.8", "RedisSaver")
    original = CheckpointStore.apply

    def go_on(self, deletions, *, dryrun):
        checkpoint_redis.json().set(newest_of(checkpoint_redis, "old"), "$.checkpoint.id", old_id(0))
        return original(self, deletions, dryrun=dryrun)

    kept = {key for key in keys_of(checkpoint_redis) if thread_of(key) == "old"}
    monkeypatch.setattr(CheckpointStore, "apply", go_on)
    report = cleanup_old_checkpoints(days)
    assert (report["threads_deleted"], report["changed_count"]) == (3, 1)
    assert kept <= set(keys_of(checkpoint_redis))


@pytest.mark.parametrize(("name", "saver"), [("python-0.4.1", PREFIXED), ("aws-1.0.2", "ValkeySaver")])
def test_a_thread_that_goes_on_during_the_run_keeps_its_old_part(checkpoint_redis, monkeypatch, name, saver):
    days = restore(checkpoint_redis, name, saver)
    kept = {key for key in keys_of(checkpoint_redis) if thread_of(key) == "old"}
    original = CheckpointStore.apply

    def go_on(self, deletions, *, dryrun):
        if saver == PREFIXED:
            checkpoint_redis.set("checkpoint_latest:old:__empty__", f"app:cp:old:__empty__:{old_id(0)}")
        else:
            checkpoint_redis.lpush("thread:old:", old_id(0))
        return original(self, deletions, dryrun=dryrun)

    monkeypatch.setattr(CheckpointStore, "apply", go_on)
    report = cleanup_old_checkpoints(days)
    assert (report["threads_deleted"], report["changed_count"]) == (3, 1)
    assert kept <= set(keys_of(checkpoint_redis))
