"""Whatever conversations there were: after a cleanup every live one is what it was, and goes on."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.redis import RedisSaver
from langgraph.checkpoint.redis.shallow import ShallowRedisSaver
from langgraph.types import Command

from ai_ops.celery_tasks import cleanup_old_checkpoints
from langgraph_checkpoint_compact import CompactRedisSaver
from tests.fakes.conversations import days_ago, graph, on

pytestmark = pytest.mark.django_db

# Ids that are prefixes of one another, look like namespaces, or look like other layouts.
NAMES = ("a", "a:b", "a:b:child", "a:child", "{a}", "a|b", "__empty__", "user-1-x", "user-1")


@dataclass(frozen=True)
class Conversation:
    """Turns at these ages in days, oldest first; with a subgraph; the last one waits for an answer or not."""

    turns: tuple[float, ...]
    subgraph: bool
    asks: bool


conversations = st.builds(
    Conversation,
    turns=st.lists(st.sampled_from((80.0, 60.0, 45.0, 31.0, 29.0, 10.0, 0.0)), min_size=1, max_size=4, unique=True).map(
        lambda ages: tuple(sorted(ages, reverse=True))
    ),
    subgraph=st.booleans(),
    asks=st.booleans(),
)
populations = st.dictionaries(st.sampled_from(NAMES), conversations, min_size=1, max_size=4)


def valkey_saver(server):
    valkey = pytest.importorskip("valkey")
    module = pytest.importorskip("langgraph_checkpoint_aws.checkpoint.valkey")
    return module.ValkeySaver(valkey.Valkey(port=server.port, password=server.password, db=2))


def speak(app, thread, conversation):
    for age in conversation.turns:
        with days_ago(age):
            if conversation.asks and age != conversation.turns[0]:
                app.invoke(Command(resume="yes"), on(thread))
            app.invoke({"said": [f"{age} days ago"]}, on(thread))


def state(app, thread):
    seen = app.get_state(on(thread))
    return seen.values, seen.next, seen.config, [interrupt.value for interrupt in seen.interrupts]


def check(saver, client, population):
    apps = {name: graph(saver, subgraph=each.subgraph, asks=each.asks) for name, each in population.items()}
    for name, each in population.items():
        speak(apps[name], name, each)
    live = [name for name, each in population.items() if each.turns[-1] < 30]
    before = {name: state(apps[name], name) for name in live}

    report = cleanup_old_checkpoints(30)

    assert report["success"], report
    assert report["threads_kept"] == len(live)
    assert report["threads_deleted"] == len(population) - len(live)
    assert {name: state(apps[name], name) for name in live} == before
    assert all(not apps[name].get_state(on(name)).values for name in population.keys() - set(live))
    again = cleanup_old_checkpoints(30)
    assert again["deleted_count"] == 0, "one run is enough"
    for name in live:
        turn = Command(resume="no") if population[name].asks else {"said": ["more"]}
        said = apps[name].invoke(turn, on(name))["said"]
        assert said[: len(before[name][0]["said"])] == before[name][0]["said"]
        assert len(said) > len(before[name][0]["said"])
    for name in population.keys() - set(live):
        assert apps[name].invoke({"said": ["anew"]}, on(name))["said"][0] == "anew"


@settings(
    max_examples=35,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    population=populations,
    kind=st.sampled_from(("RedisSaver", "ShallowRedisSaver", "ValkeySaver", "CompactRedisSaver")),
    keys_per_partition=st.sampled_from((5, 20_000)),
)
def test_live_threads_are_what_they_were(
    checkpoint_server, checkpoint_redis, monkeypatch, population, kind, keys_per_partition
):
    checkpoint_redis.flushall()
    monkeypatch.setattr("ai_ops.checkpoints.redis.key_spool.KEYS_PER_PARTITION", keys_per_partition)
    if kind == "ValkeySaver":
        monkeypatch.setenv("LANGGRAPH_REDIS_URL", checkpoint_server.url(2))
        with checkpoint_server.client(2) as client:
            check(valkey_saver(checkpoint_server), client, population)
        return
    if kind == "CompactRedisSaver":
        monkeypatch.setenv("LANGGRAPH_REDIS_URL", checkpoint_server.url(2))
        with checkpoint_server.client(2) as client:
            check(CompactRedisSaver(client), client, population)
            assert client.dbsize() == 2 * len(population)
        return
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", checkpoint_server.url(0))
    saver = (RedisSaver if kind == "RedisSaver" else ShallowRedisSaver)(redis_client=checkpoint_redis)
    saver.setup()
    check(saver, checkpoint_redis, population)
