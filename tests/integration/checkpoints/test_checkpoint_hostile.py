"""Whatever lies in the checkpoint Redis: no run ends early, nothing foreign goes, and memory stays bounded."""

from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from ai_ops.celery_tasks import sample_checkpoint_storage
from ai_ops.checkpoints import orphans
from ai_ops.checkpoints.logic.retention import DAY
from ai_ops.checkpoints.redis.client import RetryingRedis
from ai_ops.choices import RunStateChoices
from ai_ops.logic.batches import batches
from ai_ops.models import MaintenanceRun
from tests.fakes.cleanups import cleaned, emptied, examples, tell_growth
from tests.fakes.conversations import old_id
from tests.fakes.kept_worlds import everything
from tests.fakes.runs import FreeHold

MIB = 1024 * 1024
OLD = old_id(60)
WORDS = (
    "",
    "t",
    "checkpoint",
    "__empty__",
    "{t}",
    OLD,
    old_id(1),
    "0",
    "-3",
    "\ud800",
    "é",
    "\x00",
    "\n",
    "$.thread_id",
)
HEADS = ("checkpoint", "checkpoint_latest", "checkpoint_blob", "checkpoint_write", "write_keys_zset", "write_registry",
         "writes", "thread", "another_program")  # fmt: skip
names = st.lists(st.sampled_from(WORDS) | st.text(max_size=3), max_size=6)
any_keys = st.builds(
    lambda head, parts, raw: ":".join([head, *parts]).encode(errors="surrogatepass") + raw,
    st.sampled_from(HEADS),
    names,
    st.just(b"") | st.binary(max_size=2),
)
# Those of a few checkpoints, so that what belongs together meets.
proper_keys = st.builds(
    lambda head, stem, made: f"{head}:{stem}:{made}{':task:0' if head == 'checkpoint_write' else ''}".encode(),
    st.sampled_from(HEADS[:-1]),
    st.sampled_from(("t:__empty__", "t:", "{t}:", "t:child")),
    st.sampled_from((OLD, old_id(1), old_id(0), "shallow")),
)
keys = any_keys | proper_keys
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | (
    st.sampled_from((*WORDS, "2024-01-01T00:00:00+00:00", "not base64", "e30=", "2024-13-99T99:99:99"))
)  # fmt: skip
fields = st.sampled_from(
    ("thread_id", "checkpoint_ns", "checkpoint_id", "parent_checkpoint_id", "checkpoint", "ts", "id", "metadata",
     "channel", "channel_versions", "counters_since_delta_snapshot", "$.thread_id", "$.checkpoint_id", "\ud800")
)  # fmt: skip
trees = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(fields, inner, max_size=3))
documents = st.dictionaries(fields, trees, max_size=6)
metadata = st.dictionaries(fields, trees, max_size=2)
nested = st.builds(lambda some, inner: some | {"metadata": inner, "checkpoint": inner}, documents, metadata)
texts = (documents | nested | trees).map(lambda each: json.dumps(each).encode())
members = st.lists(keys | st.binary(min_size=1, max_size=9), min_size=1, max_size=3)
values = (
    st.tuples(st.just("string"), st.binary(max_size=40) | texts)
    | st.tuples(st.just("json"), documents | nested | trees)
    | st.tuples(st.sampled_from(("list", "set", "zset", "hash", "stream")), members)
    | st.tuples(st.sampled_from(("hyperloglog", "bitmap")), st.integers(0, 99))
)  # fmt: skip


def write(client: Any, key: bytes, kind: str, value: Any) -> None:
    """Write a key that is not there yet."""
    if kind == "string":
        client.set(key, value)
    elif kind == "json":
        try:
            client.execute_command("JSON.SET", key, "$", json.dumps(value))
        except ResponseError:
            # RedisJSON refuses half of a surrogate pair; a string takes it.
            client.set(key, json.dumps(value))
    elif kind == "list":
        client.rpush(key, *value)
    elif kind == "set":
        client.sadd(key, *value)
    elif kind == "zset":
        client.zadd(key, dict.fromkeys(value, 0))
    elif kind == "hash":
        client.hset(key, mapping={each: each for each in value})
    elif kind == "stream":
        client.xadd(key, {each: each for each in value})
    elif kind == "hyperloglog":
        client.pfadd(key, value)
    else:
        client.setbit(key, value, 1)


@pytest.fixture(scope="module")
def client(checkpoint_server):
    client = checkpoint_server.client(1)
    yield client
    emptied(client)


EVIL = b"checkpoint:evil:x"
worlds = st.dictionaries(keys, values, min_size=1, max_size=8)


def fill(client: Any, world: dict[bytes, tuple[str, Any]]) -> set[bytes]:
    """Write this world and nothing else; its keys."""
    emptied(client)
    for key, (kind, value) in world.items():
        write(client, key, kind, value)
    return set(client.keys())


