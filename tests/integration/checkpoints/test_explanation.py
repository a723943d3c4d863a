"""Explanations: what they say of each checkpoint is what the next cleanup does; with the real savers."""

from __future__ import annotations

import json

import pytest
from django.urls import reverse
from langgraph.checkpoint.redis import RedisSaver
from nautobot.apps.testing import APITestCase

from ai_ops.celery_tasks import cleanup_old_checkpoints, explain_thread, pin_thread
from ai_ops.checkpoints.explanation import explain
from ai_ops.models import RetentionPolicy
from langgraph_checkpoint_compact import CompactRedisSaver
from tests.fakes.conversations import DeltaDialogue, days_ago, graph, old_id, on, talk
from tests.integration.checkpoints.test_checkpoint_property import valkey_saver

pytestmark = pytest.mark.django_db

SAVERS = ("redis", "valkey", "compact")


@pytest.fixture
def make(checkpoint_server, checkpoint_redis, monkeypatch):
    """Gives a saver of a kind."""

    def of_kind(kind):
        if kind == "valkey":
            monkeypatch.setenv("LANGGRAPH_REDIS_URL", checkpoint_server.url(2))
            return valkey_saver(checkpoint_server)
        if kind == "compact":
            return CompactRedisSaver(checkpoint_redis)
        saver = RedisSaver(redis_client=checkpoint_redis)
        saver.setup()
        return saver

    return of_kind


def ids(saver, thread):
    return {each.config["configurable"]["checkpoint_id"] for each in saver.list(on(thread))}


def told(explanation, *, goes):
    return {
        each["checkpoint_id"]
        for space in explanation["namespaces"]
        for each in space["checkpoints"]
        if each["goes"] is goes
    }


def rules(explanation):
    return {each["rule"] for space in explanation["namespaces"] for each in space["checkpoints"]}


@pytest.mark.parametrize("kind", SAVERS)
@pytest.mark.parametrize(
    ("ages", "options", "policy"),
    [
        ((60, 40), {}, {}),
        ((60, 40, 1), {}, {}),
        ((60, 40, 1), {"subgraph": True}, {}),
        ((60, 40, 1), {"asks": True}, {}),
        ((60, 40, 20, 1), {"state": DeltaDialogue}, {}),
        ((3, 2, 1), {}, {"max_checkpoints": 5}),
        ((60, 40, 1), {}, {"retention": "forever"}),
        ((0.5, 0.1), {}, {"retention": "1h", "trim_live_threads": True}),
    ],
)
def test_what_it_says_is_what_the_cleanup_does(make, kind, ages, options, policy):
    saver = make(kind)
    if policy:
        RetentionPolicy.objects.create(name="p", thread_patterns="t*", **policy)
    talk(saver, "t", *ages, **options)
    before = ids(saver, "t")
    explanation = explain_thread("t")
    assert (explanation["success"], explanation["found"], explanation["policy"]) == (True, True, "p" if policy else "")
    goes, stays = told(explanation, goes=True), told(explanation, goes=False)
    assert before <= goes | stays, "each checkpoint is there"
    cleanup_old_checkpoints(30)
    assert ids(saver, "t") & goes == set(), rules(explanation)
    assert before - goes <= ids(saver, "t"), rules(explanation)
    if options.get("asks"):
        assert explanation["waits"]
        assert rules(explanation) == {"the thread waits for an answer"}


@pytest.mark.parametrize("kind", SAVERS)
def test_a_pinned_thread_and_one_that_is_not_there(make, kind):
    talk(make(kind), "t", 60)
    pin_thread("t*", is_glob=True)
    explanation = explain_thread("t")
    assert explanation["pinned"]
    assert rules(explanation) == {"the thread is pinned"}
    assert "pinned" in explanation["decision"]
    assert explain_thread("nothing")["found"] is False
    assert explain_thread("nothing")["decision"] == "No keys of this thread were found."


