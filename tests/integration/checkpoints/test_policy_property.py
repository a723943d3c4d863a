"""Under all policies live threads resume as they were, nothing outlives its policy, and a writer is not harmed.

With the savers themselves, policies drawn at random, and a conversation that goes on while the cleanup runs.
"""

from __future__ import annotations

import fnmatch
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.checkpoint.redis import RedisSaver
from langgraph.types import Command

from ai_ops.celery_tasks import cleanup_old_checkpoints
from ai_ops.models import RetentionPolicy
from langgraph_checkpoint_compact import CompactRedisSaver
from tests.fakes.cleanups import examples
from tests.fakes.conversations import DAY, DeltaDialogue, Dialogue, days_ago, graph, on
from tests.integration.checkpoints.test_checkpoint_property import valkey_saver

pytestmark = pytest.mark.django_db

NAMES = ("a", "a-b", "b", "user-1", "user-1-x", "x:y")
HOURS = {"1 hour": 1 / 24, "12 hours": 0.5, "20 days": 20.0, "forever": float("inf")}

policies = st.lists(
    st.fixed_dictionaries(
        {
            "thread_patterns": st.sampled_from(("a*", "*-x", "user-1", "b", "*", "?", "*1*")),
            "weight": st.integers(1, 3),
            "enabled": st.sampled_from((True, True, False)),
            "retention": st.sampled_from(("", *HOURS)),
            "trim_live_threads": st.sampled_from((None, True, False)),
            "max_checkpoints": st.sampled_from((None, None, 1, 4)),
        }
    ),
    max_size=3,
)
conversations = st.dictionaries(
    st.sampled_from(NAMES),
    st.fixed_dictionaries(
        {
            "ages": st.lists(st.sampled_from((60.0, 25.0, 10.0, 0.3, 0.0)), min_size=1, max_size=3, unique=True).map(
                lambda ages: sorted(ages, reverse=True)
            ),
            "asks": st.booleans(),
            "delta": st.booleans(),
            "subgraph": st.booleans(),
        }
    ),
    min_size=1,
    max_size=4,
)


def saver_of(kind, server, client, monkeypatch):
    if kind == "valkey":
        monkeypatch.setenv("LANGGRAPH_REDIS_URL", server.url(2))
        return valkey_saver(server)
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", server.url(0))
    if kind == "compact":
        return CompactRedisSaver(client)
    saver = RedisSaver(redis_client=client)
    saver.setup()
    return saver


def app_of(saver, said):
    state = DeltaDialogue if said["delta"] and not said["subgraph"] else Dialogue
    return graph(saver, asks=said["asks"], subgraph=said["subgraph"], state=state)


def speak(app, name, said):
    for number, age in enumerate(said["ages"]):
        with days_ago(age):
            if said["asks"] and number:
                app.invoke(Command(resume="yes"), on(name))
            app.invoke({"said": [f"{age} days ago"]}, on(name))


def state(app, name):
    seen = app.get_state(on(name))
    return seen.values, seen.next, seen.config, [interrupt.value for interrupt in seen.interrupts]


def held(name, made):
    """The policy that holds, by the words of the documentation, and its retention in days."""
    for policy in sorted(made, key=lambda each: (each.weight, each.name)):
        if policy.enabled and fnmatch.fnmatchcase(name, policy.thread_patterns):
            return policy, HOURS.get(policy.retention, 30.0)
    return None, 30.0


@examples(25)
@given(drawn=policies, population=conversations, kind=st.sampled_from(("redis", "valkey", "compact")))
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
    live = [name for name, said in population.items() if said["ages"][-1] < held(name, made)[1]]
    before = {name: state(apps[name], name) for name in live}

    report = cleanup_old_checkpoints(30)

    assert report["success"], report
    assert report["threads_kept"] == len(live), (report, held)
    assert {name: state(apps[name], name) for name in live} == before
    assert all(not apps[name].get_state(on(name)).values for name in population.keys() - set(live))
    if report["policies"]:
        assert sum(each["threads_kept"] for each in report["policies"].values()) == len(live)
    over = {(each["thread"], each["limit"]) for each in report["over_limits"]}
    now = time.time()
    for name in live:
        policy, days = held(name, made)
        history = list(apps[name].get_state_history(on(name)))
        limit = policy and policy.max_checkpoints
        # With subgraphs a checkpoint more may stay in RedisSaver's own namespace, without a name in the report.
        if limit and not population[name]["subgraph"]:
            assert len(history) <= limit or (name, "max_checkpoints") in over
        trims = policy is None or policy.trim_live_threads is not False
        if trims and not population[name]["asks"] and not population[name]["delta"]:
            old = [each for each in history[1:] if _time(each) < now - days * DAY]
            assert not old, "nothing outlives its policy"
    assert cleanup_old_checkpoints(30)["deleted_count"] == 0, "one run is enough"
    for name in live:
        turn = Command(resume="no") if population[name]["asks"] else {"said": ["more"]}
        said = apps[name].invoke(turn, on(name))["said"]
        assert said[: len(before[name][0]["said"])] == before[name][0]["said"]


def _time(snapshot):
    digits = snapshot.config["configurable"]["checkpoint_id"].replace("-", "")
    return (int(digits[:12] + digits[13:16], 16) - 0x01B21DD213814000) / 1e7


# Not DeltaChannels with the synchronous RedisSaver: it loses writes by itself, as it does without any cleanup.
@pytest.mark.parametrize(
    ("kind", "delta"),
    [("redis", False), ("valkey", False), ("valkey", True), ("compact", False), ("compact", True)],
)
def test_a_writer_beside_loses_nothing_to_a_limit_of_one(checkpoint_server, checkpoint_redis, monkeypatch, kind, delta):
    """The hardest policy there is: each run leaves the writer nothing but what it needs."""
    RetentionPolicy.objects.create(name="least", thread_patterns="*", retention="1 hour", max_checkpoints=1)
    saver = saver_of(kind, checkpoint_server, checkpoint_redis, monkeypatch)
    app = graph(saver, state=DeltaDialogue if delta else Dialogue)
    turns, failures = [], []

    def write():
        deadline = time.monotonic() + 2.0
        try:
            while time.monotonic() < deadline:
                turns.append(f"turn {len(turns)}")
                said = app.invoke({"said": [turns[-1]]}, on("busy"))["said"]
                assert [each for each in said if each.startswith("turn")] == turns
        except Exception as error:
            failures.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    trimmed = 0
    while writer.is_alive():
        report = cleanup_old_checkpoints(30)
        assert report["success"], report
        trimmed += report["checkpoints_trimmed"]
    writer.join()
    assert not failures
    assert len(turns) > 3
    # A run beside the writer may leave the thread alone, since it goes on.
    trimmed += cleanup_old_checkpoints(30)["checkpoints_trimmed"]
    assert trimmed > 0 or delta
    said = app.get_state(on("busy")).values["said"]
    assert [each for each in said if each.startswith("turn")] == turns