@examples(100)
@given(worlds)
@example({EVIL: ("string", b'{"$.thread_id":["\\ud800"]}')})
@example({EVIL: ("json", {"thread_id": "\ud800"})})
@example({EVIL: ("json", {"thread_id": "t", "checkpoint_id": "\ud800"})})
@example({EVIL: ("json", {"thread_id": "t", "checkpoint_ns": "\ud800"})})
@example({EVIL: ("json", {"thread_id": ["t"], "checkpoint_ns": 1, "checkpoint_id": {}})})
def test_no_run_ends_early_and_what_is_another_programs_stays(client, world):
    before = fill(client, world)
    for retention in (30 * DAY, time.time()):
        run = cleaned(client, retention=retention, pinned=frozenset({"pinned"}))
        assert run.tally.processed >= len(before & set(client.keys()))
    gone = before - set(client.keys())
    assert not {key for key in gone if key.startswith(b"another_program")}
    assert not {key for key in gone if client.exists(key)}
    for key in gone:
        kind = world[key][0]
        assert kind in ("string", "json", "list", "set", "zset", "hyperloglog", "bitmap"), (key, world[key])


@examples(50)
@given(trees | metadata, st.sampled_from(("metadata", "parent_checkpoint_id", "checkpoint", "channel", "thread_id")))
@example({"counters_since_delta_snapshot": {"a": 1}}, "metadata")
@example({"counters_since_delta_snapshot": [1]}, "metadata")
@example("\ud800", "metadata")
def test_no_value_in_a_live_thread_ends_a_run_or_costs_its_head(client, value, field):
    emptied(client)
    ids = [old_id(days) for days in (60, 50, 40, 1)]
    for number, each in enumerate(ids):
        document = {"thread_id": "t", "checkpoint_ns": "__empty__", "checkpoint_id": each, "metadata": "{}",
                    "checkpoint": {"id": each}, field: value}  # fmt: skip
        write(client, f"checkpoint:t:__empty__:{each}".encode(), "json", document)
        write(client, f"checkpoint:{{v}}::{each}".encode(), "string", json.dumps(document).encode())
        client.rpush("thread:{v}:", ids[-1 - number])
        write(client, f"writes:{{v}}::{each}".encode(), "string", json.dumps(value).encode())
        write(client, f"checkpoint_write:t:__empty__:{each}:{old_id(0)}:0".encode(), "json", {field: value})
    client.set("checkpoint_latest:t:__empty__", f"checkpoint:t:__empty__:{ids[-1]}")
    cleaned(client)
    assert client.exists(f"checkpoint:t:__empty__:{ids[-1]}", f"checkpoint:{{v}}::{ids[-1]}") == 2


@pytest.fixture
def pointed(client, checkpoint_server, monkeypatch, db):
    """That client's database is the one the app is told to use."""
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", checkpoint_server.url(1))
    return client


@examples(40)
@given(worlds)
@example({EVIL: ("string", b'{"$.thread_id":["\\ud800"]}')})
@example({EVIL: ("json", {"thread_id": "t", "checkpoint_id": "\ud800", "metadata": "\ud800"})})
@example({b"checkpoint_latest:evil\xff:x": ("string", b"checkpoint:evil\xff:x:" + OLD.encode())})
@example({b"thread:{evil}:": ("list", [OLD.encode()]), f"writes:{{evil}}::{OLD}".encode(): ("string", b"\xff")})
def test_sampling_ends_well_and_changes_nothing(pointed, world):
    fill(pointed, world)
    before = everything(pointed)
    report = sample_checkpoint_storage()
    assert (report["success"], report["error"]) == (True, None)
    assert report["scanned_keys"] >= len(before)
    assert everything(pointed) == before


@examples(40)
@given(worlds)
@example({EVIL: ("string", b'{"$.thread_id":["\\ud800"]}')})
@example({f"checkpoint_write:t:__empty__:{OLD}:task:0".encode(): ("json", {"thread_id": "\ud800"})})
@example({f"checkpoint:{{t}}::{OLD}".encode(): ("json", {}), f"writes:{{t}}::{OLD}".encode(): ("string", b"[]")})
def test_the_collection_of_orphans_ends_well_and_takes_nothing_that_has_an_owner(pointed, world):
    before = fill(pointed, world)
    MaintenanceRun.objects.all().delete()
    found = orphans.collect(FreeHold())
    gone = before - set(pointed.keys())
    assert MaintenanceRun.objects.get().state == RunStateChoices.SUCCEEDED
    assert (found.checked, found.fixed) == (len(before), len(gone))
    for key in gone:
        head, _, rest = key.partition(b":")
        if head == b"checkpoint":
            # What a late write leaves where its document was: nothing of a checkpoint.
            assert world[key][0] == "json", key
            assert "thread_id" not in world[key][1], key
            continue
        assert head in {each.encode() for each in HEADS[1:-1]}, key
        owner = b"checkpoint:" + (rest.rsplit(b":", 2)[0] if head == b"checkpoint_write" else rest)
        assert owner not in before or owner in gone, key


