"""Every layout that users have, written by the saver that writes it where there is one."""

from __future__ import annotations

import asyncio
import json

import pytest
import redis
from langgraph.checkpoint.redis import RedisSaver
from langgraph.checkpoint.redis.aio import AsyncRedisSaver
from langgraph.checkpoint.redis.ashallow import AsyncShallowRedisSaver
from langgraph.checkpoint.redis.shallow import ShallowRedisSaver
from langgraph.types import Command

from ai_ops.celery_tasks import cleanup_old_checkpoints
from tests.fakes.conversations import DeltaDialogue, days_ago, graph, old_id, on

pytestmark = pytest.mark.django_db

TASK = "0d3b4d3e-7c1f-5a10-9a3e-2d1b0c9f8e7d"
# Names that can be mistaken for one another, and for namespaces.
THREADS = ("a", "a:b", "a:b:child", "{a}", "a|b", "x" * 300, "münchen", f"user:{TASK}")


def names(client: redis.Redis) -> set[str]:
    return {key.decode(errors="replace") for key in client.scan_iter(count=1000)}


def only_new(client: redis.Redis, before: set[str]) -> set[str]:
    return names(client) - before


@pytest.fixture(params=["RedisSaver", "ShallowRedisSaver", "ValkeySaver", "prefixes"])
def saver(request, checkpoint_server, checkpoint_redis, monkeypatch):
    if request.param == "ValkeySaver":
        valkey = pytest.importorskip("valkey")
        savers = pytest.importorskip("langgraph_checkpoint_aws.checkpoint.valkey")
        monkeypatch.setenv("LANGGRAPH_REDIS_URL", checkpoint_server.url(2))
        yield savers.ValkeySaver(valkey.Valkey(port=checkpoint_server.port, password=checkpoint_server.password, db=2))
        return
    options = {}
    if request.param == "prefixes":
        options = {"checkpoint_prefix": "app:cp", "checkpoint_write_prefix": "app:cp:w"}
        prefixes = {"checkpoint_prefix": "app:cp", "checkpoint_write_prefix": "app:cp:w"}
        monkeypatch.setattr("django.conf.settings.PLUGINS_CONFIG", {"ai_ops": prefixes})
    kind = ShallowRedisSaver if request.param == "ShallowRedisSaver" else RedisSaver
    made = kind(redis_client=checkpoint_redis, **options)
    made.setup()
    yield made


@pytest.fixture
def client(saver, checkpoint_server, checkpoint_redis):
    return checkpoint_server.client(2) if "Valkey" in type(saver).__name__ else checkpoint_redis


def test_old_threads_go_without_a_trace_and_new_ones_stay_as_they_are(saver, client):
    app = graph(saver, subgraph=True)
    for index, thread in enumerate(THREADS):
        if index % 2:
            with days_ago(40):
                app.invoke({"said": ["hello"]}, on(thread))
    old = names(client)
    for index, thread in enumerate(THREADS):
        if not index % 2:
            app.invoke({"said": ["hello"]}, on(thread))
    new = only_new(client, old)
    states = {thread: app.get_state(on(thread)) for thread in THREADS[::2]}

    report = cleanup_old_checkpoints(30)

    assert report["success"], report
    assert names(client) == new
    assert (report["threads_deleted"], report["threads_kept"]) == (4, 4)
    assert {thread: app.get_state(on(thread)) for thread in states} == states
    assert report["unfixable_count"] == 0


def test_the_other_way_round(saver, client):
    app = graph(saver, subgraph=True)
    for thread in THREADS[::2]:
        with days_ago(40):
            app.invoke({"said": ["hello"]}, on(thread))
    old = names(client)
    for thread in THREADS[1::2]:
        app.invoke({"said": ["hello"]}, on(thread))
    new = only_new(client, old)

    assert cleanup_old_checkpoints(30)["success"]
    assert names(client) == new
    for thread in THREADS[1::2]:
        assert app.invoke({"said": ["more"]}, on(thread))["said"][0] == "hello"


def test_an_answer_that_is_waited_for_keeps_the_whole_thread(saver, client):
    app = graph(saver, asks=True, subgraph=True)
    with days_ago(40):
        app.invoke({"said": ["one"]}, on("asked"))
        app.invoke(Command(resume="yes"), on("asked"))
    app.invoke({"said": ["two"]}, on("asked"))
    before = names(client)

    assert cleanup_old_checkpoints(30)["deleted_count"] == 0
    assert names(client) == before
    assert app.invoke(Command(resume="no"), on("asked"))["said"][-1] == "you said no"


