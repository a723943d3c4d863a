"""Whatever was forked, replayed or edited: every checkpoint that a cleanup keeps says what it said."""

from __future__ import annotations

import operator
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, TypedDict

import hypothesis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.redis import RedisSaver
from langgraph.errors import EmptyInputError
from langgraph.graph import END, START, StateGraph

from ai_ops.checkpoints.logic.keys import KeyParser
from ai_ops.checkpoints.redis.store import CheckpointStore
from langgraph_checkpoint_compact import CompactRedisSaver
from tests.fakes.cleanups import cleaned, emptied, examples
from tests.fakes.conversations import days_ago, old_id, on
from tests.fakes.written_keys import OneThreadSaver, Place, forget, write_as_redis_saver, write_as_valkey_saver

TASK = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
AGES = (80.0, 60.0, 45.0, 31.0, 29.0, 10.0, 0.0)


@dataclass(frozen=True)
class Step:
    """Something done with a thread: said at its head or at an old checkpoint, run again from there, or edited."""

    what: str
    age: float
    at: int
    durability: str


@dataclass(frozen=True)
class Example:
    """A thread's history, under two DeltaChannels with these snapshot frequencies.

    Where `always` is set, each step writes both: with a frequency of 1 most checkpoints need no ancestor then.
    """

    often: int
    seldom: int
    always: bool
    history: list[Step]
    keep_last: int


def _joined(said: list[str], more: list[list[str]]) -> list[str]:
    return said + [each for part in more for each in part]


@cache
def _nodes(often: int, seldom: int, always: bool) -> StateGraph:
    # Made by a call, as a class's annotations can't name the frequencies.
    channels = {
        "said": Annotated[list[str], DeltaChannel(_joined, snapshot_frequency=often)],
        "noted": Annotated[list[str], DeltaChannel(_joined, snapshot_frequency=seldom)],
        "plain": Annotated[list[str], operator.add],
    }
    state = TypedDict("state", channels)  # type: ignore[misc]

    def answer(now: dict[str, Any]) -> dict[str, Any]:
        count = len(now["said"])
        return {"said": [f"answer {count}"]} | ({"noted": [f"note {count}"]} if always or count % 3 == 0 else {})

    def conclude(now: dict[str, Any]) -> dict[str, Any]:
        count = f"{len(now['said'])}"
        return {"plain": [count]} | ({"said": [f"so {count}"], "noted": [count]} if always else {})

    nodes = StateGraph(state)
    nodes.add_node("answer", answer)
    nodes.add_node("conclude", conclude)
    nodes.add_edge(START, "answer")
    nodes.add_edge("answer", "conclude")
    nodes.add_edge("conclude", END)
    return nodes


steps = st.builds(
    Step,
    what=st.sampled_from(("say", "say", "say", "fork", "replay", "edit", "edit_old")),
    age=st.sampled_from(AGES),
    at=st.integers(0, 30),
    durability=st.sampled_from(("sync", "sync", "exit")),
)
histories = st.builds(
    Example,
    often=st.integers(1, 9),
    seldom=st.integers(1, 9),
    always=st.booleans(),
    history=st.lists(steps, min_size=2, max_size=7).map(lambda some: sorted(some, key=lambda step: -step.age)),
    keep_last=st.sampled_from((1, 1, 3)),
)


def act(app: Any, past: list[str], number: int, step: Step, always: bool) -> None:
    old = at(past[step.at % len(past)]) if past else on("t")
    words = {"said": [f"{step.what} {number}"]} | ({"noted": [f"{number}"]} if always else {})
    with days_ago(step.age):
        if step.what == "say" or not past:
            app.invoke(words, on("t"), durability=step.durability)
        elif step.what == "fork":
            app.invoke(words, old, durability=step.durability)
        elif step.what == "replay":
            # Of a thread that was made by an edit there is nothing to run again.
            with suppress(EmptyInputError):
                app.invoke(None, old, durability=step.durability)
        else:
            app.update_state(old if step.what == "edit_old" else on("t"), words, as_node="answer")


