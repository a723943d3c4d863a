"""Under all policies live threads resume as they were, nothing outlives its policy, and a writer is not harmed.

With the savers themselves, policies drawn at random, and a conversation that goes on while the cleanup runs.
"""

from __future__ import annotations

import fnmatch
import threading
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.redis import RedisSaver
from langgraph.checkpoint.redis.shallow import ShallowRedisSaver
from langgraph.types import Command

from ai_ops.celery_tasks import cleanup_old_checkpoints, explain_thread
from ai_ops.logic.policies import DAY as SECONDS_A_DAY
from ai_ops.logic.policies import read_duration
from ai_ops.models import RetentionPolicy
from langgraph_checkpoint_compact import CompactRedisSaver
from tests.fakes.cleanups import examples
from tests.fakes.conversations import DAY, DeltaDialogue, Dialogue, days_ago, graph, on
from tests.integration.checkpoints.test_checkpoint_property import valkey_saver

pytestmark = pytest.mark.django_db

NAMES = ("a", "a-b", "b", "user-1", "user-1-x", "x:y")
DURATIONS = ("", "1 hour", "12 hours", "20 days", "forever")
KINDS = ("redis", "shallow", "valkey", "compact")
MIB = 1024 * 1024
# Of a turn that fills a mebibyte after two or three.
LARGE = "x" * 200_000


def consistent(policy):
    """Leave out what the form refuses: to keep more than the limit allows."""
    if policy["max_checkpoints"] and (policy["keep_last"] or 0) > policy["max_checkpoints"]:
        return policy | {"keep_last": None}
    return policy


policies = st.lists(
    st.fixed_dictionaries(
        {
            "thread_patterns": st.sampled_from(("a*", "*-x", "user-1", "b", "*", "?", "*1*", "[abu]*", "busy")),
            "weight": st.integers(1, 3),
            "enabled": st.sampled_from((True, True, False)),
            "retention": st.sampled_from(DURATIONS),
            "pending_retention": st.sampled_from(("", "", *DURATIONS)),
            "trim_live_threads": st.sampled_from((None, True, False)),
            "keep_last": st.sampled_from((None, None, 1, 3)),
            "max_checkpoints": st.sampled_from((None, None, 1, 4)),
            "max_thread_mb": st.sampled_from((None, None, 1)),
        }
    ).map(consistent),
    max_size=3,
)
said = st.fixed_dictionaries(
    {
        "ages": st.lists(st.sampled_from((60.0, 25.0, 10.0, 0.3, 0.0)), min_size=1, max_size=3, unique=True).map(
            lambda ages: sorted(ages, reverse=True)
        ),
        "asks": st.booleans(),
        "delta": st.booleans(),
        "subgraph": st.booleans(),
        "large": st.sampled_from((False, False, False, True)),
    }
)
conversations = st.dictionaries(st.sampled_from(NAMES), said, min_size=1, max_size=4)


def saver_of(kind, server, client, monkeypatch):
    if kind == "valkey":
        monkeypatch.setenv("LANGGRAPH_REDIS_URL", server.url(2))
        return valkey_saver(server)
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", server.url(0))
    if kind == "compact":
        return CompactRedisSaver(client)
    saver = (ShallowRedisSaver if kind == "shallow" else RedisSaver)(redis_client=client)
    saver.setup()
    return saver


def app_of(saver, said):
    # A shallow saver keeps no ancestors to read a DeltaChannel from: see the test of that below.
    delta = said["delta"] and not isinstance(saver, ShallowRedisSaver)
    return graph(saver, asks=said["asks"], subgraph=said["subgraph"], state=DeltaDialogue if delta else Dialogue)


def speak(app, name, said):
    for number, age in enumerate(said["ages"]):
        with days_ago(age):
            if said["asks"] and number:
                app.invoke(Command(resume="yes"), on(name))
            app.invoke({"said": [f"{age} days ago{LARGE if said['large'] else ''}"]}, on(name))


def state(app, name):
    seen = app.get_state(on(name))
    return seen.values, seen.next, seen.config, [interrupt.value for interrupt in seen.interrupts]


def held(name, made):
    """The policy that holds, by the words of the documentation, and its two retentions in days."""
    for policy in sorted(made, key=lambda each: (each.weight, each.name)):
        if policy.enabled and fnmatch.fnmatchcase(name, policy.thread_patterns):
            retention = days(policy.retention) if policy.retention else 30.0
            return policy, retention, days(policy.pending_retention) if policy.pending_retention else retention
    return None, 30.0, 30.0


def days(text):
    return read_duration(text) / SECONDS_A_DAY