def test_namespaces_of_subgraphs_are_found_without_a_scan(make, checkpoint_redis):
    talk(make("redis"), "t", 1, subgraph=True)
    with checkpoint_redis.monitor() as watched:
        explanation = explain_thread("t")
        checkpoint_redis.ping()
        said = iter(lambda: watched.next_command()["command"], "PING")
        assert not [line for line in said if line.split()[0].upper() in ("SCAN", "KEYS")]
    assert len(explanation["namespaces"]) == 2
    assert explanation["keys"] == checkpoint_redis.dbsize()
    assert explanation["bytes"] > 1000


def left_of(client, explanation):
    """The checkpoints of an explanation that are in Redis, by the ids at the ends of their keys."""
    ends = {key.decode().rpartition(":")[2] for key in client.scan_iter("checkpoint:*")}
    return {each for each in told(explanation, goes=True) | told(explanation, goes=False) if each in ends}


def test_plain_keys_are_searched_for_by_their_name(checkpoint_redis):
    ids_by_age = {age: old_id(age) for age in (60, 40, 1)}
    for thread, ages in {"t": (60, 40, 1), "old": (60, 40), "t-x": (60,), "x*t": (1,)}.items():
        for age in ages:
            checkpoint_redis.set(f"checkpoint:{thread}:{ids_by_age[age]}", "{}")
    checkpoint_redis.set("checkpoint:iso:2020-05-05T05:05:05+00:00", "{}")
    checkpoint_redis.set("checkpoint:one-key", json.dumps({"ts": "2021-01-01T00:00:00Z"}))
    checkpoint_redis.set("checkpoint:undated:what", "{}")
    explained = {name: explain_thread(name) for name in ("t", "old", "t-x", "x*t", "iso", "one-key", "undated")}
    assert all(each["found"] and each["complete"] for each in explained.values()), explained
    assert told(explained["t"], goes=True) == {ids_by_age[60], ids_by_age[40]}
    assert rules(explained["undated"]) == {"a checkpoint of the thread has no readable time"}
    cleanup_old_checkpoints(30)
    for name in ("t", "old", "t-x", "x*t"):
        assert left_of(checkpoint_redis, explained[name]) == told(explained[name], goes=False), name
    assert told(explained["iso"], goes=False) == told(explained["one-key"], goes=False) == set()
    assert not list(checkpoint_redis.scan_iter("checkpoint:iso*"))
    assert not list(checkpoint_redis.scan_iter("checkpoint:one-key"))


def test_a_search_that_takes_too_long_says_how_much_it_has_seen(checkpoint_redis):
    with checkpoint_redis.pipeline(transaction=False) as pipeline:
        for number in range(5000):
            pipeline.set(f"other:{number}", "")
        pipeline.set(f"checkpoint:t:{old_id(1)}", "{}")
        pipeline.execute()
    explanation = explain("t", search_seconds=0.0).as_dict()
    assert explanation["complete"] is False
    (note,) = explanation["notes"]
    assert note.startswith("About 1,000 of 5,001 keys were searched"), note
    assert explain_thread("t")["complete"]


@pytest.mark.parametrize("kind", SAVERS)
def test_other_branches_are_explained_too(make, kind, checkpoint_redis):
    saver = make(kind)
    app = talk(saver, "t", 60, 40)
    first = list(app.get_state_history(on("t")))[-1]
    with days_ago(1):
        app.update_state(first.config, {"said": ["another branch"]}, as_node="answer")
    before = ids(saver, "t")
    with checkpoint_redis.monitor() as watched:
        explanation = explain_thread("t")
        checkpoint_redis.ping()
        said = list(iter(lambda: watched.next_command()["command"], "PING"))
    # ValkeySaver's list has all of a namespace, and nothing lists its namespaces.
    assert any(" 'SCAN'" in line or line.startswith("SCAN") for line in said) == (kind == "valkey")
    assert explanation["complete"]
    assert told(explanation, goes=True) | told(explanation, goes=False) == before
    cleanup_old_checkpoints(30)
    assert ids(saver, "t") == told(explanation, goes=False)