def test_live_threads_are_trimmed_and_remember(saver, client):
    app = graph(saver, subgraph=True)
    with days_ago(40):
        app.invoke({"said": ["one"]}, on("live"))
    app.invoke({"said": ["two"]}, on("live"))
    state = app.get_state(on("live"))

    report = cleanup_old_checkpoints(30)

    shallow = isinstance(saver, ShallowRedisSaver)
    assert report["checkpoints_trimmed"] == (0 if shallow else 7)
    assert app.get_state(on("live")) == state
    assert app.invoke({"said": ["three"]}, on("live"))["said"][:2] == ["one", "answer 1"]
    if lists := list(client.scan_iter("thread:*")):
        documents = list(client.scan_iter("checkpoint:*"))
        assert sum(client.llen(each) for each in lists) == len(documents)


def test_a_delta_channel_keeps_the_ancestors_it_is_read_from(checkpoint_server, checkpoint_redis):
    # The sync RedisSaver of 0.5.2 loses writes of its own accord, so that a DeltaChannel can't be read at all.
    async def talk(*turns: tuple[float, str]) -> list[str]:
        async with AsyncRedisSaver.from_conn_string(checkpoint_server.url(0)) as saver:
            app = graph(saver, state=DeltaDialogue)
            for days, said in turns:
                with days_ago(days):
                    await app.ainvoke({"said": [said]}, on("delta"))
            return (await app.aget_state(on("delta"))).values["said"]

    said = asyncio.run(talk(*[(60 - turn, f"turn {turn}") for turn in range(4)], (0, "today")))
    assert len(said) == 15

    report = cleanup_old_checkpoints(30)

    assert report["checkpoints_trimmed"] > 0
    assert asyncio.run(talk()) == said
    assert asyncio.run(talk((0, "more")))[:15] == said


@pytest.mark.parametrize("kind", [AsyncRedisSaver, AsyncShallowRedisSaver])
def test_the_async_savers(kind, checkpoint_server, checkpoint_redis):
    async def talk() -> None:
        async with kind.from_conn_string(checkpoint_server.url(0)) as saver:
            app = graph(saver, subgraph=True)
            with days_ago(40):
                await app.ainvoke({"said": ["old"]}, on("old"))
            await app.ainvoke({"said": ["new"]}, on("new"))

    async def remember() -> list[str]:
        async with kind.from_conn_string(checkpoint_server.url(0)) as saver:
            return (await graph(saver, subgraph=True).aget_state(on("new"))).values["said"]

    asyncio.run(talk())
    report = cleanup_old_checkpoints(30)
    assert (report["threads_deleted"], report["threads_kept"]) == (1, 1)
    assert not [name for name in names(checkpoint_redis) if ":old:" in name]
    assert asyncio.run(remember())[0] == "new"


def blob_layout(client: redis.Redis, thread: str, days: list[float], empty: str) -> list[str]:
    """Write as langgraph-checkpoint-redis 0.0.x (`empty` is ``__empty__``) or the JavaScript saver (nothing)."""
    keys = []
    for version, each in enumerate(days, 1):
        checkpoint_id, number = old_id(each), f"{version:032}.0.5"
        document = {
            "thread_id": thread,
            "checkpoint_ns": "__empty__",
            "checkpoint_id": checkpoint_id,
            "checkpoint": {"id": checkpoint_id, "channel_versions": {"said": number, "branch:to:x": number}},
        }
        keys.append(f"checkpoint:{thread}:{empty}:{checkpoint_id}")
        client.json().set(keys[-1], "$", document)
        for channel in ("said", "branch:to:x"):
            keys.append(f"checkpoint_blob:{thread}:{empty}:{channel}:{number}")
            client.json().set(keys[-1], "$", {"thread_id": thread, "checkpoint_ns": "__empty__", "channel": channel})
        keys.append(f"checkpoint_write:{thread}:{empty}:{checkpoint_id}:{TASK}:0")
        client.json().set(keys[-1], "$", {"thread_id": thread, "channel": "said"})
    return keys


@pytest.mark.parametrize("empty", ["__empty__", ""])
def test_the_layouts_with_blobs(checkpoint_redis, empty):
    blob_layout(checkpoint_redis, "old:1", [60, 50], empty)
    live = blob_layout(checkpoint_redis, "live:1", [60, 50, 2, 1], empty)
    blobs_alone = blob_layout(checkpoint_redis, "alone", [60], empty)
    checkpoint_redis.delete(blobs_alone[0], blobs_alone[3])

    report = cleanup_old_checkpoints(30)

    assert names(checkpoint_redis) == set(live[8:])
    assert (report["threads_deleted"], report["checkpoints_trimmed"], report["orphan_count"]) == (1, 2, 2)


