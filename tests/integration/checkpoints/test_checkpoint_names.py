"""Names and layouts that can be taken for one another, side by side in one database.

The keys are those that the savers write, letter by letter, as the recorded fixtures have them; with them thousands of
populations fit into the time of a few conversations.
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from hypothesis import example, given
from hypothesis import strategies as st

from ai_ops.celery_tasks import cleanup_old_checkpoints
from tests.fakes.cleanups import cleaned, emptied, examples
from tests.fakes.conversations import old_id

pytestmark = pytest.mark.django_db

RETENTION = 30
OLD_V7 = "018c0000-0000-7000-8000-000000000000"
OLD_V6 = "1eda0000-0000-6000-8000-000000000000"
TASK = "0d3b4d3e-7c1f-5a10-9a3e-2d1b0c9f8e7d"
NAMES = (
    "a", "a:b", "a:child", "a:b:child", "{a}", "{a}:b", "{a}:{b}", "{a}:b:child", "x{y}:z", "{}", "{a", "a}", "}:{",
    "a|b", "{a}|b", "child", "__empty__", "a:__empty__", "{a}:__empty__", "shallow", OLD_V6, OLD_V7, f"a:{OLD_V6}",
    f"{{{OLD_V7}}}:b", f"user:{TASK}", "1733394600", "münchen:{ä}",
)  # fmt: skip
SPACES = ("", "child", f"child:{TASK}", f"child:{TASK}|inner", "b", "u1")
AGES = (400.0, 60.0, 45.0, 31.0, 29.0, 10.0, 0.1)


@dataclass
class Written:
    """The keys of one thread in Redis: the age in days and the namespace of each key that has one, None for others."""

    thread: str
    keys: dict[str, tuple[str, float] | None] = field(default_factory=dict)
    tells: bool = True  # whether its documents name it


def document(thread: str, space: str, made: str) -> str:
    return json.dumps(
        {
            "thread_id": thread,
            "checkpoint_ns": space,
            "checkpoint_id": made,
            "checkpoint": {"id": made, "channel_versions": {}},
            "metadata": "{}",
        }
    )


def redis_saver(client: Any, thread: str, space: str, ages: list[float], written: Written, *, registry: str) -> None:
    """RedisSaver since 0.1.0; `registry` is what the root is called in its registries."""
    stem = f"{thread}:{space or '__empty__'}"
    for age in ages:
        made = old_id(age)
        write = f"checkpoint_write:{stem}:{made}:{TASK}:0"
        registered = f"write_keys_zset:{thread}:{space or registry}:{made}"
        client.execute_command(
            "JSON.SET", f"checkpoint:{stem}:{made}", "$", document(thread, space or "__empty__", made)
        )
        client.execute_command("JSON.SET", write, "$", json.dumps({"thread_id": thread, "channel": "said"}))
        client.zadd(registered, {write: 0})
        written.keys |= dict.fromkeys((f"checkpoint:{stem}:{made}", write, registered), (space, age))
        client.set(f"checkpoint_latest:{stem}", f"checkpoint:{stem}:{made}")
    written.keys[f"checkpoint_latest:{stem}"] = None


def valkey_saver(client: Any, thread: str, space: str, ages: list[float], written: Written, *, braces: bool) -> None:
    """ValkeySaver; since 1.0.4 with braces."""
    stem = f"{{{thread}}}:{space}" if braces else f"{thread}:{space}"
    for age in ages:
        made = old_id(age)
        value = {
            "thread_id": thread,
            "checkpoint_id": made,
            "parent_checkpoint_id": None,
            "type": "x",
            "checkpoint": "gAA=",
        }
        client.set(f"checkpoint:{stem}:{made}", json.dumps(value | {"metadata": "e30="}))
        client.set(f"writes:{stem}:{made}", json.dumps([{"channel": "said", "idx": 0}]))
        client.lpush(f"thread:{stem}", made)
        written.keys |= dict.fromkeys((f"checkpoint:{stem}:{made}", f"writes:{stem}:{made}"), (space, age))
    written.keys[f"thread:{stem}"] = None


def javascript_saver(client: Any, thread: str, space: str, ages: list[float], written: Written) -> None:
    for age in ages:
        made, stem = old_id(age), f"{thread}:{space}"
        key, write = f"checkpoint:{stem}:{made}", f"checkpoint_write:{stem}:{made}:{TASK}:0"
        client.execute_command("JSON.SET", key, "$", document(thread, space or "__empty__", made))
        client.execute_command("JSON.SET", write, "$", json.dumps({"thread_id": thread, "channel": "said"}))
        written.keys |= dict.fromkeys((key, write), (space, age))


def shallow_saver(client: Any, thread: str, space: str, ages: list[float], written: Written) -> None:
    made = old_id(ages[-1])
    key, write = f"checkpoint:{thread}:{space}", f"checkpoint_write:{thread}:{space or '__empty__'}:{made}:{TASK}:0"
    registry = f"write_registry:{thread}:{space or '__empty__'}:shallow"
    client.execute_command("JSON.SET", key, "$", document(thread, space or "__empty__", made))
    client.execute_command("JSON.SET", write, "$", json.dumps({"thread_id": thread, "channel": "said"}))
    client.zadd(registry, {write: 0})
    written.keys |= dict.fromkeys((key, write, registry))


def plain(client: Any, thread: str, space: str, ages: list[float], written: Written) -> None:
    written.tells = False
    for age in ages if not space else ():
        made = old_id(age)
        client.set(f"checkpoint:{thread}:{made}", "{}")
        written.keys[f"checkpoint:{thread}:{made}"] = ("", age)


LAYOUTS = {
    "RedisSaver": lambda *given: redis_saver(*given, registry="__empty__"),
    "RedisSaver 0.1.0": lambda *given: redis_saver(*given, registry=""),
    "ValkeySaver": lambda *given: valkey_saver(*given, braces=True),
    "ValkeySaver 1.0.2": lambda *given: valkey_saver(*given, braces=False),
    "JavaScript": javascript_saver,
    "ShallowRedisSaver": shallow_saver,
    "plain": plain,
}
ages = st.lists(st.sampled_from(AGES), min_size=1, max_size=3, unique=True).map(lambda some: sorted(some, reverse=True))
threads = st.tuples(st.sampled_from(tuple(LAYOUTS)), st.dictionaries(st.sampled_from(SPACES), ages, max_size=3), ages)
populations = st.dictionaries(st.sampled_from(NAMES), threads, min_size=1, max_size=5)


def write(client: redis.Redis, population: dict[str, Any]) -> list[Written]:
    found, taken = [], set()
    for name, (layout, spaces, root) in population.items():
        # ValkeySaver's key of thread "a" is that of its older versions for "{a}": no process can tell those apart.
        shape = {"ValkeySaver": f"{{{name}}}", "ValkeySaver 1.0.2": name}.get(layout)
        if shape in taken or (layout == "plain" and name.endswith("__empty__")):
            # Plain keys of a thread that ends like RedisSaver's mark are RedisSaver's to the letter.
            continue
        taken |= {shape} - {None}
        written = Written(name)
        with client.pipeline(transaction=False) as pipeline:
            for space, some in ({**spaces, "": root}).items():
                LAYOUTS[layout](pipeline, name, space, some, written)
            pipeline.execute()
        found.append((written, {**spaces, "": root}, layout))
    return found


def newest(spaces: dict[str, list[float]], layout: str) -> float:
    return min(some[-1] for space, some in spaces.items() if layout != "plain" or not space)


def stays(each: Written, spaces: dict[str, list[float]], layout: str) -> set[str]:
    """The keys that must be left of a live thread."""
    return {
        key
        for key, place in each.keys.items()
        if place is None or place[1] < RETENTION or place[1] == spaces[place[0]][-1]
    }


def may_be_part(other: Written, thread: str) -> bool:
    """Return whether documents without a thread's id may be of a thread: in its namespace, or under the same name."""
    return not other.tells and other.thread.lstrip("{").startswith((f"{thread}:", f"{thread}}}:", thread.lstrip("{")))


