"""Random operations on the saver and on InMemorySaver: every read gives the same."""

from __future__ import annotations

import copy
import os

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.base import ERROR, INTERRUPT, RESUME, empty_checkpoint
from langgraph.checkpoint.base.id import uuid6

from langgraph_checkpoint_compact import CompactRedisSaver, removal
from tests.fakes.side_by_side import comparable
from tests.saver.model import Model

THREADS = ("a", "a:b", "{a}", "a*", "%7B", "line\nbreak", "", "ä" * 100, "a}:ids", "x" * 300)
NAMESPACES = ("", "child:1", "child|2", "}")
# A quarter of a minute; AI_OPS_SAVER_EXAMPLES=1000 looks for longer.
EXAMPLES = int(os.environ.get("AI_OPS_SAVER_EXAMPLES", "20"))
RUNS = ("run-1", "run-2", "run-3")

small = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.text(max_size=8), st.binary(max_size=8)
)
messages = st.builds(
    lambda kind, text, size: kind(content=text * size),
    st.sampled_from([HumanMessage, AIMessage]),
    st.text("aé|\n", min_size=1, max_size=3),
    st.sampled_from([1, 100, 700, 20_000]),
)
plain = st.one_of(small, st.dictionaries(st.text(max_size=3), small, max_size=3))


