"""The cleanup of CompactRedisSaver's threads: each option, what stays, what is left alone, whatever the keys hold."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import replace

import pytest
import redis
from cryptography.fernet import Fernet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.types import Command

from ai_ops.celery_tasks import cleanup_old_checkpoints, cleanup_user_checkpoints, pin_thread, sample_checkpoint_storage
from ai_ops.checkpoints import compact_cleanup
from ai_ops.checkpoints.callbacks import Callbacks
from ai_ops.checkpoints.logic.keys import KeyParser
from ai_ops.checkpoints.logic.pins import Pins
from ai_ops.checkpoints.logic.retention import DAY, RetentionPolicy
from ai_ops.checkpoints.logic.storage import StorageTally
from ai_ops.checkpoints.redis import compact_scripts, compact_store
from ai_ops.jobs.checkpoint_cleanup import CleanupCheckpointsJob
from development.bench_cleanup import compact_thread
from langgraph_checkpoint_compact import CompactRedisSaver, names, removal, scripts
from langgraph_checkpoint_compact.documents import StoredCheckpoint
from langgraph_checkpoint_compact.errors import DamagedThreadError
from tests.fakes.cleanups import executed
from tests.fakes.conversations import DeltaDialogue, days_ago, graph, old_id, on, talk
from tests.fakes.kept_worlds import write

pytestmark = pytest.mark.django_db


@pytest.fixture
def saver(checkpoint_redis):
    return CompactRedisSaver(checkpoint_redis)


def threads_there(client):
    return {names.thread_of("lgc", key) for key in client.scan_iter("lgc:*:ids")}


def checkpoints_of(client, thread):
    return client.zcard(names.thread_keys("lgc", thread)[1])


def put(saver, thread, checkpoint_id, parent=None, **metadata):
    config = {"configurable": {"thread_id": thread, "checkpoint_ns": "", "checkpoint_id": parent}}
    return saver.put(config, empty_checkpoint() | {"id": checkpoint_id}, {"source": "loop", **metadata}, {})


def test_old_threads_go_whole_live_ones_are_trimmed_and_the_report_says_so_by_layout(saver, checkpoint_redis, caplog):
    talk(saver, "old", 60, 40)
    app = talk(saver, "live", 60, 40, 1, subgraph=True)
    checkpoint_redis.set(f"checkpoint:plain:{old_id(40)}", "{}")
    before = app.get_state(on("live")), checkpoints_of(checkpoint_redis, "live")
    dry = cleanup_old_checkpoints(30, dryrun=True)
    assert checkpoints_of(checkpoint_redis, "live") == before[1]
    report = cleanup_old_checkpoints(30)
    assert {**report, "run": 0, "seconds": 0, "dryrun": 0, "memory_before_bytes": 0, "memory_after_bytes": 0} == {
        **dry, "run": 0, "seconds": 0, "dryrun": 0, "memory_before_bytes": 0, "memory_after_bytes": 0
    }  # fmt: skip
    left = checkpoints_of(checkpoint_redis, "live")
    assert (report["deleted_count"], report["threads_deleted"], report["threads_kept"]) == (3, 2, 1)
    assert report["checkpoints_trimmed"] == before[1] - left > 0
    assert report["layouts"]["compact"] | {"checkpoints_trimmed": 0} == {
        "deleted_count": 2, "threads_deleted": 1, "threads_kept": 1, "checkpoints_trimmed": 0, "orphan_count": 0,
        "unfixable_count": 0, "changed_count": 0,
    }  # fmt: skip
    assert report["layouts"]["others"]["threads_deleted"] == 1
    assert f"Threads: 2 deleted, 1 kept. Checkpoints trimmed from live threads: {before[1] - left}." in caplog.text
    assert app.get_state(on("live")) == before[0]
    assert threads_there(checkpoint_redis) == {"live"}
    assert app.invoke({"said": ["more"]}, on("live"))["said"][0] == "60 days ago"
    again = cleanup_old_checkpoints(30)
    assert (again["deleted_count"], again["checkpoints_trimmed"], again["error"]) == (0, 0, None)


def test_the_jobs_table_has_the_threads_that_went(saver):
    talk(saver, "=old", 40, subgraph=True)
    job, made = CleanupCheckpointsJob(), []
    job.create_file = lambda name, text: made.append((name, text))
    job.run(retention_days=30)
    ((name, text),) = made
    assert name == "deleted-threads.csv"
    row = text.splitlines()[1]
    assert row.startswith('"\'=old",2,2,')


def test_threads_of_a_pattern_of_a_user_and_pinned_ones(saver, checkpoint_redis):
    for thread in ("user-1-a", "user-1*b", "user-11-a", "{user-1-a}", "a:b", "ü", ""):
        talk(saver, thread, 40)
    assert cleanup_user_checkpoints("1") == 2
    assert "user-1-a" not in threads_there(checkpoint_redis)
    pin_thread("a:b")
    assert cleanup_old_checkpoints(30, pinned_threads=["ü", ""])["threads_kept"] == 3
    assert threads_there(checkpoint_redis) == {"a:b", "ü", ""}
    assert cleanup_old_checkpoints(30, thread_pattern="a:?")["deleted_count"] == 0


def test_a_pin_that_is_set_while_the_run_goes_on_holds(saver, checkpoint_redis):
    talk(saver, "old", 40)
    pins = iter([Pins(), Pins(frozenset({"old"})), Pins(frozenset({"old"}))])
    run = executed(checkpoint_redis, pinned=lambda: next(pins))
    assert (run.tally.threads_deleted, run.tally.threads_kept) == (0, 1)
    assert threads_there(checkpoint_redis) == {"old"}


@pytest.mark.parametrize("asked", range(1, 9))
def test_nothing_goes_after_it_was_pinned_whatever_was_looked_at_before(saver, checkpoint_redis, monkeypatch, asked):
    """Redis is asked about some threads while others are decided on: each is decided on with the pins of then."""
    monkeypatch.setattr(compact_cleanup, "THREADS_AT_ONCE", 2)
    threads = {f"t-{number}" for number in range(7)}
    for thread in threads:
        put(saver, thread, old_id(40))
    calls, apply, gone = [], compact_store.CompactStore.apply, []

    def pinned():
        calls.append(1)
        return Pins(frozenset(threads) if len(calls) > asked else frozenset())

    def applied(self, deletions, *, dryrun):
        gone.extend((len(calls), each.thread) for each in deletions)
        return apply(self, deletions, dryrun=dryrun)

    monkeypatch.setattr(compact_store.CompactStore, "apply", applied)
    run = executed(checkpoint_redis, pinned=pinned)
    assert all(then <= asked for then, _ in gone)
    assert run.tally.threads_deleted == len(gone)
    assert run.tally.threads_kept == len(threads) - len(gone)
    assert len(threads_there(checkpoint_redis)) == run.tally.threads_kept


def test_a_thread_that_is_copied_into_is_looked_at_again(saver, checkpoint_redis, monkeypatch):
    talk(saver, "there", 40)
    talk(saver, "from", 40)
    apply = compact_store.CompactStore.apply
    steps = removal.copy_thread(saver._session(), "from", "there")

    def copied(self, deletions, *, dryrun):
        request = steps.send(None)
        while getattr(request, "script", None) is not scripts.RESTORE or not request.arguments[1]:
            request = steps.send(saver._driver._answer(request))
        # What is copied may be of a newer version.
        checkpoint_redis.hset("lgc:{there}", b"c|" + checkpoint_redis.zrange("lgc:{there}:ids", 0, 0)[0], b"\x02")
        return apply(self, deletions, dryrun=dryrun)

    monkeypatch.setattr(compact_store.CompactStore, "apply", copied)
    run = executed(checkpoint_redis)
    assert (run.tally.threads_deleted, run.tally.unfixable) == (1, 1)
    assert threads_there(checkpoint_redis) == {"there"}


def test_keep_last_and_untrimmed_threads(saver, checkpoint_redis):
    talk(saver, "live", 60, 50, 1)
    whole = checkpoints_of(checkpoint_redis, "live")
    assert cleanup_old_checkpoints(30, trim_live_threads=False)["checkpoints_trimmed"] == 0
    assert cleanup_old_checkpoints(30, keep_last=whole)["checkpoints_trimmed"] == 0
    cleanup_old_checkpoints(30, keep_last=whole - 2)
    assert checkpoints_of(checkpoint_redis, "live") == whole - 2


def test_threads_that_wait_have_a_retention_of_their_own(saver, checkpoint_redis):
    for subgraph in (False, True):
        talk(saver, f"waits {subgraph}", 40, asks=True, subgraph=subgraph)
        talk(saver, f"waited {subgraph}", 80, 60, 2, asks=True, subgraph=subgraph)
    talk(saver, "silent", 40)
    whole = checkpoints_of(checkpoint_redis, "waited True")
    report = cleanup_old_checkpoints(30, pending_retention_days=50)
    assert (report["threads_deleted"], report["threads_kept"], report["checkpoints_trimmed"]) == (1, 4, 0)
    assert checkpoints_of(checkpoint_redis, "waited True") == whole
    app = graph(saver, asks=True)
    assert app.invoke(Command(resume="yes"), on("waits False"))["said"][-1] == "you said yes"
    talk(saver, "waits again", 40, asks=True)
    report = cleanup_old_checkpoints(60, pending_retention_days=30)
    assert report["threads_deleted"] == 2, "those that wait for longer than 30 days"


def test_what_a_user_says_is_no_interrupt(saver, checkpoint_redis):
    with days_ago(40):
        graph(saver).invoke({"said": ["__interrupt__"]}, on("said"))
    assert cleanup_old_checkpoints(30, pending_retention_days=50)["threads_deleted"] == 1


def test_delta_channels_read_back_after_a_cleanup(saver, checkpoint_redis):
    app = graph(saver, state=DeltaDialogue)
    for age in (60, 50, 40, 20, 10):
        with days_ago(age):
            app.invoke({"said": [f"{age}"]}, on("t"))
    young = [each for each in app.get_state_history(on("t")) if each.created_at > "2026" and _age(each) < 30]
    before = {each.config["configurable"]["checkpoint_id"]: each.values for each in young}
    assert cleanup_old_checkpoints(30)["checkpoints_trimmed"] > 0
    after = {each.config["configurable"]["checkpoint_id"]: each.values for each in app.get_state_history(on("t"))}
    assert {name: after[name] for name in before} == before


def _age(state):
    digits = state.config["configurable"]["checkpoint_id"].replace("-", "")
    return (time.time() - (int(digits[:12] + digits[13:16], 16) - 0x01B21DD213814000) / 1e7) / DAY


def test_max_deletions_counts_trimmed_checkpoints_and_leaves_whole_threads(saver, checkpoint_redis):
    for number in range(4):
        talk(saver, f"old-{number}", 40)
    app = talk(saver, "live", 60, 1)
    report = cleanup_old_checkpoints(30, max_deletions=5)
    assert (report["deleted_count"], report["checkpoints_trimmed"], report["limit_reached"]) == (4, 0, True)
    assert len(threads_there(checkpoint_redis)) == 3
    report = cleanup_old_checkpoints(30, max_deletions=7)
    assert (report["deleted_count"], report["limit_reached"]) == (4, True) or report["checkpoints_trimmed"] <= 3
    assert app.get_state(on("live")).values["said"][0] == "60 days ago"


def test_a_prefix_of_its_own(saver, checkpoint_redis, settings):
    settings.PLUGINS_CONFIG = {"ai_ops": {"compact_prefix": "agents:2"}}
    talk(CompactRedisSaver(checkpoint_redis, prefix="agents:2"), "old", 40)
    talk(saver, "another's", 40)
    assert cleanup_old_checkpoints(30)["deleted_count"] == 2
    assert threads_there(checkpoint_redis) == {"another's"}


def test_the_storage_page_knows_them(saver, checkpoint_redis):
    talk(saver, "old", 40)
    talk(saver, "live", 60, 1)
    pin_thread("live")
    pin_thread("gone")
    sampled = sample_checkpoint_storage()
    assert sampled["savers"] == {"CompactRedisSaver": 2}
    assert sampled["families"] == {"compact threads": 4}
    assert (sampled["checkpoint_keys"], sampled["thread_count"], sampled["undated_keys"]) == (4, 2, 0)
    assert [row["thread"] for row in sampled["oldest_threads"]] == ["old", "live"]
    assert all(row["bytes"] > 500 for row in sampled["largest_threads"])
    assert sampled["missing_pins"] == ["gone"]
    assert sampled["cleanup"]["threads_deleted"] == 1
    assert sampled["server"]["saver"] == "CompactRedisSaver"
    assert len(threads_there(checkpoint_redis)) == 2


# ---------------------------------------------------------------------------------- halves


def test_one_key_without_the_other_goes_an_hour_after_its_time(saver, checkpoint_redis):
    for thread, age in (("hash", 2), ("ids", 2), ("young hash", 0), ("young ids", 0), ("pinned", 2)):
        talk(saver, thread, age)
        key, ids = names.thread_keys("lgc", thread)
        checkpoint_redis.delete(ids if "hash" in thread else key)
    dry = cleanup_old_checkpoints(30, dryrun=True, pinned_threads=["pinned"])
    report = cleanup_old_checkpoints(30, pinned_threads=["pinned"])
    assert dry["orphan_count"] == report["orphan_count"] == report["deleted_count"] == 2
    left = (b"lgc:{young%20hash}", b"lgc:{young%20ids}:ids", b"lgc:{pinned}:ids")
    assert set(checkpoint_redis.keys("lgc:*")) == set(left)


def test_a_copy_that_is_being_made_is_left_alone(saver, checkpoint_redis):
    talk(saver, "old", 40)
    saver.delete_thread("copy")
    steps = removal.copy_thread(saver._session(), "old", "copy")
    answer = None
    request = steps.send(None)
    while True:
        answer = saver._driver._answer(request)
        request = steps.send(answer)
        if getattr(request, "script", None) is scripts.RESTORE and request.arguments[1]:
            break
    assert checkpoint_redis.exists("lgc:{copy}")
    assert cleanup_old_checkpoints(30, pinned_threads=["old"])["deleted_count"] == 0
    with pytest.raises(StopIteration):
        steps.send(saver._driver._answer(request))
    assert graph(saver).get_state(on("copy")).values == graph(saver).get_state(on("old")).values


def test_writes_that_come_before_their_checkpoint_stay_for_an_hour(saver, checkpoint_redis):
    for thread, age in (("now", 0), ("then", 1)):
        config = {"configurable": {"thread_id": thread, "checkpoint_ns": "", "checkpoint_id": old_id(age)}}
        saver.put_writes(config, [("said", ["x"])], "task")
    assert cleanup_old_checkpoints(30)["orphan_count"] == 1
    assert checkpoint_redis.keys("lgc:*") == [b"lgc:{now}"]


# ---------------------------------------------------------------------------------- what is not known


def without_seal(client, key):
    """Write as a version of the saver does that knows no seal."""
    client.hdel(key, "s")


def counted(client, key):
    """Write as any version does: it counts its writings."""
    client.hincrby(key, "p", 1)


def with_a_newer_seal(client, key):
    """Write as a newer version does: its seal names its format."""
    newest, writings = client.hmget(key, "n", "p")
    counts = writings, client.hlen(key), client.zcard(key + ":ids")
    client.hset(key, "s", b"2 %b %d %d |%b" % (*counts, newest))


@pytest.mark.parametrize("field", ["c", "w"])
@pytest.mark.parametrize("age", [40, 1])
@pytest.mark.parametrize("place", [0, 2, -1])
@pytest.mark.parametrize("written", [without_seal, counted, with_a_newer_seal])
def test_a_thread_with_a_document_of_a_newer_version_stays_and_is_counted(
    saver, checkpoint_redis, field, age, place, written
):
    def talks():
        talk(saver, "t", 60, 50, age, asks=True)
        talk(saver, "u", 60, age)

    write(checkpoint_redis, f"beside a newer version, {age} days ago", talks)
    member = checkpoint_redis.zrange("lgc:{t}:ids", place, place)[0].decode()
    name = f"{field}|{member}"
    checkpoint_redis.hset("lgc:{t}", name, b"\x02" + (checkpoint_redis.hget("lgc:{t}", name) or b" ")[1:])
    written(checkpoint_redis, "lgc:{t}")
    before = checkpoint_redis.hgetall("lgc:{t}")
    report = cleanup_old_checkpoints(30)
    assert (checkpoint_redis.hgetall("lgc:{t}") == before) is True
    if age == 40:
        assert (report["unfixable_count"], report["threads_deleted"], report["threads_kept"]) == (1, 1, 1)
        assert cleanup_old_checkpoints(30, dryrun=True)["unfixable_count"] == 1
    elif field == "c":
        # Of a thread that stays, what waits and is not trimmed needs no look at its documents.
        assert report["unfixable_count"] == 1


@pytest.mark.parametrize("age", [40, 1])
def test_a_seal_of_a_newer_format_is_reason_enough_to_stay(saver, checkpoint_redis, age):
    talk(saver, "t", 60, 50, age)
    checkpoint_redis.hset("lgc:{t}", "x|what no version knows yet", b"\x02")
    with_a_newer_seal(checkpoint_redis, "lgc:{t}")
    before = checkpoints_of(checkpoint_redis, "t")
    report = cleanup_old_checkpoints(30)
    assert (report["threads_deleted"], report["checkpoints_trimmed"], report["unfixable_count"]) == (0, 0, 1)
    assert checkpoints_of(checkpoint_redis, "t") == before


@pytest.mark.parametrize("unsealed", [False, True])
def test_of_a_sealed_thread_no_document_is_read_to_delete_it(saver, checkpoint_redis, unsealed):
    talk(saver, "t", 60, 55, 50, 45, 40, subgraph=True)
    if unsealed:
        without_seal(checkpoint_redis, "lgc:{t}")
    checkpoint_redis.config_resetstat()
    report = cleanup_old_checkpoints(30)
    assert report["threads_deleted"] == 1
    assert report["largest_threads"][0]["namespaces"] == 2
    calls = checkpoint_redis.info("commandstats")
    # What a look takes of the heads, and a deletion again; without the seal every document is read.
    assert (calls["cmdstat_hmget"]["calls"] <= 2) is not unsealed


def test_the_threads_of_the_benchmark_have_a_seal_that_the_saver_goes_on_from(saver, checkpoint_redis):
    for command in compact_thread(1, 40):
        checkpoint_redis.execute_command(*command)
    newest = checkpoint_redis.hget("lgc:{user-1}", "n").decode()
    config = {"configurable": {"thread_id": "user-1", "checkpoint_ns": "", "checkpoint_id": newest}}
    saver.put_writes(config, [("said", ["x"])], "task")
    assert checkpoint_redis.hget("lgc:{user-1}", "s") == f"1 16 34 15 |{newest}".encode()


def test_the_formats_of_the_cleanup_and_of_the_saver_are_the_same():
    assert compact_scripts.FORMAT == scripts.FORMAT


def test_threads_without_a_readable_time_stay_and_are_counted(saver, checkpoint_redis, caplog):
    undated = {
        "v4": "0d3b4d3e-7c1f-4a10-9a3e-2d1b0c9f8e7d",
        "v1": "0d3b4d3e-7c1f-11ea-9a3e-2d1b0c9f8e7d",
        "text": "one",
        "future": old_id(-400),
    }
    for thread, checkpoint_id in undated.items():
        put(saver, thread, checkpoint_id)
    put(saver, "mixed", old_id(60))
    put(saver, "mixed", "1", old_id(60))
    talk(saver, "lies", 60)
    checkpoint_redis.hset("lgc:{lies}", "n", old_id(70))
    report = cleanup_old_checkpoints(30)
    assert (report["threads_deleted"], report["unfixable_count"]) == (0, 6)
    assert "lgc:{" in caplog.text


class Cipher:
    """The interface that EncryptedSerializer asks for."""

    def __init__(self):
        self.fernet = Fernet(Fernet.generate_key())

    def encrypt(self, plaintext):
        return "fernet", self.fernet.encrypt(plaintext)

    def decrypt(self, ciphername, ciphertext):
        return self.fernet.decrypt(ciphertext)


@pytest.fixture
def encrypting(checkpoint_redis):
    return CompactRedisSaver(checkpoint_redis, serde=EncryptedSerializer(Cipher()))


def test_encrypted_threads_go_whole_and_are_trimmed_without_the_key(encrypting, checkpoint_redis):
    talk(encrypting, "old", 60)
    app = talk(encrypting, "live", 60, 50, 1, subgraph=True)
    before = app.get_state(on("live"))
    whole = checkpoints_of(checkpoint_redis, "live")
    dry = cleanup_old_checkpoints(30, dryrun=True)
    report = cleanup_old_checkpoints(30)
    assert (report["threads_deleted"], report["unfixable_count"]) == (1, 0)
    trimmed = whole - checkpoints_of(checkpoint_redis, "live")
    assert report["checkpoints_trimmed"] == dry["checkpoints_trimmed"] == trimmed > 0
    assert app.get_state(on("live")) == before
    assert app.invoke({"said": ["more"]}, on("live"))["said"][0] == "60 days ago"
    stored = b"".join(part for pair in checkpoint_redis.hgetall("lgc:{live}").items() for part in pair)
    assert b"days ago" not in stored


def test_encrypted_delta_channels_read_back_after_a_cleanup(encrypting, checkpoint_redis):
    app = graph(encrypting, state=DeltaDialogue)
    for age in (70, 60, 50, 40, 35, 20, 10):
        with days_ago(age):
            app.invoke({"said": [f"{age}"]}, on("t"))
    young = [each for each in app.get_state_history(on("t")) if _age(each) < 30]
    before = {each.config["configurable"]["checkpoint_id"]: each.values for each in young}
    assert cleanup_old_checkpoints(30)["checkpoints_trimmed"] > 0
    after = {each.config["configurable"]["checkpoint_id"]: each.values for each in app.get_state_history(on("t"))}
    assert {name: after[name] for name in before} == before
    assert app.invoke({"said": ["more"]}, on("t"))["said"][0] == "70"


def test_an_encrypted_thread_that_waits_for_an_answer_is_not_trimmed(encrypting, checkpoint_redis):
    app = talk(encrypting, "t", 60, 50, 1, asks=True)
    whole = checkpoints_of(checkpoint_redis, "t")
    assert cleanup_old_checkpoints(30)["checkpoints_trimmed"] == 0
    assert checkpoints_of(checkpoint_redis, "t") == whole
    assert app.invoke(Command(resume="yes"), on("t"))["said"][-1] == "you said yes"
    assert cleanup_old_checkpoints(30)["checkpoints_trimmed"] > 0


def as_the_first_version(client, thread):
    """Take from the documents of a thread what the first version of the saver did not write."""
    key = names.thread_keys("lgc", thread)[0]
    for field, document in client.hgetall(key).items():
        if field.startswith(b"c|"):
            client.hset(key, field, replace(StoredCheckpoint.decode(document, ""), open_channels=None).encode())
    without_seal(client, key)


def test_an_encrypted_thread_of_the_first_version_is_trimmed_once_all_that_stays_is_newer(encrypting, checkpoint_redis):
    app = talk(encrypting, "t", 60, 50, 20)
    as_the_first_version(checkpoint_redis, "t")
    whole = checkpoints_of(checkpoint_redis, "t")
    report = cleanup_old_checkpoints(30)
    assert (report["checkpoints_trimmed"], report["unfixable_count"]) == (0, 0)
    assert checkpoints_of(checkpoint_redis, "t") == whole
    app.invoke({"said": ["more"]}, on("t"))
    assert cleanup_old_checkpoints(30)["checkpoints_trimmed"] == 0, "what is of twenty days ago does not say its needs"
    assert cleanup_old_checkpoints(15)["checkpoints_trimmed"] == whole
    assert app.get_state(on("t")).values["said"][0] == "60 days ago"


def test_a_plain_thread_of_the_first_version_is_trimmed_by_its_metadata(saver, checkpoint_redis):
    app = graph(saver, state=DeltaDialogue)
    for age in (60, 50, 40, 35, 1):
        with days_ago(age):
            app.invoke({"said": [f"{age}"]}, on("t"))
    before = app.get_state(on("t")).values
    as_the_first_version(checkpoint_redis, "t")
    assert cleanup_old_checkpoints(30)["checkpoints_trimmed"] > 0
    assert app.get_state(on("t")).values == before


def test_metadata_make_no_object_that_they_name(saver, checkpoint_redis, monkeypatch):
    class Evil:
        def model_dump(self):
            return {}

    monkeypatch.setattr("langgraph.checkpoint.serde.jsonplus._msgpack_ext_hook", lambda *_: os.abort(), raising=False)
    root = old_id(60)
    put(saver, "t", root, evil=Evil())
    put(saver, "t", old_id(1), root)
    assert cleanup_old_checkpoints(30)["checkpoints_trimmed"] == 1


# ---------------------------------------------------------------------------------- size, writers


def filled(saver, thread, count, days):
    """A thread of so many checkpoints."""
    parent = None
    with days_ago(days):
        for _ in range(count):
            made = str(uuid6(clock_seq=0))
            put(saver, thread, made, parent)
            parent = made


def test_threads_of_thousands_of_checkpoints(saver, checkpoint_redis, monkeypatch):
    monkeypatch.setattr(compact_scripts, "CHECKED_AT_ONCE", 200)
    filled(saver, "old", 1000, 40)
    filled(saver, "live", 1000, 40)
    filled(saver, "newer", 450, 40)
    for thread in ("old", "newer"):
        without_seal(checkpoint_redis, f"lgc:{{{thread}}}")
    oldest = checkpoint_redis.zrange("lgc:{newer}:ids", 430, 430)[0].decode()
    checkpoint_redis.hset("lgc:{newer}", f"c|{oldest}", b"\x02")
    put(saver, "live", old_id(1), names.split_member(checkpoint_redis.zrange("lgc:{live}:ids", -1, -1)[0])[1])
    report = cleanup_old_checkpoints(30)
    assert (report["threads_deleted"], report["checkpoints_trimmed"], report["unfixable_count"]) == (1, 1000, 1)


def test_large_documents_are_looked_at_in_portions(saver, checkpoint_redis):
    for thread in ("a", "b"):
        for number in range(3):
            put(saver, thread, old_id(50 - number), words="x" * (3 * 1024 * 1024))
    put(saver, "huge", old_id(50), words="x" * (9 * 1024 * 1024))
    for thread in ("a", "b", "huge"):
        without_seal(checkpoint_redis, f"lgc:{{{thread}}}")
    report = cleanup_old_checkpoints(30)
    assert (report["threads_deleted"], report["unfixable_count"]) == (2, 1)


@pytest.mark.parametrize("write", ["put", "writes", "delete"])
def test_a_thread_that_goes_on_after_the_look_stays(saver, checkpoint_redis, monkeypatch, write):
    talk(saver, "old", 40)
    talk(saver, "live", 60, 50, 1)
    talk(saver, "gone", 40)
    look = compact_store.CompactStore.apply

    def interfering(self, deletions, *, dryrun):
        for thread in {each.thread.decode() for each in deletions} & {"old", "live"}:
            if write == "put":
                talk(saver, thread, 0)
            elif write == "delete":
                saver.delete_thread(thread)
            else:
                newest = checkpoint_redis.hget(f"lgc:{{{thread}}}", "n").decode()
                config = {"configurable": {"thread_id": thread, "checkpoint_ns": "", "checkpoint_id": newest}}
                saver.put_writes(config, [("__interrupt__", "?")], "task")
        return look(self, deletions, dryrun=dryrun)

    monkeypatch.setattr(compact_store.CompactStore, "apply", interfering)
    run = executed(checkpoint_redis)
    assert run.tally.threads_deleted == 1
    if write == "delete":
        assert threads_there(checkpoint_redis) == set()
        return
    assert run.tally.changed == 2
    assert threads_there(checkpoint_redis) == {"old", "live"}
    assert graph(saver).get_state(on("old")).values["said"][0] == "40 days ago"
    assert graph(saver).get_state(on("live")).values["said"][0] == "60 days ago"


def test_a_writer_beside_loses_no_message(saver, checkpoint_server, checkpoint_redis):
    apps = [talk(saver, f"t-{number}", 60, 40) for number in range(6)]
    stop, said = threading.Event(), dict.fromkeys(range(6), 0)

    def go_on():
        with checkpoint_server.client(0) as own:
            app = graph(CompactRedisSaver(own))
            while not stop.is_set():
                for number in range(0, 6, 2):
                    app.invoke({"said": ["more"]}, on(f"t-{number}"))
                    said[number] += 1

    with checkpoint_server.client(0) as first:
        for number in range(0, 6, 2):
            graph(CompactRedisSaver(first)).invoke({"said": ["first"]}, on(f"t-{number}"))
    writer = threading.Thread(target=go_on)
    writer.start()
    try:
        for _ in range(5):
            cleanup_old_checkpoints(30)
    finally:
        stop.set()
        writer.join()
    assert threads_there(checkpoint_redis) == {"t-0", "t-2", "t-4"}
    for number in range(0, 6, 2):
        values = apps[number].get_state(on(f"t-{number}")).values["said"]
        assert values[0] == "60 days ago"
        assert values.count("more") == said[number]


# ---------------------------------------------------------------------------------- hostile values

OLD_IDS = tuple(old_id(days).encode() for days in (60, 40, 1, 0))
IDS = st.sampled_from((*OLD_IDS, b"one", b"\xff" * 36)) | st.binary(max_size=40)
SPACES = st.sampled_from((b"", b"child", b"a|b"))
NAMES = st.sampled_from((b"n", b"p", b"c||", b"w||", b"v||a|s1", b"l|x", b"k|x|0", b"c|", b""))
FIELDS = (
    st.builds(lambda *parts: b"|".join(parts), st.sampled_from((b"c", b"w", b"v", b"o|9")), SPACES, IDS)
    | NAMES
    | st.binary(max_size=6)
)
VALUES = st.binary(max_size=60) | st.sampled_from((
    b"", b"\x01", b"\x02" * 30, b"\x01" + b"\x00" * 40, b"\x01\x00\x00\x00\x0d" + b"\x00" * 8 + b"o",
    b"\x01" + b"\xff" * 60, b"\x01i" + b"\x00" * 22,
)) | IDS  # fmt: skip
HASHES = st.dictionaries(FIELDS, VALUES, max_size=8)
MEMBERS = st.lists(st.builds(lambda *parts: b"|".join(parts), SPACES, IDS) | st.binary(max_size=6), max_size=5)
WORLD = st.dictionaries(
    st.sampled_from((b"a", b"a%20b", b"%", b"%zz", b"a:b")),
    st.tuples(HASHES, MEMBERS, st.none() | IDS, st.sampled_from(("hash", "hash", "hash", "string", "none")),
              st.sampled_from(("zset", "zset", "zset", "list", "none"))),
    min_size=1, max_size=3,
)  # fmt: skip


@settings(
    max_examples=int(os.environ.get("AI_OPS_COMPACT_EXAMPLES", "150")),
    deadline=None, database=None, suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(world=WORLD, damage=st.dictionaries(FIELDS, VALUES, max_size=3), which=st.integers(0, 30))
def test_whatever_the_keys_hold_no_run_ends_early_and_what_is_no_threads_stays(
    checkpoint_redis, real, world, damage, which
):
    client = checkpoint_redis
    client.flushdb()
    for name, (fields, members, newest, kind, kind_of_ids) in world.items():
        key = b"lgc:{" + name + b"}"
        fields = fields | ({b"n": newest} if newest else {})
        if kind == "hash" and fields:
            client.hset(key, mapping=fields)
        elif kind == "string":
            client.set(key, "x")
        if kind_of_ids == "zset" and members:
            client.zadd(key + b":ids", dict.fromkeys(members, 0))
        elif kind_of_ids == "list":
            client.rpush(key + b":ids", "x")
    # A conversation of the saver, of which something else has changed a few fields.
    for key, value in real.items():
        client.restore(key, 0, value, replace=True)
    there = sorted(client.hkeys("lgc:{real}"))
    for name, value in (damage | {there[which % len(there)]: next(iter(damage.values()), b"\x01")}).items():
        client.hset("lgc:{real}", name, value)
    for key in STRANGERS:
        client.set(key, "another program's")
    for days, pending in ((30, 40), (4000, 40), (40, 30)):
        tally = StorageTally(time.time(), frozenset())
        parser = KeyParser(time.time())
        run = executed(
            client, policy=RetentionPolicy(days * DAY, pending * DAY),
            callbacks=Callbacks(on_compact=lambda looks: tally.add_compact(looks, parser)),  # noqa: B023
        )  # fmt: skip
        json.dumps([tally.oldest(), tally.largest({}), run.report(days, "").as_dict()])
    assert client.exists(*STRANGERS) == len(STRANGERS)
    assert client.exists("lgc:{real}:ids")


STRANGERS = (b"lgc:{a b}", b"lgc:x", b"lgc:{a}:other", b"lgc:{a}x:ids", b"lgc:{\xff}")


@pytest.fixture(scope="module")
def real(checkpoint_server):
    """The keys of a live conversation with old checkpoints, as DUMP gives them."""
    with checkpoint_server.client(0) as client:
        talk(CompactRedisSaver(client), "real", 60, 50, 1, asks=True)
        return {key: client.dump(key) for key in ("lgc:{real}", "lgc:{real}:ids")}


def test_huge_fields_and_names_do_not_follow_into_the_workers_memory(saver, checkpoint_redis):
    talk(saver, "fields", 60, 50, 1)
    for _ in range(12):
        member = f"x|{old_id(50)}"
        checkpoint_redis.hset("lgc:{fields}", f"c|{member}", "x" * 8_000_000)
        checkpoint_redis.zadd("lgc:{fields}:ids", {member: 0})
    talk(saver, "newest", 60)
    checkpoint_redis.hset("lgc:{newest}", "n", "x" * 8_000_000)
    talk(saver, "members", 60, 1)
    checkpoint_redis.zadd("lgc:{members}:ids", {b"|" + b"x" * 1_000_000: 0})
    report = cleanup_old_checkpoints(30)
    assert report["success"]
    assert (report["threads_deleted"], report["unfixable_count"]) == (0, 3)


def test_a_run_gives_its_connections_back(saver, checkpoint_redis):
    put(saver, "young", old_id(1))
    # The scan and the scripts have a connection each.
    known = checkpoint_redis.connection_pool.connection_kwargs
    address = {name: known[name] for name in ("host", "port", "password", "db") if name in known}
    with redis.Redis(**address, max_connections=2) as client:
        for _ in range(3):
            assert executed(client).tally.threads_kept == 1


@pytest.mark.parametrize("name", [b"child|\xff", b"\xff|" + b"1" * 36, b"%FF|" + b"1" * 36])
def test_a_name_that_is_not_utf_8_is_damage_and_ends_no_run(saver, checkpoint_redis, name):
    with pytest.raises(DamagedThreadError):
        names.split_member(name)
    talk(saver, "live", 60, 40, 1)
    whole = checkpoint_redis.zcard("lgc:{live}:ids")
    document = checkpoint_redis.hget("lgc:{live}", b"c|" + checkpoint_redis.zrange("lgc:{live}:ids", 0, 0)[0])
    checkpoint_redis.zadd("lgc:{live}:ids", {name: 0})
    checkpoint_redis.hset("lgc:{live}", b"c|" + name, document)
    talk(saver, "old", 40)
    assert cleanup_old_checkpoints(30)["threads_deleted"] == 1
    assert checkpoint_redis.zcard("lgc:{live}:ids") == whole + 1