@pytest.mark.parametrize(("length", "is_long"), [(1_000, False), (8_000, True), (100_000, True)])
def test_names_of_any_length_are_scanned_and_long_ones_with_a_limit(client, checkpoint_server, length, is_long):
    emptied(client)
    names = [b"checkpoint:%d:" % number + b"n" * length for number in range(600)]
    old, live = f"checkpoint:t:{old_id(60)}", f"checkpoint:live:{old_id(1)}"
    client.mset(dict.fromkeys([*names, old, live], "{}"))
    with checkpoint_server.client(1) as another:
        run = cleaned(another)
    assert (run.tally.processed, run.tally.threads_deleted, client.exists(old, live)) == (602, 1, 1)
    assert run._store.redis._has_long_names == is_long


@pytest.mark.parametrize("has_long_names", [False, True])
@pytest.mark.parametrize(("match", "found"), [(None, 3), (b"", 0), (b"a*", 2), (b"a1", 1)])
def test_a_scan_finds_what_its_glob_matches_and_an_empty_one_matches_nothing(client, has_long_names, match, found):
    emptied(client)
    client.mset(dict.fromkeys(["a1", "a2", "b"], "x"))
    redis = RetryingRedis(client, time.sleep, None)
    redis._has_long_names = has_long_names
    assert sum(map(len, redis.scan(lambda: None, match))) == found


def test_a_string_that_looks_like_a_reply_of_redisjson_speaks_for_no_other_thread(client):
    emptied(client)
    client.set(f"checkpoint:live:{old_id(1)}", "{}")
    client.set(f"checkpoint:t:{old_id(60)}", "{}")
    reply = {"$.thread_id": ["t"], "$.checkpoint_id": [old_id(0)], "$.checkpoint_ns": [""], "$.ts": []}
    client.set("checkpoint:evil:x", json.dumps(reply))
    run = cleaned(client)
    assert (run.tally.threads_deleted, run.tally.unfixable) == (1, 1)


def _fill_values(client: Any) -> None:
    for number in range(10):
        client.set(f"checkpoint:{number}:x", b"x" * (16 * MIB))


def _fill_names(client: Any) -> None:
    for number in range(120):
        client.set(b"checkpoint:%d:" % number + b"n" * MIB, "x")


def _fill_names_with_line_breaks(client: Any) -> None:
    for number in range(120):
        client.set(b"checkpoint:%d:\n" % number + b"n" * MIB, "x")


def _fill_short_names(client: Any) -> None:
    for numbers in batches(range(15_000), 500):
        client.mset({b"checkpoint:%d:" % number + b"n" * 8000: "{}" for number in numbers})


def _fill_usual_names(client: Any) -> None:
    for numbers in batches(range(40_000), 500):
        client.mset({b"checkpoint:%d:%s" % (number, OLD.encode()): "{}" for number in numbers})


def _fill_long_threads(client: Any) -> None:
    for numbers in batches(range(60_000), 500):
        client.mset({b"checkpoint:%d%s:%s" % (number, b"n" * 480, OLD.encode()): "{}" for number in numbers})


def _fill_documents(client: Any) -> None:
    for number in range(24):
        client.execute_command("JSON.SET", f"checkpoint:{number}:x", "$", json.dumps({"thread_id": "x" * (4 * MIB)}))


def _fill_lineage(client: Any) -> None:
    deep = json.dumps([[]] * 100_000)
    for number in range(12):
        for age in (60, 50, 1):
            each = old_id(age)
            value = json.dumps({"metadata": "x" * (6 * MIB), "a": 1}) if number % 2 else deep
            client.set(f"checkpoint:{{{number}}}::{each}", value)
            client.lpush(f"thread:{{{number}}}:", each)
            client.set(f"writes:{{{number}}}::{each}", "x" * MIB)


def _fill_sets(client: Any) -> None:
    for number in range(8):
        client.zadd(f"write_keys_zset:{number}:__empty__:shallow", {"x" * MIB + str(each): 0 for each in range(20)})


def _fill_heads(client: Any) -> None:
    for number in range(12):
        client.set(f"checkpoint_latest:{number}:__empty__", "x" * (8 * MIB))
        client.rpush(f"thread:{{{number}}}:", "x" * (4 * MIB))


@pytest.fixture(scope="module")
def forking():
    """Starts processes that have the cleanup in memory and have done nothing with it."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("Linux alone tells a process's peak memory")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([tell_growth.__module__])
    return context


@pytest.mark.parametrize(
    "fill",
    [_fill_values, _fill_names, _fill_names_with_line_breaks, _fill_short_names, _fill_usual_names,
     _fill_long_threads, _fill_documents, _fill_lineage, _fill_sets, _fill_heads],
)  # fmt: skip
def test_memory_does_not_follow_what_is_stored(client, checkpoint_server, forking, fill):
    fill(emptied(client))
    answers = forking.Queue()
    process = forking.Process(target=tell_growth, args=(checkpoint_server.port, checkpoint_server.password, answers))
    process.start()
    grown = answers.get(timeout=120)
    process.join()
    emptied(client)
    assert grown < 64 * MIB, f"{grown / MIB:.0f} MiB"
