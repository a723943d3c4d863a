"""Faults of the server and the network under the saver, and the keys that the saver leaves."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.memory import InMemorySaver
from redis.backoff import NoBackoff
from redis.retry import Retry

from langgraph_checkpoint_compact import (
    CompactRedisSaver,
    DamagedThreadError,
    ThreadBusyError,
    UnsupportedFormatError,
)
from langgraph_checkpoint_compact.names import thread_keys
from tests.fakes.redis_servers import plain_server
from tests.fakes.side_by_side import SideBySide, comparable
from tests.waiting import until

THREADS = ["a:b", "{a}", "a*", "a", "%7B", "line\nbreak", "", "x" * 300, "ä€", "a}:ids", "a?", "[a]", "\ud800", "%"]
BIG = "x" * 3000

# As documented on the saver's page: "What the user may do".
COMMANDS = (
    "+select +evalsha +eval +hexists +hget +hmget +hset +hdel +hstrlen +hlen +hincrby +hscan +zadd +zrem +zcard "
    "+zrangebylex +zrevrangebylex +exists +unlink +scan +time +pexpireat +persist"
)


def write(saver, thread="t", parent=None, values=None, namespace="", **metadata):
    """Put one checkpoint with `values`, after `parent`; returns its configuration."""
    config = {"configurable": {"thread_id": thread, "checkpoint_ns": namespace}}
    checkpoint = empty_checkpoint()
    checkpoint["id"] = str(uuid6(clock_seq=0))
    if parent:
        config = parent
        before = saver.get_tuple(parent).checkpoint
        checkpoint["channel_values"] |= before["channel_values"]
        checkpoint["channel_versions"] |= before["channel_versions"]
    values = {"messages": [BIG]} if values is None else values
    new = {name: saver.get_next_version(checkpoint["channel_versions"].get(name), None) for name in values}
    checkpoint["channel_values"] |= values
    checkpoint["channel_versions"] |= new
    return saver.put(config, checkpoint, {"source": "loop", "step": 1, **metadata}, new)


def talk(saver, thread, count):
    """Some checkpoints, each with one message more."""
    config, said = None, []
    for number in range(count):
        said = [*said, f"{number} {BIG}"]
        config = write(saver, thread, config, {"messages": said})
    return config


def keys(client):
    return sorted(client.scan_iter())


# --------------------------------------------------------------------------------------------
# Threads


def test_odd_thread_ids_never_touch_one_another(both, client):
    for thread in THREADS:
        config = write(both, thread, values={"who": thread.encode("utf-8", "surrogatepass"), "more": BIG})
        both.put_writes(config, [("x", thread.encode("utf-8", "surrogatepass"))], "task")
    assert len(keys(client)) == 2 * len(THREADS)
    listed = {each.config["configurable"]["thread_id"] for each in both.saver.list(None)}
    assert listed == set(THREADS)
    for deleted in THREADS:
        both.delete_thread(deleted)
        for thread in THREADS:
            both.get_tuple({"configurable": {"thread_id": thread}})
    assert keys(client) == []


@pytest.mark.parametrize("namespace", ["", "child:1|grand:2", "a|b", "}", "line\nbreak", "ä", "__empty__", "%7C"])
def test_odd_namespaces_never_touch_one_another(both, namespace):
    everything = ["", "a", "a|", "a|b", "}", "~", namespace, namespace + "|x"]
    for each in everything:
        write(both, namespace=each, values={"who": each, "more": BIG})
    for each in everything:
        assert (
            both.get_tuple({"configurable": {"thread_id": "t", "checkpoint_ns": each}}).checkpoint["channel_values"][
                "who"
            ]
            == each
        )
        list(both.list({"configurable": {"thread_id": "t", "checkpoint_ns": each}}))


def test_savers_with_different_prefixes_do_not_see_each_other(client):
    one, other = CompactRedisSaver(client, prefix="one"), CompactRedisSaver(client, prefix="other")
    write(one)
    assert other.get_tuple({"configurable": {"thread_id": "t"}}) is None
    assert list(other.list(None)) == []
    other.delete_for_runs(["run"])
    other.delete_thread("t")
    assert len(list(one.list(None))) == 1


@pytest.mark.parametrize("prefix", ["", "a{b", "checkpoint", "checkpoint_x", "writes", "a*", "a b"])
def test_a_prefix_that_would_be_misread_is_refused(client, prefix):
    with pytest.raises(ValueError, match="can't be used"):
        CompactRedisSaver(client, prefix=prefix)


def test_a_listing_over_all_threads_takes_any_key_of_the_metadata(both):
    for thread in ("one", "two", "three"):
        parent = None
        for number in range(4):
            parent = write(both, thread, parent, tenant=thread[0], number=number, nested={"a": number % 2})
    everywhere = list(both.saver.list(None, filter={"tenant": "t", "nested": {"a": 1}}))
    assert {each.config["configurable"]["thread_id"] for each in everywhere} == {"two", "three"}
    assert sorted(each.metadata["number"] for each in everywhere) == [1, 1, 3, 3]
    assert len(list(both.saver.list(None, filter={"tenant": "t"}, limit=5))) == 5
    newest = everywhere[0].config
    one = {"configurable": {"thread_id": everywhere[0].config["configurable"]["thread_id"]}}
    older = list(both.list(one, filter={"nested": {"a": 1}}, before=newest, limit=3))
    assert [each.metadata["number"] for each in older] == [1]


def test_deletion_leaves_no_key(both, client):
    config = talk(both.saver, "t", 5)
    both.saver.put_writes(config, [("x", BIG)] * 3, "task")
    write(both.saver, namespace="child")
    both.saver.delete_thread("t")
    assert keys(client) == []
    config = write(both.saver, run_id="run")
    both.saver.put_writes(config, [("x", BIG)], "task")
    both.saver.delete_for_runs(["run"])
    assert keys(client) == []


def test_a_prune_leaves_what_the_newest_needs_and_nothing_else(client, saver):
    talk(saver, "t", 40)
    # An edit, after which the list so far is needed no longer.
    config = saver.get_tuple({"configurable": {"thread_id": "t"}}).config
    last = write(saver, "t", config, {"messages": ["all new"]})
    saver.put_writes(last, [("x", BIG)], "task")
    saver.prune(["t"])
    kinds = sorted(field[:1] for field in client.hkeys("lgc:{t}"))
    assert kinds == [b"c", b"n", b"o", b"p", b"s", b"v", b"w"]


@pytest.mark.parametrize("minutes", [0.5, 60])
def test_all_keys_of_a_thread_have_one_deadline(client, minutes):
    def deadline():
        (found,) = {client.pexpiretime(key) for key in keys(client)}
        time.sleep(0.01)
        return found

    saver = CompactRedisSaver(client, ttl=minutes)
    config = talk(saver, "t", 3)
    put = deadline()
    assert 0 < put / 1000 - time.time() <= minutes * 60
    saver.put_writes(config, [("x", 1)], "task")
    written = deadline()
    assert written > put
    saver.get_tuple(config)
    assert deadline() == written
    CompactRedisSaver(client, ttl=minutes, refresh_on_read=True).get_tuple(config)
    assert deadline() > written


def test_a_thread_past_its_deadline_is_gone_whole(client):
    saver = CompactRedisSaver(client, ttl=0.002)
    talk(saver, "t", 2)
    time.sleep(0.2)
    assert saver.get_tuple({"configurable": {"thread_id": "t"}}) is None
    assert keys(client) == []


def test_a_ttl_of_nothing_is_refused(client):
    with pytest.raises(ValueError, match="minutes can't be used"):
        CompactRedisSaver(client, ttl=0)


def test_a_checkpoint_after_a_deletion_is_whole(client, saver):
    other = CompactRedisSaver(client)
    for delete in (lambda: other.delete_thread("t"), lambda: other.delete_for_runs(["old"])):
        config = write(saver, values={"messages": [BIG], "small": 1, "table": {"a": BIG}}, run_id="old")
        config = write(saver, "t", config, {"messages": [BIG, BIG]}, run_id="old")
        before = saver.get_tuple(config)
        delete()
        version = saver.get_next_version(before.checkpoint["channel_versions"]["messages"], None)
        late = {**before.checkpoint, "id": str(uuid6(clock_seq=0))}
        late["channel_values"] = before.checkpoint["channel_values"] | {"messages": [BIG, BIG, "late"]}
        late["channel_versions"] = before.checkpoint["channel_versions"] | {"messages": version}
        stored = saver.put(config, late, {}, {"messages": version})
        assert other.get_tuple(stored).checkpoint["channel_values"] == late["channel_values"]
        saver.delete_thread("t")


def test_large_values_and_writes_read_back(both):
    large = "y" * 700_000
    config = write(both, values={"messages": [large], "bytes": b"z" * 900_000})
    config = write(both, "t", config, {"messages": [large, large, large]})
    for task in range(6):
        both.put_writes(config, [("x", large), ("y", b""), ("z", "a" * 200_000)], f"task {task}")
    assert len(both.get_tuple(config).pending_writes) == 18
    list(both.list({"configurable": {"thread_id": "t"}}))


# --------------------------------------------------------------------------------------------
# Many


def test_sixteen_parallel_writers_lose_nothing(both):
    config = write(both)
    with ThreadPoolExecutor(16) as pool:
        tasks = [f"task-{number}" for number in range(64)]
        list(pool.map(lambda task: both.saver.put_writes(config, [("x", task), ("y", BIG)], task), tasks))
        list(pool.map(lambda number: write(both.saver, "p", values={"n": number}), range(64)))
        # Branches from one checkpoint, all of which go on from the same list.
        list(pool.map(lambda number: write(both.saver, "t", config, {"messages": [BIG, number]}), range(64)))
    assert len(both.saver.get_tuple(config).pending_writes) == 128
    on = {"configurable": {"thread_id": "p"}}
    assert sorted(each.checkpoint["channel_values"]["n"] for each in both.saver.list(on)) == list(range(64))
    on = {"configurable": {"thread_id": "t"}}
    branches = [each.checkpoint["channel_values"]["messages"] for each in both.saver.list(on)]
    assert sorted(each[1] for each in branches if len(each) == 2) == list(range(64))


@pytest.mark.parametrize("count", [150, 3000])
def test_threads_of_many_checkpoints_read_back(client, count):
    saver = CompactRedisSaver(client)
    config, said = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}, []
    versions = {}
    ids = []
    for number in range(count):
        said.append(f"{number} said")
        versions = {"said": saver.get_next_version(versions.get("said"), None)}
        checkpoint = empty_checkpoint()
        checkpoint.update(id=str(uuid6(clock_seq=0)), channel_values={"said": said}, channel_versions=versions)
        config = saver.put(config, checkpoint, {"step": number, "odd": number % 2}, versions)
        ids.append(checkpoint["id"])
    everything = [each.checkpoint["id"] for each in saver.list(config | {}, limit=None)]
    assert everything == ids[-1:]
    on = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    few = saver.list(on, limit=120)
    assert all(each.checkpoint["channel_values"]["said"] == said[: each.metadata["step"] + 1] for each in few)
    before = {"configurable": {"checkpoint_id": ids[count // 3]}}
    odd = [each.metadata["step"] for each in saver.list(on, filter={"odd": 1}, before=before, limit=40)]
    assert odd == [number for number in range(count // 3 - 1, -1, -1) if number % 2][:40]
    assert client.memory_usage("lgc:{t}", samples=0) < 1000 * count
    saver.copy_thread("t", "copy")
    saver.prune(["t"])
    assert [each.checkpoint["id"] for each in saver.list(on)] == ids[-1:]
    assert saver.get_tuple(on).checkpoint["channel_values"]["said"] == said
    copied = saver.list({"configurable": {"thread_id": "copy"}})
    assert [next(copied).checkpoint["id"] for _ in range(3)] == ids[:-4:-1]


# --------------------------------------------------------------------------------------------
# The server


def test_a_flushed_script_cache_changes_nothing(both, client):
    for number in range(4):
        write(both, values={"n": number})
        client.script_flush()
    assert len(list(both.list({"configurable": {"thread_id": "t"}}))) == 4


class AnswerThief:
    """Stands between the saver and its server and hangs up after the server has answered, as often as told."""

    def __init__(self, target):
        self.target, self.thefts = target, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", self.target)) as server:
            threading.Thread(target=self.requests, args=(client, server), daemon=True).start()
            while answer := server.recv(65536):
                if self.thefts and self.steals:
                    self.thefts -= 1
                    self.steals = False
                    client.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(answer)

    steals = False

    def requests(self, client, server):
        with contextlib.suppress(OSError):
            while request := client.recv(1 << 20):
                self.steals = self.steals or b"EVAL" in request
                server.sendall(request)


@pytest.fixture
def thief(valkey_port):
    thief = AnswerThief(valkey_port)
    yield thief
    thief.listener.shutdown(socket.SHUT_RDWR)
    thief.listener.close()


def test_what_is_sent_twice_since_its_answer_was_lost_is_stored_once(client, thief):
    retrying = redis.Redis(port=thief.port, db=2, retry=Retry(NoBackoff(), 3))
    both = SideBySide(CompactRedisSaver(retrying), InMemorySaver())
    config = None
    for number in range(6):
        thief.thefts = 1
        config = write(both, "t", config, {"messages": [f"{each} {BIG}" for each in range(number + 1)], "n": number})
        thief.thefts = 1
        both.put_writes(config, [("x", BIG), ("__interrupt__", number)], "task")
    assert thief.thefts == 0
    assert len(list(both.list({"configurable": {"thread_id": "t"}}))) == 6
    # The list was appended to once: it is one log of the last list's length.
    log = next(field for field in client.hkeys("lgc:{t}") if field.startswith(b"l|"))
    assert int.from_bytes(client.hget("lgc:{t}", log)[6:10], "big") < 6 * 3100
    retrying.close()


def test_a_full_server_refuses_a_put_whole(tmp_path):
    with plain_server("full", "--maxmemory-policy", "noeviction") as port, redis.Redis(port=port) as client:
        saver = CompactRedisSaver(client)
        config = talk(saver, "t", 3)
        before = client.hgetall("lgc:{t}"), client.zrange("lgc:{t}:ids", 0, -1)
        client.config_set("maxmemory", 1)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            write(saver, "t", config, {"messages": ["x"] * 1000})
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            saver.put_writes(config, [("x", BIG)], "task")
        assert (client.hgetall("lgc:{t}"), client.zrange("lgc:{t}:ids", 0, -1)) == before
        # Reading and deleting go on.
        assert len(list(saver.list(config))) == 1
        saver.delete_thread("t")
        client.config_set("maxmemory", 0)
        talk(saver, "t", 2)


def test_a_replica_is_read_from_and_refuses_to_be_written_to(valkey_port, client):
    client.config_set("repl-diskless-sync-delay", 0)
    config = talk(CompactRedisSaver(client), "t", 3)
    with plain_server("replica", "--replicaof", "127.0.0.1", str(valkey_port)) as port:
        replica = redis.Redis(port=port, db=2)
        until(lambda: replica.exists("lgc:{t}:ids"), "the thread at the replica")
        saver = CompactRedisSaver(replica, ttl=10, refresh_on_read=True)
        expected = CompactRedisSaver(client).get_tuple(config)
        assert comparable(saver.get_tuple(config)) == comparable(expected)
        assert len(list(saver.list({"configurable": {"thread_id": "t"}}))) == 3
        with pytest.raises(redis.exceptions.ReadOnlyError):
            write(saver, "t", config)
        replica.close()


@contextlib.contextmanager
def restricted(client, port, commands):
    client.execute_command("ACL", "SETUSER", "agent", "reset", "on", ">pass", "~lgc:*", *commands.split())
    try:
        with redis.Redis(port=port, db=2, username="agent", password="pass") as limited:
            yield CompactRedisSaver(limited, ttl=5, refresh_on_read=True)
    finally:
        client.execute_command("ACL", "DELUSER", "agent")


def use_everything(saver):
    config = write(saver, "t", talk(saver, "t", 3), {"other": 1})
    write(saver, "t", saver.get_tuple(config).parent_config, {"messages": ["fork"]}, run_id="run")
    saver.put_writes(config, [("x", BIG)], "task")
    saver.put_writes(config, [("__resume__", BIG)], "task")
    saver.put_writes(config, [("__resume__", "b")], "task")
    assert len(list(saver.list(None, filter={"step": 1}))) == 5
    assert saver.get_tuple({"configurable": {"thread_id": "t"}})
    saver.copy_thread("t", "copy")
    saver.delete_for_runs(["run"])
    saver.prune(["t"])
    saver.client.connection_pool.disconnect()
    saver.delete_thread("t")
    saver.delete_thread("copy")
    # A copy without a deadline keeps none.
    CompactRedisSaver(saver.client).copy_thread(talk(saver, "t", 1)["configurable"]["thread_id"], "copy")
    saver.prune(["t", "copy"], strategy="delete")


def test_a_user_with_exactly_the_documented_commands_can_do_everything(client, valkey_port):
    with restricted(client, valkey_port, COMMANDS) as saver:
        client.script_flush()
        use_everything(saver)
    assert keys(client) == []


@pytest.mark.parametrize("command", COMMANDS.split())
def test_each_documented_command_is_needed(client, valkey_port, command):
    with restricted(client, valkey_port, COMMANDS.replace(command + " ", "").removesuffix(" " + command)) as saver:
        client.script_flush()
        with pytest.raises(redis.exceptions.ResponseError):
            use_everything(saver)
    # Whatever it was refused, no thread is there in part.
    for each in CompactRedisSaver(client).list(None):
        assert each.checkpoint["channel_values"]["messages"]


# --------------------------------------------------------------------------------------------
# Formats


def put_and_read(saver, reader, config):
    saver.put(config, {**empty_checkpoint(), "channel_values": {"messages": [BIG] * 9}}, {}, {"messages": "9"})
    reader.get_tuple(config)


@pytest.mark.parametrize("kind", [b"c", b"v", b"w", b"l"])
def test_a_newer_format_is_refused_with_a_sentence(client, saver, kind):
    config = talk(saver, "t", 3)
    saver.put_writes(config, [("x", 1)], "task")
    for field, value in client.hgetall("lgc:{t}").items():
        if field[:2] == kind + b"|":
            client.hset("lgc:{t}", field, bytes([2]) + value[1:])
    stranger = CompactRedisSaver(client)
    before = client.hgetall("lgc:{t}")
    with pytest.raises(UnsupportedFormatError, match=r"in format 2; .* Update langgraph-checkpoint-compact"):
        stranger.get_tuple(config)
    with pytest.raises(UnsupportedFormatError):
        list(stranger.list({"configurable": {"thread_id": "t"}}))
    if kind == b"w":
        with pytest.raises(UnsupportedFormatError):
            stranger.put_writes(config, [("y", 1)], "task")
    else:
        # It knows what it wrote last, and must not go on from what it can't read.
        with pytest.raises(UnsupportedFormatError):
            put_and_read(saver, stranger, config)
    with pytest.raises(UnsupportedFormatError):
        stranger.prune(["t"])
    after = client.hgetall("lgc:{t}")
    assert all(after[name] == value for name, value in before.items() if name not in (b"n", b"p", b"s"))


def seal_that_holds(client, thread, version=1, namespace=b""):
    """The seal that says of a thread, as it is, that all is known of it."""
    key, ids = thread_keys("lgc", thread)
    newest, writings = client.hmget(key, "n", "p")
    return b"%d %b %d %d %b|%b" % (version, writings, client.hlen(key), client.zcard(ids), namespace, newest or b"")


def is_sealed(client, thread, version=1, namespace=b""):
    return client.hget(thread_keys("lgc", thread)[0], "s") == seal_that_holds(client, thread, version, namespace)


def test_each_writing_seals_the_thread_again(client, saver):
    early = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": str(uuid6(clock_seq=0))}}
    saver.put_writes(early, [("x", 1)], "before its checkpoint")
    assert is_sealed(client, "t")
    config = talk(saver, "t", 4)
    write(saver, "t", saver.get_tuple(config).parent_config, {"messages": ["fork"]}, run_id="run")
    assert is_sealed(client, "t")
    saver.put_writes(config, [("x", BIG), ("__resume__", 1)], "task")
    saver.put_writes(config, [("__resume__", 2)], "task")
    assert is_sealed(client, "t")
    write(saver, "t", namespace="child")
    assert is_sealed(client, "t", namespace=b"*"), "of several namespaces"
    for remove in (lambda: saver.delete_for_runs(["run"]), lambda: saver.prune(["t"])):
        remove()
        assert is_sealed(client, "t", namespace=b"*")
    assert len(list(saver.list({"configurable": {"thread_id": "t"}}))) == 2
    write(saver, "u", namespace="a|b")
    write(saver, "u", namespace="a|b")
    assert is_sealed(client, "u", namespace=b"a%7Cb")


def older_version_writes(client, key):
    """Count a writing, as a version of this package does that knows no seal."""
    client.hset(key, "c||" + str(uuid6(clock_seq=0)), b"\x01")
    client.hincrby(key, "p", 1)


@pytest.mark.parametrize(
    "change",
    [
        older_version_writes,
        lambda client, key: client.hincrby(key, "p", 1),
        lambda client, key: client.hset(key, "c||x", b"\x01"),
        lambda client, key: client.hset(key, "n", str(uuid6(clock_seq=0))),
        lambda client, key: client.zadd(key + b":ids", {"|x": 0}),
        lambda client, key: client.hset(key, "s", ""),
        lambda client, key: client.hdel(key, "s"),
    ],
)
def test_a_seal_that_something_else_broke_stays_broken(client, saver, change):
    config = talk(saver, "t", 3)
    change(client, thread_keys("lgc", "t")[0])
    assert not is_sealed(client, "t")
    saver.put_writes(config, [("x", 1)], "task")
    assert not is_sealed(client, "t")
    write(saver, "t", config)
    assert client.hget("lgc:{t}", "s") is None
    write(saver, "t", config)
    saver.delete_thread("t")
    talk(saver, "t", 1)
    assert is_sealed(client, "t"), "nothing is left of what was there"


def test_a_seal_names_the_newest_format_that_the_thread_has(client, saver):
    config = talk(saver, "t", 3)
    # A version that comes later has written a document somewhere.
    client.hset("lgc:{t}", "s", seal_that_holds(client, "t", 3))
    write(saver, "t", config)
    assert is_sealed(client, "t", 3)
    # What belongs to a checkpoint of that version is not known here.
    with pytest.raises(UnsupportedFormatError, match="format 3"):
        saver.prune(["t"])
    assert is_sealed(client, "t", 3)


def test_a_copy_is_not_sealed_as_its_documents_are_not_looked_at(client, saver):
    talk(saver, "t", 3)
    saver.copy_thread("t", "copy")
    talk(saver, "there", 2)
    saver.copy_thread("t", "there")
    for thread in ("copy", "there"):
        assert client.hget(thread_keys("lgc", thread)[0], "s") is None
        write(saver, thread)
        assert client.hget(thread_keys("lgc", thread)[0], "s") is None


@pytest.mark.parametrize("other", ["1", "x" * 36, "0d3b4d3e-7c1f-4a10-9a3e-2d1b0c9f8e7d"])
def test_a_thread_with_ids_that_do_not_sort_as_they_were_made_is_not_sealed(client, saver, other):
    config = talk(saver, "t", 2)
    assert is_sealed(client, "t")
    saver.put(config, {**empty_checkpoint(), "id": other}, {}, {})
    assert client.hget("lgc:{t}", "s") is None


def test_a_client_that_decodes_answers_serves_too(valkey_port, client):
    with redis.Redis(port=valkey_port, db=2, decode_responses=True) as decoding:
        saver = CompactRedisSaver(decoding)
        config = talk(saver, "t", 3)
        saver.put_writes(config, [("x", b"\xff\xfe")], "task")
        saver.copy_thread("t", "copy")
        assert {each.config["configurable"]["thread_id"] for each in saver.list(None)} == {"t", "copy"}
        assert comparable(saver.get_tuple(config)) == comparable(CompactRedisSaver(client).get_tuple(config))
        saver.prune(["t"])


def test_a_thread_that_is_written_to_without_end_is_left_whole(client, saver, monkeypatch):
    talk(saver, "t", 5)
    run = saver._driver._answer

    def disturbed(request):
        if getattr(request, "script", None) is not None:
            client.hincrby(thread_keys("lgc", "t")[0], "p", 1)
        return run(request)

    monkeypatch.setattr(saver._driver, "_answer", disturbed)
    with pytest.raises(ThreadBusyError, match="It is whole"):
        saver.prune(["t"])
    assert len(list(CompactRedisSaver(client).list({"configurable": {"thread_id": "t"}}))) == 5


@pytest.mark.parametrize("field", ["c|", "w|"])
@pytest.mark.parametrize(
    "damage", [b"", b"\x01", b"\x01" + b"\x00" * 40, b"\x01\x00\x00\x00\x0c" + b"\x00" * 8, b"\x01" + b"\xff" * 60]
)
def test_a_damaged_thread_is_an_error_and_no_endless_loop(client, saver, field, damage):
    config = write(saver, "t", write(saver, "t"))
    saver.put_writes(config, [("a", 1)], "task")
    member = client.hget("lgc:{t}", "n").decode()
    client.hset("lgc:{t}", f"{field}|{member}", damage)
    try:
        saver.get_tuple({"configurable": {"thread_id": "t"}})
    except (DamagedThreadError, redis.ResponseError):
        pass
    else:
        assert (field, damage) == ("w|", b"\x01"), "no writes at all are none that are damaged"
    for call in (
        lambda: saver.put_writes(config, [("a", 2)], "task"),
        lambda: saver.prune(["t"]),
        lambda: list(saver.list(None)),
    ):
        with contextlib.suppress(DamagedThreadError, redis.ResponseError):
            call()
    assert client.ping()
    saver.delete_thread("t")
    assert client.dbsize() == 0