class Conversations(RuleBasedStateMachine):
    """Two processes that share a server, and the model. Each has a memory of its own of what it has seen."""

    port: int

    @initialize(
        names=st.lists(st.sampled_from(THREADS), min_size=2, max_size=2, unique=True),
        child=st.sampled_from(NAMESPACES[1:]),
    )
    def start(self, names, child):
        self.names, self.spaces = names, ("", child)
        self.client = redis.Redis(port=self.port, db=2)
        self.client.flushdb()
        self.savers = [CompactRedisSaver(self.client), CompactRedisSaver(self.client)]
        self.model = Model(serde=self.savers[0].serde)
        self.touched, self.copies = set(), set()

    def teardown(self):
        if hasattr(self, "client"):
            self.client.close()

    def both(self, process, call, *arguments, **options):
        getattr(self.savers[process], call)(*copy.deepcopy(arguments), **options)
        getattr(self.model, call)(*copy.deepcopy(arguments), **options)

    def parents(self, thread, namespace):
        return [None, *sorted(self.model.storage.get(thread, {}).get(namespace, {}))]

    # ----------------------------------------------------------------------------------------

    processes = st.integers(0, 1)
    threads = st.integers(0, 1)
    namespaces = st.sampled_from([0, 0, 0, 1])

    @rule(
        data=st.data(),
        process=processes,
        thread=threads,
        namespace=namespaces,
        kind=st.sampled_from(["append", "append", "append", "edit", "remove", "reorder", "replace", "empty"]),
        run=st.sampled_from(RUNS),
        repeat=st.integers(1, 2),
    )
    def put(self, data, process, thread, namespace, kind, run, repeat):
        """A checkpoint after the newest, or a branch from any; sometimes sent twice."""
        thread, namespace = self.names[thread], self.spaces[namespace]
        parents = self.parents(thread, namespace)
        parent = data.draw(st.sampled_from([parents[-1], *parents]))
        config = {"configurable": {"thread_id": thread, "checkpoint_ns": namespace}}
        checkpoint = empty_checkpoint()
        checkpoint["id"] = str(uuid6(clock_seq=0))
        if parent:
            config["configurable"]["checkpoint_id"] = parent
            before = self.model.get_tuple(config).checkpoint
            checkpoint["channel_values"] = dict(before["channel_values"])
            checkpoint["channel_versions"] = dict(before["channel_versions"])
        said = list(checkpoint["channel_values"].get("messages", []))
        self.change(data, kind, said)
        new = {"messages": said, f"other|{data.draw(st.integers(0, 2))}\n": data.draw(plain)}
        for name in ("table", "empty"):
            if data.draw(st.booleans()):
                table = dict(checkpoint["channel_values"].get(name, {}))
                table[f"row {len(table)}"] = "x" * data.draw(st.sampled_from([1, 900]))
                new[name] = table
        versions = {name: self.model.get_next_version(checkpoint["channel_versions"].get(name), None) for name in new}
        if kind == "empty":
            new.pop("messages")
            checkpoint["channel_values"].pop("messages", None)
        checkpoint["channel_values"].update(new)
        checkpoint["channel_versions"].update(versions)
        metadata = {"source": "loop", "step": len(parents), "run_id": run, "odd": len(parents) % 2 == 1}
        for _ in range(repeat):
            self.savers[process].put(copy.deepcopy(config), copy.deepcopy(checkpoint), metadata, versions)
        self.model.put(config, checkpoint, metadata, versions)
        self.touched.add(thread)

    def change(self, data, kind, said):
        if kind in ("edit", "remove", "reorder") and said:
            place = data.draw(st.integers(0, len(said) - 1))
            if kind == "edit":
                said[place] = data.draw(messages)
            elif kind == "remove":
                del said[place]
            else:
                said.append(said.pop(place))
        elif kind == "replace":
            said[:] = data.draw(st.lists(messages, max_size=3))
        else:
            said += data.draw(st.lists(messages, min_size=1, max_size=3))

    @rule(
        data=st.data(),
        process=processes,
        thread=threads,
        namespace=namespaces,
        task=st.sampled_from(["task-1", "task|2", "3|task"]),
        path=st.sampled_from(["", "b", "a, 1"]),
        written=st.lists(
            st.tuples(st.sampled_from(["messages", "other", ERROR, INTERRUPT, RESUME]), st.one_of(plain, messages)),
            max_size=4,
        ),
        again=st.booleans(),
    )
    def put_writes(self, data, process, thread, namespace, task, path, written, again):
        thread, namespace = self.names[thread], self.spaces[namespace]
        checkpoint_id = data.draw(st.sampled_from([*self.parents(thread, namespace)[1:], "none yet"]))
        config = {"configurable": {"thread_id": thread, "checkpoint_ns": namespace, "checkpoint_id": checkpoint_id}}
        for _ in range(2 if again else 1):
            self.both(process, "put_writes", config, written, task, path)
        self.touched.add(thread)

    @rule(process=processes, thread=threads)
    def delete_thread(self, process, thread):
        thread = self.names[thread]
        self.both(process, "delete_thread", thread)
        self.touched.add(thread)

    @rule(process=processes, runs=st.lists(st.sampled_from(RUNS), max_size=2))
    def delete_for_runs(self, process, runs):
        # What was written before its checkpoint was stays with the model; no checkpoint shows it.
        self.both(process, "delete_for_runs", runs)
        self.touched.update(self.names)

    def waits(self, thread):
        found = self.savers[0].list({"configurable": {"thread_id": thread}})
        return any(channel == INTERRUPT for each in found for _, channel, _ in each.pending_writes)

    @rule(process=processes, thread=threads, strategy=st.sampled_from(["keep_latest", "keep_latest", "delete"]))
    def prune(self, process, thread, strategy):
        thread = self.names[thread]
        if strategy == "keep_latest" and self.waits(thread):
            return
        self.both(process, "prune", [thread], strategy=strategy)
        self.touched.add(thread)

    @precondition(lambda self: any(self.model.storage.values()))
    @rule(process=processes, source=threads, goal=threads)
    def copy_thread(self, process, source, goal):
        source, goal = self.names[source], self.names[goal]
        if source != goal and self.model.checkpoints(source) and not self.model.checkpoints(goal):
            self.both(process, "delete_thread", goal)
            self.both(process, "copy_thread", source, goal)
            self.touched.add(goal)
            self.copies.add(goal)

    @rule()
    def forget_scripts(self):
        self.client.script_flush()

    @rule(
        process=processes,
        namespace=st.sampled_from([None, 0, 1]),
        filter=st.sampled_from([None, {"run_id": "run-1"}, {"odd": True}, {"step": 2, "odd": False}, {"none": 1}]),
        limit=st.sampled_from([None, 0, 1, 3]),
        thread=threads,
        data=st.data(),
    )
    def list(self, process, namespace, filter, limit, thread, data):
        thread = self.names[thread]
        namespace = None if namespace is None else self.spaces[namespace]
        config = {"configurable": {"thread_id": thread}}
        if namespace is not None:
            config["configurable"]["checkpoint_ns"] = namespace
        ids = [checkpoint_id for _, checkpoint_id in self.model.checkpoints(thread)]
        before = data.draw(st.sampled_from([None, *ids]))
        options = {
            "filter": filter,
            "before": {"configurable": {"checkpoint_id": before}} if before else None,
        }
        found = list(map(comparable, self.savers[process].list(config, limit=limit, **options)))
        expected = list(map(comparable, self.model.list(config, **options)))
        # InMemorySaver goes through one namespace after the other.
        expected.sort(key=lambda each: each["config"][::-1], reverse=True)
        assert found == expected[:limit]
        everything = [comparable(each) for each in self.savers[process].list(None, limit=limit, **options)]
        expected = [comparable(each) for each in self.model.list(None, **options)]
        assert len(everything) == (len(expected) if limit is None else min(limit, len(expected)))
        assert all(each in expected for each in everything)

    # ----------------------------------------------------------------------------------------

    @invariant()
    def every_checkpoint_reads_the_same(self):
        if not hasattr(self, "touched"):
            return
        for thread in self.touched:
            self.thread_reads_the_same(thread)
            self.newest_is_noted(thread)
            self.seal_holds(thread)
        self.touched.clear()

    def thread_reads_the_same(self, thread):
        for namespace in self.spaces:
            config = {"configurable": {"thread_id": thread, "checkpoint_ns": namespace}}
            expected = [comparable(each) for each in self.model.list(config)]
            assert [comparable(each) for each in self.savers[0].list(config)] == expected
            assert comparable(self.savers[0].get_tuple(config)) == (expected[0] if expected else None)
            for each in expected[1:3]:
                one = {"configurable": {**config["configurable"], "checkpoint_id": each["config"][2]}}
                assert comparable(self.savers[0].get_tuple(one)) == each

    def newest_is_noted(self, thread):
        keys = [f"lgc:{{{thread_part(thread)}}}".encode(), f"lgc:{{{thread_part(thread)}}}:ids".encode()]
        ids = [checkpoint_id for _, checkpoint_id in self.model.checkpoints(thread)]
        newest = self.client.hget(keys[0], "n")
        assert newest == (max(ids).encode() if ids else None)
        assert self.client.zcard(keys[1]) == len(ids)

    def seal_holds(self, thread):
        key = f"lgc:{{{thread_part(thread)}}}"
        if not self.client.exists(key):
            self.copies.discard(thread)
            return
        newest, writings, seal = self.client.hmget(key, "n", "p", "s")
        if thread in self.copies:
            assert seal is None
            return
        counts, _, end = seal.rpartition(b" ")
        assert counts == b"1 %b %d %d" % (writings, self.client.hlen(key), self.client.zcard(key + ":ids"))
        namespace, _, end = end.partition(b"|")
        assert end == (newest or b"")
        spaces = {member.partition(b"|")[0] for member in self.client.zrange(key + ":ids", 0, -1)}
        assert namespace == b"*" or spaces <= {namespace}


def thread_part(thread):
    from langgraph_checkpoint_compact.names import escape

    return escape(thread) or "%"


@pytest.fixture
def small_portions(monkeypatch):
    """Let a few checkpoints be many: portions, chunks of a log and fields of writes end after little."""
    monkeypatch.setattr(removal, "PORTION_REMOVED", 2)
    monkeypatch.setattr("langgraph_checkpoint_compact.reading.PORTION_CHECKPOINTS", 3)
    monkeypatch.setattr("langgraph_checkpoint_compact.reading.PORTION_NAMES", 4)
    monkeypatch.setattr("langgraph_checkpoint_compact.reading.PORTION_DOCUMENTS", 2)
    monkeypatch.setattr("langgraph_checkpoint_compact.reading.PORTION_BYTES", 3000)


@pytest.mark.usefixtures("small_portions")
def test_random_operations_read_as_in_memory(valkey_port):
    Conversations.port = valkey_port
    case = Conversations.TestCase
    case.settings = settings(
        max_examples=EXAMPLES,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        # Making a failure small takes minutes. The steps that led to it are printed anyhow.
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
    )
    case().runTest()
