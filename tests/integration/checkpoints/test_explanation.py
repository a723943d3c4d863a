"""Explanations: what they say of each checkpoint is what the next cleanup does; with the real savers."""

from __future__ import annotations

import pytest
from django.urls import reverse
from langgraph.checkpoint.redis import RedisSaver
from langgraph.types import Command
from nautobot.apps.testing import APITestCase

from ai_ops.celery_tasks import cleanup_old_checkpoints, explain_thread, pin_thread
from ai_ops.models import RetentionPolicy
from langgraph_checkpoint_compact import CompactRedisSaver
from tests.fakes.conversations import DeltaDialogue, days_ago, graph, on
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


def talk(saver, thread, *ages, asks=False, **options):
    app = graph(saver, asks=asks, **options)
    for number, age in enumerate(ages):
        with days_ago(age):
            if asks and number:
                app.invoke(Command(resume="yes"), on(thread))
            app.invoke({"said": [f"{age} days ago"]}, on(thread))
    return app


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
    assert explain_thread("nothing")["decision"] == "Nothing of this thread was found."


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