def test_an_interrupt_of_the_javascript_saver(checkpoint_redis):
    keys = blob_layout(checkpoint_redis, "asked", [60, 5], "")
    checkpoint_redis.json().set(keys[-1], "$", {"thread_id": "asked", "channel": "__interrupt__"})
    assert cleanup_old_checkpoints(30)["deleted_count"] == 0


def test_shallow_documents_of_the_javascript_saver(checkpoint_redis):
    for thread, days in (("old:1", 40), ("new:1", 1)):
        checkpoint_id = old_id(days)
        checkpoint = {"id": checkpoint_id}
        document = {"thread_id": thread, "checkpoint_ns": "", "checkpoint_id": checkpoint_id, "checkpoint": checkpoint}
        checkpoint_redis.json().set(f"checkpoint:{thread}::shallow", "$", document)
        checkpoint_redis.json().set(f"checkpoint_write:{thread}::{old_id(days)}:{TASK}:0", "$", {})
        checkpoint_redis.zadd(
            f"write_keys_zset:{thread}::shallow", {f"checkpoint_write:{thread}::{checkpoint_id}:t:0": 0}
        )
    cleanup_old_checkpoints(30)
    assert len(names(checkpoint_redis)) == 3
    assert all("new:1" in name for name in names(checkpoint_redis))


def test_what_a_shallow_saver_left_behind(checkpoint_redis):
    checkpoint_id = old_id(40)
    write = f"checkpoint_write:gone:__empty__:{checkpoint_id}:{TASK}:0"
    checkpoint_redis.json().set(write, "$", {})
    checkpoint_redis.zadd("write_registry:gone:__empty__:shallow", {write: 0})
    assert cleanup_old_checkpoints(30)["orphan_count"] == 2
    assert not names(checkpoint_redis)


def test_a_registry_of_a_saver_with_another_prefix_is_no_orphan(checkpoint_redis):
    checkpoint_id = old_id(40)
    key = f"write_keys_zset:t:__empty__:{checkpoint_id}"
    checkpoint_redis.zadd(key, {f"other:t:__empty__:{checkpoint_id}:{TASK}:0": 0})
    with_ours = f"checkpoint:t:__empty__:{old_id(41)}"
    checkpoint_redis.json().set(with_ours, "$", {"thread_id": "t"})
    cleanup_old_checkpoints(30)
    assert names(checkpoint_redis) == {key}


def test_a_namespace_of_a_users_own_making_is_not_taken_for_a_thread(checkpoint_redis):
    saver = RedisSaver(redis_client=checkpoint_redis)
    saver.setup()
    app = graph(saver)
    app.invoke({"said": ["hello"]}, on("t"))
    config = {"configurable": {"thread_id": "t", "checkpoint_ns": "my:own:space"}}
    checkpoint = saver.get_tuple(on("t"))
    saver.put(config, {**checkpoint.checkpoint, "id": old_id(50)}, checkpoint.metadata, {})
    before = names(checkpoint_redis)
    cleanup_old_checkpoints(30)
    assert names(checkpoint_redis) == before


def test_plain_keys_say_so_in_their_values(checkpoint_redis):
    checkpoint_redis.set("checkpoint:plain:latest", json.dumps({"checkpoint": {"ts": "2021-01-01T00:00:00Z"}}))
    checkpoint_redis.set("checkpoint:bare", json.dumps({"ts": "2021-01-01T00:00:00.5"}))
    assert cleanup_old_checkpoints(30)["deleted_count"] == 2


def test_a_valkey_saver_beside_a_redis_saver_with_another_prefix(checkpoint_redis, monkeypatch):
    monkeypatch.setattr("django.conf.settings.PLUGINS_CONFIG", {"ai_ops": {"checkpoint_prefix": "app:cp"}})
    for thread, days in (("live", 2), ("old", 40)):
        made = old_id(days)
        checkpoint_redis.set(f"checkpoint:{{{thread}}}::{made}", "{}")
        checkpoint_redis.set(f"writes:{{{thread}}}::{made}", "[]")
        checkpoint_redis.lpush(f"thread:{{{thread}}}:", made)
    checkpoint_redis.set(f"checkpoint:someone-elses:{old_id(40)}", "{}")

    report = cleanup_old_checkpoints(30)

    assert report["deleted_count"] == 3
    assert len(names(checkpoint_redis)) == 4
    assert not [name for name in names(checkpoint_redis) if "{old}" in name]
