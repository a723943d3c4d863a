"""The saver that agents get: that of the setting, that of the conversations there, else the compact one."""

from __future__ import annotations

import asyncio

import pytest
from langgraph.checkpoint.redis import RedisSaver
from langgraph.checkpoint.redis.shallow import ShallowRedisSaver

from ai_ops.checkpointer import describe_checkpoint_redis, get_checkpointer
from ai_ops.checkpoints import connection
from ai_ops.checkpoints.logic.compact_keys import CompactKeys
from ai_ops.checkpoints.logic.savers import Evidence, choose_saver
from ai_ops.exceptions import CheckpointStoreError, ConfigurationError
from langgraph_checkpoint_compact import CompactRedisSaver, names
from tests.fakes.conversations import graph, old_id, on

pytestmark = pytest.mark.django_db


def class_given():
    async def ask():
        async with get_checkpointer() as saver:
            return type(saver).__name__

    return asyncio.run(ask())


@pytest.fixture
def database_two(checkpoint_server, checkpoint_redis, monkeypatch):
    """A client of the database that the app's documentation starts from, which the app is told to use."""
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", checkpoint_server.url(2))
    with checkpoint_server.client(2) as client:
        yield client


def with_setting(settings, saver, **others):
    settings.PLUGINS_CONFIG = {"ai_ops": {"checkpoint_saver": saver, **others}}


def redis_saver_talks(client, thread="t", **options):
    saver = RedisSaver(redis_client=client, **options)
    saver.setup()
    graph(saver).invoke({"said": ["hello"]}, on(thread))


def valkey_saver_talks(server, thread="t"):
    valkey = pytest.importorskip("valkey")
    module = pytest.importorskip("langgraph_checkpoint_aws.checkpoint.valkey")
    with valkey.Valkey(port=server.port, password=server.password, db=2) as client:
        graph(module.ValkeySaver(client)).invoke({"said": ["hello"]}, on(thread))


@pytest.mark.parametrize("database", [0, 2])
def test_an_empty_database_gets_the_compact_saver_on_whatever_number(
    checkpoint_server, checkpoint_redis, monkeypatch, database
):
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", checkpoint_server.url(database))
    assert describe_checkpoint_redis().saver == "CompactRedisSaver"
    assert class_given() == "AsyncCompactRedisSaver"
    described = describe_checkpoint_redis()
    assert described.saver == "CompactRedisSaver"
    assert described.reason == "this app has chosen it for this database before."

    async def talk():
        async with get_checkpointer() as saver:
            return (await graph(saver).ainvoke({"said": ["hello"]}, on("t")))["said"][0]

    assert asyncio.run(talk()) == "hello"
    with get_checkpointer() as saver:
        assert graph(saver).get_state(on("t")).values["said"][0] == "hello"


@pytest.mark.parametrize("options", [{}, {"checkpoint_prefix": "app", "checkpoint_write_prefix": "app_write"}])
def test_users_of_redis_saver_keep_theirs(checkpoint_redis, settings, options):
    with_setting(settings, "auto", **options)
    redis_saver_talks(checkpoint_redis, **options)
    assert class_given() == "AsyncRedisSaver"
    described = describe_checkpoint_redis()
    assert described.saver == "RedisSaver"
    assert described.reason.startswith("RedisSaver has conversations there, such as ")
    with get_checkpointer() as saver:
        assert graph(saver).get_state(on("t")).values["said"][0] == "hello"


def test_users_of_the_shallow_saver_keep_redis_saver(checkpoint_redis):
    saver = ShallowRedisSaver(redis_client=checkpoint_redis)
    saver.setup()
    graph(saver).invoke({"said": ["hello"]}, on("t"))
    assert class_given() == "AsyncRedisSaver"


def test_users_of_valkey_saver_keep_theirs(checkpoint_server, database_two):
    valkey_saver_talks(checkpoint_server)
    assert class_given() == "AsyncValkeySaver"
    assert describe_checkpoint_redis().saver == "ValkeySaver"
    with get_checkpointer() as saver:
        assert graph(saver).get_state(on("t")).values["said"][0] == "hello"


def test_one_conversation_among_many_keys_of_others_is_found(checkpoint_server, database_two):
    with database_two.pipeline(transaction=False) as pipeline:
        for number in range(20_000):
            pipeline.set(f"session:{number}", "x")
        pipeline.execute()
    valkey_saver_talks(checkpoint_server)
    assert class_given() == "AsyncValkeySaver"


def test_names_alone_are_no_conversation(database_two):
    client = database_two
    made = old_id(1)
    client.set("checkpoint_latest:a:__empty__", "nothing")
    client.set(f"checkpoint:a:{made}", '{"v": 1}')
    client.set("thread:{a}:", made)
    client.lpush("thread:{b}:messages", "hello")
    client.hset(f"checkpoint_write:a:__empty__:{made}:t:0", "a", "b")
    client.sadd("lgc:{a}", "b")
    assert class_given() == "AsyncCompactRedisSaver"


def test_keys_that_come_later_change_nothing_for_the_agents_that_talk(checkpoint_redis):
    with get_checkpointer() as saver:
        graph(saver).invoke({"said": ["hello"]}, on("t"))
    redis_saver_talks(checkpoint_redis)
    assert class_given() == "AsyncCompactRedisSaver"