def spaces_of(saver, name):
    """The checkpoints of each namespace, newest first."""
    found = {}
    for space in ("", "child"):
        listed = saver.list({"configurable": {"thread_id": name, "checkpoint_ns": space}})
        # RedisSaver lists all namespaces where the root's is asked for.
        own = [each for each in listed if each.config["configurable"]["checkpoint_ns"] == space]
        found[space] = sorted(own, key=id_of, reverse=True)
    return found


def id_of(each):
    return each.config["configurable"]["checkpoint_id"]


def time_of(each):
    digits = id_of(each).replace("-", "")
    return (int(digits[:12] + digits[13:16], 16) - 0x01B21DD213814000) / 1e7


def ancestors(checkpoints, kept):
    """The ids of the checkpoints that those are read from: a DeltaChannel is looked for from parent to parent."""
    by_id, found = {id_of(each): each for each in checkpoints}, set()
    for each in kept:
        at, channels = each, set(each.metadata.get("counters_since_delta_snapshot") or {})
        while channels and at.parent_config and at.parent_config["configurable"]["checkpoint_id"] in by_id:
            at = by_id[at.parent_config["configurable"]["checkpoint_id"]]
            found.add(id_of(at))
            channels &= set(at.metadata.get("counters_since_delta_snapshot") or {})
    return found


class Writer(threading.Thread):
    """A conversation that goes on until it is told to stop."""

    def __init__(self, app, name):
        super().__init__(daemon=True)
        self.app, self.name_on = app, name
        self.turns, self.failures = [], []
        self.begun, self.stop = threading.Event(), threading.Event()

    def run(self):
        try:
            while not self.stop.is_set():
                self.turns.append(f"turn {len(self.turns)}")
                answer = self.app.invoke({"said": [self.turns[-1]]}, on(self.name_on))["said"]
                assert [each for each in answer if each.startswith("turn")] == self.turns
                self.begun.set()
        except Exception as error:
            self.failures.append(error)
            self.begun.set()

    def __enter__(self):
        self.start()
        self.begun.wait()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.join()
        assert not self.failures
        answer = self.app.get_state(on(self.name_on)).values["said"]
        assert [each for each in answer if each.startswith("turn")] == self.turns


def one(**changes):
    return {"ages": [25.0], "asks": False, "delta": False, "subgraph": False, "large": False} | changes


def limited(**fields):
    return {
        "thread_patterns": "a*", "weight": 1, "enabled": True, "retention": "", "pending_retention": "",
        "trim_live_threads": None, "keep_last": None, "max_checkpoints": None, "max_thread_mb": None, **fields
    }  # fmt: skip


@examples(25)
@given(drawn=policies, population=conversations, kind=st.sampled_from(KINDS))
@example(drawn=[limited(max_checkpoints=1)], population={"a": one(subgraph=True)}, kind="redis")
@example(drawn=[limited(max_checkpoints=1)], population={"a": one(delta=True, subgraph=True)}, kind="valkey")
@example(drawn=[limited(max_thread_mb=1)], population={"a": one(ages=[3.0, 2.0, 1.0], large=True)}, kind="compact")
@example(drawn=[limited(max_thread_mb=1)], population={"a": one(ages=[3.0, 2.0], large=True, asks=True)}, kind="redis")
def test_live_threads_resume_and_nothing_outlives_its_policy(
    checkpoint_server, checkpoint_redis, monkeypatch, drawn, population, kind
):
    checkpoint_redis.flushall()
    RetentionPolicy.objects.all().delete()
    made = [RetentionPolicy(name=f"p{number}", **each) for number, each in enumerate(drawn)]
    for policy in made:
        policy.validated_save()
    saver = saver_of(kind, checkpoint_server, checkpoint_redis, monkeypatch)
    apps = {name: app_of(saver, said) for name, said in population.items()}
    for name, said in population.items():
        speak(apps[name], name, said)
    live = [name for name, said in population.items() if said["ages"][-1] < held(name, made)[2 if said["asks"] else 1]]
    before = {name: state(apps[name], name) for name in live}
    listed = {name: spaces_of(saver, name) for name in live}

    with Writer(graph(saver), "busy"):
        report = cleanup_old_checkpoints(30)

    assert report["success"], report
    assert report["threads_kept"] == len(live) + 1, report
    assert {name: state(apps[name], name) for name in live} == before
    assert all(not apps[name].get_state(on(name)).values for name in population.keys() - set(live))
    if report["policies"]:
        assert sum(each["threads_kept"] for each in report["policies"].values()) == len(live) + 1
    for name in live:
        check_limits(saver, name, population[name], held(name, made), listed[name], report)
    cleanup_old_checkpoints(30)
    assert cleanup_old_checkpoints(30)["deleted_count"] == 0, "one run is enough for threads that rest"
    for name in live:
        turn = Command(resume="no") if population[name]["asks"] else {"said": ["more"]}
        said = apps[name].invoke(turn, on(name))["said"]
        assert said[: len(before[name][0]["said"])] == before[name][0]["said"]


