"""The cleanup as a Redis user with the permissions that the documentation names, and no others."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from functools import partial

import pytest
import redis
from langgraph.checkpoint.redis import RedisSaver
from langgraph.checkpoint.redis.shallow import ShallowRedisSaver
from langgraph.types import Command

from ai_ops.celery_tasks import cleanup_old_checkpoints, explain_thread, find_threads
from ai_ops.checkpoints.redis.errors import COMMANDS
from development.services import PROJECT
from langgraph_checkpoint_compact import CompactRedisSaver
from tests.fakes.conversations import days_ago, graph, old_id, on, undated_id
from tests.fakes.kept_worlds import everything, write
from tests.integration.checkpoints.test_checkpoint_recorded import restore

pytestmark = pytest.mark.django_db

DOCUMENTED = re.search(r"ACL SETUSER ai-ops (.*)", (PROJECT / "docs/admin/install.md").read_text()).group(1).split()
TASK = "0d3b4d3e-7c1f-5a10-9a3e-2d1b0c9f8e7d"


def real_savers(client: redis.Redis) -> None:
    for kind in (RedisSaver, ShallowRedisSaver):
        saver = kind(redis_client=client)
        saver.setup()
        app = graph(saver, subgraph=True)
        with days_ago(40):
            app.invoke({"said": ["hello"]}, on(f"old-{kind.__name__}"))
            app.invoke({"said": ["hello"]}, on(f"live-{kind.__name__}"))
        app.invoke({"said": ["again"]}, on(f"live-{kind.__name__}"))


def valkey_and_plain_keys(client: redis.Redis) -> None:
    for thread, days in (("live", (50, 2)), ("old", (50, 40))):
        for made in map(old_id, days):
            client.set(f"checkpoint:{{{thread}}}::{made}", json.dumps({"thread_id": thread}))
            client.set(f"writes:{{{thread}}}::{made}", "[]")
            client.lpush(f"thread:{{{thread}}}:", made)
        client.set(f"checkpoint:plain-{thread}:{old_id(days[1])}", "{}")
    client.set(f"checkpoint:undated:{undated_id()}", json.dumps({"ts": "2021-01-01T00:00:00Z"}))


def orphans(client: redis.Redis) -> None:
    made = old_id(40)
    client.json().set(f"checkpoint_write:gone:__empty__:{made}:{TASK}:0", "$", {})
    client.zadd(f"write_keys_zset:gone:__empty__:{made}", {f"checkpoint_write:gone:__empty__:{made}:{TASK}:0": 0})
    client.set("checkpoint_latest:lone:__empty__", f"checkpoint:lone:__empty__:{made}")
    client.json().set("checkpoint_blob:alone:__empty__:said:1", "$", {"thread_id": "alone"})


def compact_threads(client: redis.Redis) -> None:
    saver = CompactRedisSaver(client)
    app = graph(saver, subgraph=True, asks=True)
    for number in range(3):
        with days_ago(40):
            app.invoke({"said": ["hello"]}, on(f"compact-old-{number}"))
            for _ in range(2):
                app.invoke({"said": ["hello"]}, on(f"compact-live-{number}"))
                app.invoke(Command(resume="yes"), on(f"compact-live-{number}"))
        app.invoke({"said": ["again"]}, on(f"compact-live-{number}"))
        app.invoke(Command(resume="yes"), on(f"compact-live-{number}"))
    with days_ago(40):
        graph(saver).invoke({"said": ["hello"]}, on("compact-half"))
        graph(saver).invoke({"said": ["hello"]}, on("compact-other-half"))
    client.delete("lgc:{compact-half}", "lgc:{compact-other-half}:ids")


def recorded(name: str, saver: str):
    return lambda client: restore(client, name, saver)


LAYOUTS = {
    "current": real_savers,
    "valkey and plain": valkey_and_plain_keys,
    "orphans": orphans,
    "compact": compact_threads,
    "0.0.8": recorded("python-0.0.8", "RedisSaver"),
    "JavaScript": recorded("javascript-1.0.11", "RedisSaver"),
    "JavaScript shallow": recorded("javascript-1.0.11", "ShallowRedisSaver"),
}


@contextmanager
def acl_user(server, client, monkeypatch, *rules, db=0):
    client.execute_command("ACL", "SETUSER", "ai-ops", *rules)
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", f"redis://ai-ops:password@127.0.0.1:{server.port}/{db}")
    try:
        yield
    finally:
        client.acl_deluser("ai-ops")


def test_the_documentation_names_the_commands_and_no_others():
    assert {rule[1:].upper() for rule in DOCUMENTED if rule.startswith("+")} == {*COMMANDS, "INFO", "STRLEN"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_user_with_the_documented_permissions_cleans_up_like_the_owner(
    checkpoint_server, checkpoint_redis, monkeypatch, layout
):
    checkpoint_redis.set("someone else's", "")
    LAYOUTS[layout](checkpoint_redis)
    before = everything(checkpoint_redis)
    expected = cleanup_old_checkpoints(30)
    left = everything(checkpoint_redis).keys()
    assert expected["deleted_count"] > 0
    for key in before.keys() - left:
        checkpoint_redis.restore(key, 0, before[key])

    with acl_user(checkpoint_server, checkpoint_redis, monkeypatch, *DOCUMENTED):
        report = cleanup_old_checkpoints(30)

    same = ("error", "processed_count", "deleted_count", "threads_deleted", "threads_kept", "orphan_count")
    assert [report[name] for name in same] == [expected[name] for name in same]
    assert everything(checkpoint_redis).keys() == left
    assert report["memory_before_bytes"] > 0


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_permission_is_named(checkpoint_server, checkpoint_redis, monkeypatch, command):
    db = 2 if command == "SELECT" else 0
    with checkpoint_server.client(db) as client:
        for fill in (valkey_and_plain_keys, orphans, compact_threads):
            write(client, fill, partial(fill, client))
        if not db:
            restore(client, "javascript-1.0.11", "RedisSaver")
        rules = [rule for rule in DOCUMENTED if rule != f"+{command.lower()}"]
        assert len(rules) == len(DOCUMENTED) - 1
        with acl_user(checkpoint_server, checkpoint_redis, monkeypatch, *rules, db=db):
            report = cleanup_old_checkpoints(30)
    assert report["success"] is False
    assert "lacks a permission" in report["error"]
    assert command in report["error"].partition("grant it")[0].upper()


def test_without_info_all_is_done_but_the_memory_is_not_known(checkpoint_server, checkpoint_redis, monkeypatch):
    valkey_and_plain_keys(checkpoint_redis)
    rules = [rule for rule in DOCUMENTED if rule != "+info"]
    with acl_user(checkpoint_server, checkpoint_redis, monkeypatch, *rules):
        report = cleanup_old_checkpoints(30)
        limited = cleanup_old_checkpoints(30, memory_limit_mb=1, memory_retention_days=7)
    assert (report["error"], report["memory_before_bytes"]) == (None, None)
    assert report["deleted_count"] > 0
    assert "grant +info" in limited["error"]


def test_without_strlen_the_same_is_done(checkpoint_server, checkpoint_redis, monkeypatch):
    valkey_and_plain_keys(checkpoint_redis)
    expected = cleanup_old_checkpoints(30, dryrun=True)["deleted_count"]
    rules = [rule for rule in DOCUMENTED if rule != "+strlen"]
    with acl_user(checkpoint_server, checkpoint_redis, monkeypatch, *rules):
        report = cleanup_old_checkpoints(30)
    assert (report["error"], report["deleted_count"]) == (None, expected)
    assert expected > 1


@pytest.mark.parametrize("more", [(), ("+lrange", "+ft.search")])
def test_threads_are_explained_and_found_with_the_documented_permissions_and_with_those_that_help(
    checkpoint_server, checkpoint_redis, monkeypatch, more
):
    for fill in (real_savers, valkey_and_plain_keys, compact_threads):
        fill(checkpoint_redis)
    names = ("old-RedisSaver", "live-RedisSaver", "live-ShallowRedisSaver", "live", "plain-old", "compact-live-1")
    expected = {name: explain_thread(name) for name in names}
    assert all(each["found"] and each["complete"] for each in expected.values())
    with acl_user(checkpoint_server, checkpoint_redis, monkeypatch, *DOCUMENTED, *more):
        explained = {name: explain_thread(name) for name in names}
        found = find_threads("*live*")
    for name in names:
        for key in ("error", "decision", "waits", "complete", "layout"):
            assert explained[name][key] == expected[name][key], name
        # How much memory keys take it may not ask.
        assert explained[name]["bytes"] is None
    assert found["success"], found["error"]
    assert found["thread_count"] == 7
