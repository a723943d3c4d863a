"""Moving threads from the savers that others have used so far, and back."""

from __future__ import annotations

import asyncio

import pytest
import redis
import redis.asyncio
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.redis import AsyncRedisSaver, RedisSaver
from langgraph.types import Command

from langgraph_checkpoint_compact import CompactRedisSaver, amigrate_threads, migrate_threads
from langgraph_checkpoint_compact.migration import valkey_threads
from tests.fakes.conversations import DeltaDialogue, graph, on
from tests.fakes.redis_servers import plain_server
from tests.fakes.side_by_side import comparable
from tests.saver.test_server import talk

THREADS = ("user-1-a", "user-1-b", "user-2-a", "plain")


@pytest.fixture(scope="module")
def port():
    with plain_server("migration", modules=True) as port:
        yield port


@pytest.fixture(params=["RedisSaver", "ValkeySaver", "InMemorySaver", "CompactRedisSaver"])
def source(request, port):
    """A saver of another kind, and the pattern or the threads that are to be moved."""
    with redis.Redis(port=port) as client:
        client.flushall()
        if request.param == "RedisSaver":
            saver = RedisSaver(redis_client=client)
            saver.setup()
            yield saver, lambda pattern: pattern
        elif request.param == "ValkeySaver":
            aws = pytest.importorskip("langgraph_checkpoint_aws")
            valkey = pytest.importorskip("valkey").Valkey(port=port, db=4)
            yield aws.ValkeySaver(valkey), lambda pattern: valkey_threads(valkey, pattern)
            valkey.close()
        else:
            others = {"InMemorySaver": InMemorySaver(), "CompactRedisSaver": CompactRedisSaver(client, prefix="old")}
            yield others[request.param], lambda pattern: pattern


@pytest.fixture
def target(port, source):
    with redis.Redis(port=port, db=2) as client:
        yield CompactRedisSaver(client)


def fill(saver):
    asking, plain = graph(saver, subgraph=True, asks=True), graph(saver)
    for thread in THREADS[:3]:
        asking.invoke({"said": [f"hello from {thread}"]}, on(thread))
    for number in range(3):
        plain.invoke({"said": [f"question {number} " + "x" * 600]}, on("plain"))


def read(saver, thread):
    """All that can be seen of a thread, without what a saver adds to the metadata."""
    found = {}
    for namespace in ("", "child"):
        for each in saver.list({"configurable": {"thread_id": thread, "checkpoint_ns": namespace}}):
            seen = comparable(saver.get_tuple(each.config))
            seen["writes"] = sorted(map(str, seen["writes"]))
            seen["metadata"] = {name: seen["metadata"].get(name) for name in ("source", "step", "run_id")}
            found[tuple(seen["config"])] = seen
    return found


def test_moved_threads_are_the_same_and_interrupts_still_wait(source, target):
    source, threads = source
    fill(source)
    tried = migrate_threads(source, target, threads("user-*"), dry_run=True)
    assert tried.success
    assert tried.checkpoints >= 3 * 4
    assert list(target.list(None)) == []

    moved = migrate_threads(source, target, threads("user-*"))
    assert moved.success, moved
    assert moved.checkpoints == tried.checkpoints
    assert {thread.thread_id for thread in moved.threads} == set(THREADS[:3])
    for thread in THREADS[:3]:
        assert read(target, thread) == read(source, thread)
    assert read(target, "plain") == {}
    # Each goes on where it waits, in the subgraph.
    for saver in (source, target):
        said = graph(saver, subgraph=True, asks=True).invoke(Command(resume="yes"), on("user-1-a"))["said"]
        assert said[-1] == "you said yes"


def test_a_move_that_was_cut_short_is_resumed(source, target):
    source, threads = source
    fill(source)
    wanted = threads("*")

    class Stops(CompactRedisSaver):
        left = 7

        def put(self, *arguments):
            self.left -= 1
            if self.left < 0:
                raise redis.exceptions.ConnectionError("cut")
            return super().put(*arguments)

    with pytest.raises(redis.exceptions.ConnectionError):
        migrate_threads(source, Stops(target.client), wanted)
    resumed = migrate_threads(source, target, wanted)
    assert resumed.success, resumed
    assert sum(thread.present for thread in resumed.threads) == 7
    again = migrate_threads(source, target, wanted)
    assert (again.checkpoints, again.success) == (0, True)
    for thread in THREADS:
        assert read(target, thread) == read(source, thread)


def test_threads_move_back_and_the_same_graph_goes_on(source, target):
    source, threads = source
    fill(source)
    migrate_threads(source, target, threads("plain"))
    graph(target).invoke({"said": ["one more"]}, on("plain"))
    expected = graph(target).get_state(on("plain")).values
    moved = migrate_threads(target, source, ["plain"])
    assert moved.success, moved
    assert graph(source).get_state(on("plain")).values == expected
    graph(source).invoke({"said": ["and on"]}, on("plain"))
    assert graph(source).get_state(on("plain")).values["said"][: len(expected["said"])] == expected["said"]


def test_delta_channels_move(target, port):
    source = InMemorySaver()
    for number in range(9):
        graph(source, state=DeltaDialogue).invoke({"said": [f"question {number}"]}, on("t"))
    assert migrate_threads(source, target).success
    expected = graph(source, state=DeltaDialogue).get_state(on("t")).values
    assert len(expected["said"]) == 27
    assert graph(target, state=DeltaDialogue).get_state(on("t")).values == expected


def test_a_thread_that_is_not_there_or_reads_back_differently_is_named(target):
    source = InMemorySaver()
    talk(source, "t", 2)

    class Loses(InMemorySaver):
        def put_writes(self, *arguments):
            return None

    source.put_writes(source.get_tuple(on("t")).config, [("x", 1)], "task")
    moved = migrate_threads(source, Loses(), ["none", "t"])
    assert not moved.success
    assert "no checkpoint of thread 'none'. Check the id." in moved.threads[0].error
    assert "reads back from the target with another list of writes" in moved.threads[1].error


def test_asynchronous_savers_move_too(port):
    async def run():
        async with redis.asyncio.Redis(port=port) as client, redis.asyncio.Redis(port=port, db=2) as other:
            await client.flushall()
            source = AsyncRedisSaver(redis_client=client)
            await source.setup()
            await graph(source, asks=True).ainvoke({"said": ["hello"]}, on("t"))
            from langgraph_checkpoint_compact import AsyncCompactRedisSaver

            target = AsyncCompactRedisSaver(other)
            moved = await amigrate_threads(source, target)
            assert moved.success, moved
            return await graph(target, asks=True).ainvoke(Command(resume="yes"), on("t"))

    assert asyncio.run(run())["said"][-1] == "you said yes"