@pytest.fixture(scope="module")
def client(checkpoint_server):
    """A database without an index, which each of its keys would have to be put into."""
    with checkpoint_server.client(1) as client:
        yield client
        emptied(client)


@examples(100)
@given(
    population=populations,
    pinned=st.frozensets(st.sampled_from(NAMES), max_size=1),
    keys_per_partition=st.sampled_from((5, 20_000)),
)
@example({"{acme}:u1": ("RedisSaver", {"child": [45.0]}, [45.0, 0.1])}, frozenset({"{acme}:u1"}), 20_000)
@example({"{a}": ("ValkeySaver 1.0.2", {"child": [45.0]}, [45.0])}, frozenset({"{a}"}), 20_000)
@example({"a": ("ValkeySaver", {}, [45.0]), "{a}": ("JavaScript", {}, [0.1])}, frozenset(), 20_000)
@example({"a": ("RedisSaver", {"b": [60.0]}, [0.1]), "a:b": ("plain", {}, [60.0])}, frozenset({"a:b"}), 20_000)
@example({"{a}": ("RedisSaver", {"b": [60.0]}, [60.0]), "{a}:b": ("plain", {}, [60.0])}, frozenset({"{a}:b"}), 20_000)
@example(
    {
        "{a}": ("ValkeySaver 1.0.2", {"child": [400.0, 29.0]}, [400.0]),
        "a": ("ShallowRedisSaver", {"child": [60.0]}, [60.0]),
    },
    frozenset(),
    20_000,
)
@example(
    {"{a}": ("ValkeySaver 1.0.2", {"child": [60.0]}, [60.0]), "a": ("RedisSaver", {"child": [60.0]}, [60.0])},
    frozenset(),
    5,
)
def test_every_thread_fares_as_if_it_were_alone(client, monkeypatch, population, pinned, keys_per_partition):
    emptied(client)
    monkeypatch.setattr("ai_ops.checkpoints.redis.key_spool.KEYS_PER_PARTITION", keys_per_partition)
    written = write(client, population)

    report = cleaned(client, pinned=pinned).report(RETENTION, "")

    left = {key.decode() for key in client.scan_iter(count=1000)}
    assert report.unfixable_count == 0
    for each, spaces, layout in written:
        there = each.keys.keys() & left
        if each.thread in pinned:
            assert there == each.keys.keys(), f"{layout} {each.thread} is pinned"
        elif newest(spaces, layout) < RETENTION:
            assert there >= stays(each, spaces, layout), f"{layout} {each.thread} is live"
            if each.tells and not any(may_be_part(other, each.thread) for other, _, _ in written):
                assert there == stays(each, spaces, layout), f"{layout} {each.thread} is trimmed"
        elif each.tells and not any(may_be_part(other, each.thread) for other, _, _ in written):
            assert not there, f"{layout} {each.thread} is old"
    # Of a thread in one namespace ValkeySaver's list is the evidence, and no document is read for the report: there a
    # thread of before 1.0.4 that is called "{a}" looks like "a" of later.
    named = {each.thread for each, _, _ in written} | {
        each.thread[1:-1] for each, _, layout in written if layout == "ValkeySaver 1.0.2" and each.thread[:1] == "{"
    }
    assert {each["thread"] for each in report.largest_threads} <= named


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_old_thread_alone_goes_without_a_trace_under_its_own_name(client, layout):
    emptied(client)
    for name in NAMES:
        write(client, {name: (layout, {"child": [50.0]} if layout != "plain" else {}, [60.0, 45.0])})
        there = client.dbsize()
        report = cleaned(client).report(RETENTION, "")
        assert client.dbsize() == 0, name
        assert [each["thread"] for each in report.largest_threads] == [name][:there]