def test_without_a_conversation_of_its_own_the_choice_gives_way(checkpoint_redis):
    assert class_given() == "AsyncCompactRedisSaver"
    redis_saver_talks(checkpoint_redis)
    assert class_given() == "AsyncRedisSaver"


def test_copies_alone_move_no_saver(checkpoint_redis):
    redis_saver_talks(checkpoint_redis)
    graph(CompactRedisSaver(checkpoint_redis)).invoke({"said": ["hello"]}, on("t"))
    assert class_given() == "AsyncRedisSaver"


@pytest.mark.parametrize(("saver", "name"), [("redis", "AsyncRedisSaver"), ("compact", "AsyncCompactRedisSaver")])
def test_the_setting_decides(checkpoint_redis, settings, saver, name):
    with_setting(settings, "auto")
    redis_saver_talks(checkpoint_redis)
    with_setting(settings, saver, compact_prefix="mine")
    assert class_given() == name
    assert describe_checkpoint_redis().reason == f'the setting checkpoint_saver is "{saver}".'
    with get_checkpointer() as given:
        assert getattr(given, "prefix", "mine") == "mine"


def test_a_saver_that_is_named_and_cannot_work__an_error_that_says_why(database_two, settings):
    with_setting(settings, "redis")
    with pytest.raises(
        ConfigurationError, match=r"only indexes database 0.*checkpoint_saver \(compact, redis, valkey\)"
    ):
        class_given()
    assert describe_checkpoint_redis().saver is None


def test_conversations_of_a_saver_that_cannot_work__an_error_rather_than_an_empty_start(
    checkpoint_server, database_two, monkeypatch
):
    valkey_saver_talks(checkpoint_server)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"ValkeySaver has conversations there, such as thread:\{t\}:"):
        class_given()


def test_more_keys_than_are_looked_at__what_agents_had_before(database_two, checkpoint_redis, monkeypatch):
    monkeypatch.setattr("ai_ops.checkpoints.redis.saver_evidence.MAX_KEYS", 1000)
    database_two.mset({f"session:{number}": "x" for number in range(5000)})
    pytest.importorskip("langgraph_checkpoint_aws")
    assert class_given() == "AsyncValkeySaver"
    assert "the search ended there" in describe_checkpoint_redis().reason


def test_a_user_that_may_not_scan_gets_what_agents_had_before(checkpoint_server, database_two, monkeypatch):
    database_two.execute_command("ACL", "SETUSER", "narrow", "on", ">narrow", "~*", "+@all", "-scan")
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", checkpoint_server.url(2, "narrow").replace("://:", "://narrow:"))
    try:
        described = describe_checkpoint_redis()
    finally:
        database_two.execute_command("ACL", "DELUSER", "narrow")
    assert described.saver in ("ValkeySaver", "CompactRedisSaver")
    assert "the database could not be sampled" in described.reason


def test_a_redis_that_is_away_is_an_error_of_the_app(monkeypatch):
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", "redis://127.0.0.1:1/2")
    with pytest.raises(CheckpointStoreError, match="can't be reached"):
        class_given()


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("checkpoint_saver", "postgres", "must be one of auto, compact, redis, valkey"),
        ("compact_prefix", "checkpoint:mine", "compact_prefix must be a text"),
        ("compact_prefix", "a b", "compact_prefix must be a text"),
        ("compact_prefix", None, "compact_prefix must be a text"),
    ],
)
def test_settings_out_of_their_range(settings, setting, value, said):
    settings.PLUGINS_CONFIG = {"ai_ops": {setting: value}}
    with pytest.raises(ConfigurationError, match=said):
        connection._chosen()


def test_two_savers_have_conversations__the_one_that_works_and_both_in_the_reason():
    able = {"compact": None, "redis": "no modules", "valkey": None}
    choice = choose_saver("auto", able, Evidence({"redis": "a", "valkey": "b"}))
    assert choice.saver == "valkey"
    assert "RedisSaver has conversations there, such as a and ValkeySaver" in choice.reason


THREADS = ("t", "a:b", "{a}", "a*", "%", "%7B", "", "a b", "ü", "line\nbreak", "a}:ids", "\ud800", "x" * 300)


@pytest.mark.parametrize("thread", THREADS)
def test_names_of_keys_are_read_as_the_saver_writes_them(thread):
    compact = CompactKeys("lgc")
    key, ids = names.thread_keys("lgc", thread)
    assert compact.is_hash(key)
    (found,) = compact.threads_in([key, ids, key])
    assert found.name.decode("utf-8", "surrogatepass") == thread
    assert found.keys == (key, ids)


@pytest.mark.parametrize(
    "key", [b"lgc:{a b}", b"lgc:{%61}", b"lgc:{}", b"lgc:{\xff}", b"lgc:a", b"lgc:{" + b"a" * 9000 + b"}"]
)
def test_names_that_the_saver_would_not_find_again_are_none_of_its(key):
    compact = CompactKeys("lgc")
    assert not compact.is_hash(key)
    assert list(compact.threads_in([key])) == [] or not key.startswith(b"lgc:{")
