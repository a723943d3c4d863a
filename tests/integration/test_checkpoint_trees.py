"""Whatever was forked, replayed or edited: every checkpoint that a cleanup keeps says what it said."""

from __future__ import annotations

import operator
import os
import time
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

from ai_ops.adapters.checkpoint_store import CheckpointStore
from ai_ops.cleanup_run import CleanupRun
from ai_ops.core.checkpoint_keys import KeyParser
from ai_ops.core.retention import DAY, RetentionPolicy
from tests.fakes.conversations import days_ago, old_id, on

EXAMPLES = int(os.environ.get("AI_OPS_TREE_EXAMPLES", "300"))
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
examples = st.builds(
    Example,
    often=st.integers(1, 9),
    seldom=st.integers(1, 9),
    always=st.booleans(),
    history=st.lists(steps, min_size=2, max_size=7).map(lambda some: sorted(some, key=lambda step: -step.age)),
    keep_last=st.sampled_from((1, 1, 3)),
)


def act(app: Any, thread: str, number: int, step: Step, always: bool) -> None:
    past = list(app.get_state_history(on(thread)))
    old = past[step.at % len(past)].config if past else on(thread)
    words = {"said": [f"{step.what} {number}"]} | ({"noted": [f"{number}"]} if always else {})
    with days_ago(step.age):
        if step.what == "say" or not past:
            app.invoke(words, on(thread), durability=step.durability)
        elif step.what == "fork":
            app.invoke(words, old, durability=step.durability)
        elif step.what == "replay":
            # Of a thread that was made by an edit there is nothing to run again.
            with suppress(EmptyInputError):
                app.invoke(None, old, durability=step.durability)
        else:
            app.update_state(old if step.what == "edit_old" else on(thread), words, as_node="answer")


def seen_at(app: Any, name: str) -> Any:
    state = app.get_state({"configurable": on("t")["configurable"] | {"checkpoint_id": name}})
    return state.values, state.next, state.metadata, state.parent_config


def cleaned(client: Any, keep_last: int) -> Any:
    now = time.time()
    parser = KeyParser(now)
    policy = RetentionPolicy(30 * DAY, 30 * DAY, keep_last=keep_last)
    run = CleanupRun(CheckpointStore(client, parser), parser, policy, now, dryrun=False)
    run.execute()
    return run.tally


def check(saver: Any, client: Any, example: Example) -> None:
    client.unlink(*(client.keys("*") or ["none"]))
    app = _nodes(example.often, example.seldom, example.always).compile(checkpointer=saver)
    for number, step in enumerate(example.history):
        act(app, "t", number, step, example.always)
    names = [each.config["configurable"]["checkpoint_id"] for each in app.get_state_history(on("t"))]
    before = {name: seen_at(app, name) for name in names}
    staying = sorted(before)[-example.keep_last :] + [name for name in before if name >= old_id(30)]

    cleaned(client, example.keep_last)

    kept = {key.decode().rpartition(":")[2] for key in client.scan_iter("checkpoint:*")}
    if max(before) < old_id(30):
        assert not kept
        return
    assert kept >= set(staying)
    for name in staying:
        assert seen_at(app, name) == before[name], (name, sorted(kept))
    assert not cleaned(client, example.keep_last).deleted, "one run is enough"
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


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(example=examples, kind=st.sampled_from(("RedisSaver", "ValkeySaver")))
@hypothesis.example(HIDDEN, "RedisSaver")
@hypothesis.example(HIDDEN, "ValkeySaver")
def test_every_kept_checkpoint_is_what_it_was(checkpoint_server, example, kind):
    saver, client = savers(checkpoint_server)[kind]
    check(saver, client, example)


@cache
def savers(server: Any) -> dict[str, tuple[Any, Any]]:
    valkey = pytest.importorskip("valkey")
    module = pytest.importorskip("langgraph_checkpoint_aws.checkpoint.valkey")
    server.client(0).flushall()
    redis_saver = RedisSaver(redis_client=server.client(0))
    redis_saver.setup()
    valkey_saver = module.ValkeySaver(valkey.Valkey(port=server.port, password=server.password, db=2))
    return {"RedisSaver": (redis_saver, server.client(0)), "ValkeySaver": (valkey_saver, server.client(2))}