def test_a_key_without_a_second_part_has_its_time_in_its_value_or_nowhere(checkpoint_redis):
    names = (OLD_V7, OLD_V6, "1733394600", "2024-12-05T10-30-00", old_id(400))
    today = datetime.now(UTC).isoformat()
    for value, (deleted, unfixable) in (
        ({"ts": today}, (0, 0)),
        ({"ts": "2021-01-01T00:00:00Z"}, (5, 0)),
        ({}, (0, 5)),
    ):
        checkpoint_redis.mset({f"checkpoint:{name}": json.dumps(value) for name in names})
        report = cleanup_old_checkpoints(RETENTION)
        assert (report["deleted_count"], report["unfixable_count"]) == (deleted, unfixable)


TIME_FIELDS = (
    {"timestamp": "2021-03-04T05:06:07Z"}, {"created_at": 1_614_834_367}, {"created_at": 1_614_834_367_000.5},
    {"metadata": {"timestamp": "Thu, 04 Mar 2021 05:06:07 +0000"}}, {"ts": "1614834367"},
    {"created_at": "20210304T050607Z"},
)  # fmt: skip
NO_TIMES = (
    {"timestamp": 5}, {"timestamp": True}, {"created_at": 1e300}, {"created_at": 10**400}, {"metadata": "2021"},
    {"timestamp": ["2021-03-04T05:06:07Z"]}, {"created_at": 1_000_000_000}, {"ts": "Thu, 99 Mar 2021 05:06:07"},
    {"ts": "2999"}, [1_614_834_367],
)  # fmt: skip
OLD_IDS = (
    "1614834367", "1614834367000", "20210304T050607Z", "2021-03-04T05-06-07", "01ezyj2sr0abcdefghjkmnpqrs",
    OLD_V6.replace("-", ""),
)  # fmt: skip