def check_limits(saver, name, said, holding, before, report):
    """Nothing of a live thread is above a limit or past its retention, but what the report names and what is needed."""
    policy, retention, _ = holding
    over = {each["limit"] for each in report["over_limits"] if each["thread"] == name}
    spaces = spaces_of(saver, name)
    if said["asks"]:
        assert {space: list(map(id_of, some)) for space, some in spaces.items()} == {
            space: list(map(id_of, some)) for space, some in before.items()
        }, "a thread that waits loses nothing"
    if policy and policy.max_checkpoints:
        assert (max(map(len, spaces.values())) > policy.max_checkpoints) == ("max_checkpoints" in over)
    if policy and policy.max_thread_mb:
        assert explain_thread(name)["bytes"] <= policy.max_thread_mb * MIB or "max_thread_mb" in over
    if said["asks"] or (policy and policy.trim_live_threads is False):
        return
    oldest, keep_last = time.time() - retention * DAY, (policy and policy.keep_last) or 1
    for space, checkpoints in before.items():
        kept = [each for place, each in enumerate(checkpoints) if place < keep_last or time_of(each) >= oldest]
        needed = set(map(id_of, kept)) | ancestors(checkpoints, kept)
        assert set(map(id_of, spaces[space])) <= needed, "nothing outlives its policy"


# Not DeltaChannels with the synchronous RedisSaver and the shallow saver: see below.
@pytest.mark.parametrize(
    ("kind", "delta"),
    [("redis", False), ("shallow", False), ("valkey", False), ("valkey", True), ("compact", False), ("compact", True)],
)
def test_a_writer_beside_loses_nothing_to_a_limit_of_one(checkpoint_server, checkpoint_redis, monkeypatch, kind, delta):
    """The hardest policy there is: each run leaves the writer nothing but what it needs."""
    RetentionPolicy.objects.create(name="least", thread_patterns="*", retention="1 hour", max_checkpoints=1)
    saver = saver_of(kind, checkpoint_server, checkpoint_redis, monkeypatch)
    app = graph(saver, state=DeltaDialogue if delta else Dialogue)
    trimmed = 0
    with Writer(app, "busy") as writer:
        while len(writer.turns) < 20 and not writer.failures:
            report = cleanup_old_checkpoints(30)
            assert report["success"], report
            trimmed += report["checkpoints_trimmed"]
    # A run beside the writer may leave the thread alone, since it goes on.
    trimmed += cleanup_old_checkpoints(30)["checkpoints_trimmed"]
    assert trimmed > 0 or delta or kind == "shallow"
    answer = app.get_state(on("busy")).values["said"]
    assert [each for each in answer if each.startswith("turn")] == writer.turns


@pytest.mark.parametrize(("kind", "loses"), [("redis", True), ("valkey", False), ("compact", False)])
def test_the_synchronous_saver_loses_a_write_that_comes_before_its_checkpoint(
    checkpoint_server, checkpoint_redis, monkeypatch, kind, loses
):
    """LangGraph sends both at once, from two threads. A DeltaChannel is made of such writes: no cleanup is needed."""
    saver = saver_of(kind, checkpoint_server, checkpoint_redis, monkeypatch)
    config = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    checkpoint = empty_checkpoint()
    saver.put_writes(
        {"configurable": config["configurable"] | {"checkpoint_id": checkpoint["id"]}}, [("said", "hello")], "task"
    )
    saver.put(config, checkpoint, {"source": "input", "step": -1, "parents": {}}, {})
    found = saver.get_tuple(config)
    assert bool(found.pending_writes) != loses


def test_a_shallow_saver_has_no_ancestors_to_read_a_delta_channel_from(
    checkpoint_server, checkpoint_redis, monkeypatch
):
    saver = saver_of("shallow", checkpoint_server, checkpoint_redis, monkeypatch)
    app = graph(saver, state=DeltaDialogue)
    for turn in range(3):
        app.invoke({"said": [f"turn {turn}"]}, on("t"))
    answer = app.get_state(on("t")).values.get("said", [])
    assert [each for each in answer if each.startswith("turn")] != [f"turn {turn}" for turn in range(3)]