def at(name: str) -> dict[str, Any]:
    return {"configurable": on("t")["configurable"] | {"checkpoint_ns": "", "checkpoint_id": name}}


def seen_at(app: Any, name: str) -> Any:
    state = app.get_state(at(name))
    return state.values, state.next, state.metadata, state.parent_config


def ids_there(client: Any) -> list[str]:
    keys = client.scan_iter("checkpoint:*", count=1000)
    members = (each for key in client.scan_iter("lgc:*:ids", count=1000) for each in client.zrange(key, 0, -1))
    return [key.decode().rpartition(":")[2] for key in keys] + [each.decode().rpartition("|")[2] for each in members]


class InRedis:
    """A saver's thread where it is."""

    def __init__(self, saver: Any, client: Any) -> None:
        self.saver, self.client = saver, client

    def begin(self) -> None:
        emptied(self.client)

    def names(self) -> list[str]:
        """The ids of its checkpoints, newest first; RedisSaver's search knows some of those that are gone too."""
        return sorted(ids_there(self.client), reverse=True)

    def write(self) -> None:
        """Nothing: the saver has written."""

    def follow(self) -> None:
        """Nothing: the saver sees what has gone."""


class InMemory(InRedis):
    """A thread in memory, of which a saver's keys are in Redis for the cleanup alone."""

    def __init__(self, client: Any, written: Callable[[Any, OneThreadSaver], dict[str, Place]]) -> None:
        super().__init__(OneThreadSaver(), client)
        self._written, self._keys = written, {}

    def begin(self) -> None:
        super().begin()
        self.saver.documents.clear()
        self.saver.writes.clear()

    def names(self) -> list[str]:
        return sorted(self.saver.documents, reverse=True)

    def write(self) -> None:
        self._keys = self._written(self.client, self.saver)

    def follow(self) -> None:
        left = {key.decode() for key in self.client.scan_iter(count=1000)}
        forget(self.saver, {key: place for key, place in self._keys.items() if key not in left})


@cache
def app_of(saver: Any, often: int, seldom: int, always: bool) -> Any:
    return _nodes(often, seldom, always).compile(checkpointer=saver)


def check(world: InRedis, example: Example) -> None:
    world.begin()
    app = app_of(world.saver, example.often, example.seldom, example.always)
    for number, step in enumerate(example.history):
        act(app, world.names(), number, step, example.always)
    before = {name: seen_at(app, name) for name in world.names()}
    limit = old_id(30)
    staying = sorted(before)[-example.keep_last :] + [name for name in before if name >= limit]
    world.write()

    cleaned(world.client, keep_last=example.keep_last)

    kept = set(ids_there(world.client))
    if max(before) < limit:
        assert not kept
        return
    assert kept >= set(staying)
    world.follow()
    for name in staying:
        assert seen_at(app, name) == before[name], (name, sorted(kept))
    again = cleaned(world.client, keep_last=example.keep_last).tally
    assert (again.deleted, again.trimmed, again.unfixable) == (0, 0, 0), "one run is enough"
    head = app.get_state(on("t"))
    said = app.invoke({"said": ["more"]}, on("t"))["said"]
    assert said[: len(head.values["said"])] == head.values["said"]


# The oldest and the newest checkpoint that stay need no ancestor; one between them, the first of the fork, does.
HIDDEN = Example(
    often=1,
    seldom=1,
    always=True,
    history=[
        Step("say", 80.0, 0, "sync"),
        Step("say", 60.0, 0, "sync"),
        Step("edit", 29.0, 0, "sync"),
        Step("fork", 10.0, 5, "sync"),
    ],
    keep_last=1,
)
kinds = st.sampled_from(("RedisSaver", "ValkeySaver"))
# Of three, all have been late on a busy machine.
TRIES = 30