def test_times_that_people_write_are_read(checkpoint_redis):
    for number, value in enumerate(TIME_FIELDS):
        checkpoint_redis.set(f"checkpoint:field{number}:x", json.dumps(value))
        checkpoint_redis.execute_command("JSON.SET", f"checkpoint:json{number}:x", "$", json.dumps(value))
    checkpoint_redis.mset({f"checkpoint:id{number}:{each}": "{}" for number, each in enumerate(OLD_IDS)})
    report = cleanup_old_checkpoints(RETENTION)
    assert [key.decode() for key in checkpoint_redis.scan_iter()] == []
    assert report["deleted_count"] == 2 * len(TIME_FIELDS) + len(OLD_IDS)


def test_what_is_no_time_is_none(checkpoint_redis):
    checkpoint_redis.mset({f"checkpoint:{number}:x": json.dumps(value) for number, value in enumerate(NO_TIMES)})
    checkpoint_redis.mset({"checkpoint:n:1614834367": "7", "checkpoint:m:1614834367": "[]", "checkpoint:o:12345": "{}"})
    checkpoint_redis.set("checkpoint:two:x", json.dumps({"created_at": 1_614_834_367, "timestamp": time.time()}))
    report = cleanup_old_checkpoints(RETENTION)
    assert (report["deleted_count"], report["unfixable_count"]) == (0, len(NO_TIMES) + 3)


def test_lists_and_registries_of_other_software_stay_and_keep_no_thread_alive(checkpoint_redis):
    valkey_saver(checkpoint_redis, "t", "", [45.0], Written("t"), braces=True)
    ulid = "01JBS6Z9G0ABCDEFGHJKMNPQRS"
    checkpoint_redis.rpush("thread:{t}:messages", "hello", "you")
    checkpoint_redis.rpush("thread:t:messages", "hello")
    checkpoint_redis.rpush("thread:123:likes", str(uuid.uuid4()), str(uuid.uuid4()))
    checkpoint_redis.rpush("thread:{123}:", str(uuid.uuid4()))
    checkpoint_redis.hset("thread:{t}:members", "a", "b")
    checkpoint_redis.set(f"writes:{{q}}:jobs:{ulid}", "[]")
    checkpoint_redis.set(f"writes:q:jobs:{OLD_V7}", "[]")
    checkpoint_redis.zadd(f"write_registry:svc:{ulid}", {"a": 1})
    checkpoint_redis.zadd(f"write_keys_zset:svc:x:{ulid}", {"a": 1})
    checkpoint_redis.zadd("write_registry:svc:shallow", {"a": 1})
    others = {key for key in checkpoint_redis.scan_iter() if b"checkpoint" not in key}
    others -= {key for key in others if key == b"thread:{t}:" or (key.startswith(b"writes:{t}::"))}

    report = cleanup_old_checkpoints(RETENTION)

    assert set(checkpoint_redis.scan_iter()) == others
    assert (report["threads_deleted"], report["changed_count"], report["unfixable_count"]) == (1, 0, 0)


@pytest.mark.parametrize("stem", ["{t}:", "t:", "{t}:child", f"t:child:{TASK}", "{a}:b:"])
def test_lists_of_valkey_savers_go_when_their_documents_are_gone(checkpoint_redis, stem):
    old, young = old_id(40), old_id(0)
    checkpoint_redis.rpush(f"thread:{stem}", old, old_id(41))
    checkpoint_redis.set(f"writes:{stem}:{old}", "[]")
    checkpoint_redis.rpush("thread:{young}:", young)
    assert cleanup_old_checkpoints(RETENTION)["orphan_count"] == 2
    assert list(checkpoint_redis.scan_iter()) == [b"thread:{young}:"]