def test_without_the_search_index_branches_are_found_by_their_names(make, checkpoint_redis):
    saver = make("redis")
    app = talk(saver, "t", 60, 40)
    first = list(app.get_state_history(on("t")))[-1]
    with days_ago(1):
        app.update_state(first.config, {"said": ["another branch"]}, as_node="answer")
    before = ids(saver, "t")
    checkpoint_redis.execute_command("FT.DROPINDEX", "checkpoint")
    explanation = explain_thread("t")
    assert explanation["complete"]
    assert told(explanation, goes=True) | told(explanation, goes=False) == before


def test_a_thread_that_was_moved_is_explained_in_both_savers(make, checkpoint_redis):
    talk(make("redis"), "t", 60, 1)
    talk(make("compact"), "t", 60)
    explanation = explain_thread("t")
    assert explanation["layout"] == "CompactRedisSaver and RedisSaver"
    assert explanation["decision"].startswith(
        "CompactRedisSaver: The next cleanup deletes the whole thread. RedisSaver:"
    )
    report = cleanup_old_checkpoints(30)
    assert report["layouts"]["compact"]["threads_deleted"] == 1
    assert report["layouts"]["others"]["checkpoints_trimmed"] == len(told(explanation, goes=True)) - 4


def test_what_is_left_of_a_thread_is_told_as_that(make, checkpoint_redis):
    talk(make("redis"), "t", 60)
    for key in [*checkpoint_redis.scan_iter("checkpoint:*"), *checkpoint_redis.scan_iter("checkpoint_latest:*")]:
        checkpoint_redis.delete(key)
    rest = checkpoint_redis.dbsize()
    assert rest
    explanation = explain_thread("t")
    assert explanation["found"]
    assert explanation["decision"] == (
        f"No checkpoint of this thread is left. The next cleanup deletes {rest} of the {rest} keys that are left."
    )
    assert cleanup_old_checkpoints(30)["orphan_count"] == rest


@pytest.mark.parametrize(("age", "part"), [(60, ""), (60, ":ids"), (0, ":ids")])
def test_half_of_a_compact_thread_is_told_as_that(make, checkpoint_redis, age, part):
    talk(make("compact"), "t", age)
    checkpoint_redis.delete("lgc:{t}" + part)
    explanation = explain_thread("t")
    goes = cleanup_old_checkpoints(30)["orphan_count"]
    assert ("deletes 1 of the 1 keys" in explanation["decision"]) == bool(goes)
    assert "a part of the thread is missing" in explanation["notes"][0]


@pytest.mark.parametrize("kind", SAVERS)
def test_the_limit_of_a_threads_memory_is_explained(make, kind):
    RetentionPolicy.objects.create(name="p", thread_patterns="t*", max_thread_mb=1)
    saver = make(kind)
    app = graph(saver)
    for _ in range(6):
        app.invoke({"said": ["x" * 100_000]}, on("t"))
    explanation = explain_thread("t")
    goes = told(explanation, goes=True)
    assert goes
    assert "over the limit of 1 MiB" in rules(explanation)
    cleanup_old_checkpoints(30)
    assert not goes & ids(saver, "t")
    # The sizes of a compact thread are measured again while it shrinks.
    assert kind == "compact" or ids(saver, "t") == told(explanation, goes=False)


@pytest.mark.parametrize("name", ["", "a\nb", "{x}", "\ud83d", "x" * 5000, "a:b:c", "*"])
def test_odd_names_are_looked_up_like_any_other(make, name):
    assert explain_thread(name)["found"] is False


class RestTest(APITestCase):
    def test_it_takes_the_permission_to_see_threads(self):
        url = reverse("plugins-api:ai_ops-api:thread-explain")
        self.assertHttpStatus(self.client.get(url, {"thread_id": "t"}, **self.header), 403)
        self.add_permissions("ai_ops.view_checkpointstoragesnapshot")
        self.assertHttpStatus(self.client.get(url, **self.header), 400)
        assert self.client.get(url, {"thread_id": "t"}, **self.header).data["thread"] == "t"