@examples(100)
@given(example=histories, kind=kinds)
@hypothesis.example(HIDDEN, "RedisSaver")
@hypothesis.example(HIDDEN, "ValkeySaver")
def test_every_kept_checkpoint_is_what_it_was(in_memory, example, kind):
    check(in_memory[kind], example)


@pytest.fixture(scope="module")
def compact(checkpoint_server):
    with checkpoint_server.client(3) as client:
        yield InRedis(CompactRedisSaver(client), client)


@examples(30)
@given(example=histories)
@hypothesis.example(HIDDEN)
def test_every_kept_checkpoint_of_the_compact_saver_is_what_it_was(compact, example):
    check(compact, example)


@settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(example=histories, kind=kinds)
@hypothesis.example(HIDDEN, "RedisSaver")
@hypothesis.example(HIDDEN, "ValkeySaver")
def test_the_savers_themselves_find_every_kept_checkpoint_as_it_was(in_redis, example, kind):
    check(in_redis[kind], example)


@settings(max_examples=10, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(example=histories, kind=kinds)
@hypothesis.example(HIDDEN, "RedisSaver")
@hypothesis.example(HIDDEN, "ValkeySaver")
def test_the_keys_in_memory_are_those_of_the_savers(in_memory, in_redis, example, kind):
    # LangGraph writes from threads of its own: under load a write now and then comes before another, or after the end.
    for _ in range(TRIES):
        expected, seen = shapes(in_redis[kind], example), shapes(in_memory[kind], example)
        if seen == expected:
            break
    assert seen == expected


def shapes(world: InRedis, example: Example) -> list[Any]:
    """The keys of an example, and what the cleanup reads of them, without what differs from time to time."""
    world.begin()
    app = app_of(world.saver, example.often, example.seldom, example.always)
    for number, step in enumerate(example.history):
        act(app, world.names(), number, step, example.always)
    world.write()
    keys = sorted(world.client.keys())
    parser = KeyParser(time.time())
    store = CheckpointStore(world.client, parser)
    lineage = store.lineage(key for key in keys if key.startswith(b"checkpoint:"))
    text = ""
    for key in keys:
        said = lineage.get(key)
        text += f"{key.decode()} {world.client.type(key).decode()} "
        text += f"{said.parent_id.decode()} {sorted(said.open_channels)}\n" if said else "\n"
    parsed = [each for each in map(parser.parse, keys) if each is not None]
    # The tasks' ids are by chance, and some look like a checkpoint's.
    ids = sorted({each.checkpoint_id.decode() for each in parsed if each.checkpoint_id})
    for number, name in enumerate(ids):
        text = text.replace(name, f"id {number}")
    return sorted(TASK.sub("task", text).splitlines())


@pytest.fixture(scope="module")
def in_memory(checkpoint_server):
    """Threads in memory, as either saver would have them; no search index takes the keys up."""
    with checkpoint_server.client(1) as client:
        yield {
            "RedisSaver": InMemory(client, write_as_redis_saver),
            "ValkeySaver": InMemory(client, write_as_valkey_saver),
        }
        emptied(client)


@pytest.fixture(scope="module")
def in_redis(checkpoint_server):
    """Threads of the savers themselves."""
    valkey = pytest.importorskip("valkey")
    module = pytest.importorskip("langgraph_checkpoint_aws.checkpoint.valkey")
    with checkpoint_server.client(0) as zero, checkpoint_server.client(2) as two:
        zero.flushall()
        redis_saver = RedisSaver(redis_client=zero)
        redis_saver.setup()
        address = {"port": checkpoint_server.port, "password": checkpoint_server.password}
        valkey_saver = module.ValkeySaver(valkey.Valkey(**address, db=2))
        yield {"RedisSaver": InRedis(redis_saver, zero), "ValkeySaver": InRedis(valkey_saver, two)}
