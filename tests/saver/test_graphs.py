"""Real graphs on the saver and on InMemorySaver side by side: every read during a run is compared."""

from __future__ import annotations

import asyncio
import multiprocessing
import operator
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.types import Command, Send, interrupt

from langgraph_checkpoint_compact import AsyncCompactRedisSaver, CompactRedisSaver
from tests.fakes.side_by_side import SideBySide, comparable
from tests.waiting import LONGEST_SECONDS

LONG = "a sentence that is long enough to be kept in a log. " * 20


def on(thread, checkpoint_id=None):
    config = {"configurable": {"thread_id": thread}}
    if checkpoint_id:
        config["configurable"] |= {"checkpoint_id": checkpoint_id, "checkpoint_ns": ""}
    return config


def talker(saver):
    """Answers each message with one."""

    def answer(state):
        number = len(state["messages"])
        return {"messages": [AIMessage(f"{number} {LONG}", id=f"a{number}")]}

    graph = StateGraph(MessagesState)
    graph.add_node("answer", answer)
    graph.add_edge(START, "answer")
    graph.add_edge("answer", END)
    return graph.compile(checkpointer=saver)


def texts(snapshot):
    return [message.id for message in snapshot.values.get("messages", [])]


def say(graph, thread, *ids):
    for each in ids:
        graph.invoke({"messages": [HumanMessage(LONG, id=each)]}, on(thread))


def test_a_fork_leaves_the_other_branch_as_it_was(both):
    graph = talker(both)
    say(graph, "t", "q1", "q2", "q3")
    before = [(each.config["configurable"]["checkpoint_id"], texts(each)) for each in graph.get_state_history(on("t"))]
    for place in (2, 5, 5, 8):
        fork = graph.update_state(
            on("t", before[place][0]), {"messages": [HumanMessage(f"fork {place} {LONG}", id=f"f{place}")]}
        )
        graph.invoke(None, fork)
        graph.invoke({"messages": [HumanMessage(LONG, id="more")]}, on("t"))
    after = {each.config["configurable"]["checkpoint_id"]: texts(each) for each in graph.get_state_history(on("t"))}
    assert len(after) > len(before) + 8
    assert {checkpoint_id: after[checkpoint_id] for checkpoint_id, _ in before} == dict(before)


def test_edited_removed_and_reordered_messages_read_back_at_every_earlier_checkpoint(both):
    graph = talker(both)
    say(graph, "t", "q1", "q2", "q3")
    graph.update_state(on("t"), {"messages": [HumanMessage(f"edited {LONG}", id="q2")]})
    say(graph, "t", "q4")
    graph.update_state(on("t"), {"messages": [RemoveMessage("a1")]})
    say(graph, "t", "q5")
    messages = graph.get_state(on("t")).values["messages"]
    graph.update_state(on("t"), {"messages": [RemoveMessage(REMOVE_ALL_MESSAGES), *reversed(messages)]})
    say(graph, "t", "q6")
    history = list(graph.get_state_history(on("t")))
    assert len(texts(history[0])) > 8
    # Each is read by itself, too, not only in the list.
    for each in history:
        assert texts(graph.get_state(on("t", each.config["configurable"]["checkpoint_id"]))) == texts(each)
    assert both.reads > 40


class Tasks(TypedDict):
    done: Annotated[list[str], operator.add]


def parallel(saver, tasks=16):
    """Many tasks at once, each of which asks."""

    def work(state):
        answer = interrupt(f"task {state['number']}?") if state["asks"] else "unasked"
        return {"done": [f"{state['number']} {answer}"]}

    def spread(state):
        return [Send("work", {"number": number, "asks": number % 4 == 3}) for number in range(tasks)]

    graph = StateGraph(Tasks)
    graph.add_node("work", work)
    graph.add_conditional_edges(START, spread, ["work"])
    return graph.compile(checkpointer=saver)


def test_parallel_tasks_and_their_interrupts_read_back_in_order(both):
    graph = parallel(both)
    graph.invoke({"done": []}, on("t"))
    waiting = graph.get_state(on("t"))
    asked = [each.id for task in waiting.tasks for each in task.interrupts]
    assert len(asked) == 4
    graph.invoke(Command(resume={asked[0]: "yes"}), on("t"))
    graph.invoke(Command(resume={asked[1]: "no"}), on("t"))
    result = graph.invoke(Command(resume=dict.fromkeys(asked[2:], "at last")), on("t"))
    assert result["done"] == [
        f"{number} {'unasked' if number % 4 != 3 else {3: 'yes', 7: 'no'}.get(number, 'at last')}"
        for number in range(16)
    ]
    list(graph.get_state_history(on("t")))


def test_pending_writes_come_in_the_order_of_writes_sort_key(both):
    graph = talker(both)
    say(graph, "t", "q1")
    config = graph.get_state(on("t")).config
    for number, path in enumerate(["~__pregel_pull, b", "", "~__pregel_pull, a", "~__pregel_push, 10", "z"]):
        both.put_writes(config, [("x", f"{number}-0"), ("y", f"{number}-1" * 3000)], f"task {9 - number}", path)
    written = both.get_tuple(config).pending_writes
    assert [task for task, _, _ in written][::2] == ["task 8", "task 5", "task 7", "task 9", "task 6"]
    assert len(written) == 10


def test_a_repeated_resume_replaces_the_one_before(both):
    graph = talker(both)
    say(graph, "t", "q1")
    config = graph.get_state(on("t")).config
    for answer in ("first", "x" * 5000, "last"):
        both.put_writes(config, [("__resume__", [answer])], "task", "path")
        both.put_writes(config, [("messages", answer)], "task", "path")
    written = {channel: value for _, channel, value in both.get_tuple(config).pending_writes}
    assert written == {"__resume__": ["last"], "messages": "first"}


def _append(said: list[str], more: list[list[str]]) -> list[str]:
    return said + [each for part in more for each in part]


class Delta(TypedDict):
    said: Annotated[list[str], DeltaChannel(_append, snapshot_frequency=5)]
    plain: Annotated[list[str], operator.add]


def delta_talker(saver):
    def answer(state):
        return {"said": [f"answer {len(state['said'])} {LONG}"], "plain": ["x"]}

    graph = StateGraph(Delta)
    graph.add_node("answer", answer)
    graph.add_edge(START, "answer")
    return graph.compile(checkpointer=saver)


@pytest.mark.parametrize("turns", [1, 2, 3, 7, 13])
def test_delta_channels_read_back_also_after_a_prune(both, turns):
    graph = delta_talker(both)
    for number in range(turns):
        graph.invoke({"said": [f"question {number}"]}, on("t"))
    expected = graph.get_state(on("t")).values
    assert len(expected["said"]) == 2 * turns
    history = [each.values for each in graph.get_state_history(on("t"))]
    assert history[0] == expected
    checkpoints = len(history)

    both.saver.prune(["t"])
    # InMemorySaver has no prune: from here on the saver stands alone.
    alone = delta_talker(both.saver)
    assert alone.get_state(on("t")).values == expected
    left = len(list(both.saver.list(on("t"))))
    assert left <= min(checkpoints, 11)
    alone.invoke({"said": ["one more"]}, on("t"))
    assert alone.get_state(on("t")).values["said"][:-1] == [*expected["said"], "one more"]


def asking(saver):
    """A stateful subgraph that asks twice."""

    def ask(state):
        return {"messages": [HumanMessage(f"{interrupt('first?')} {interrupt('second?')} {LONG}", id="h")]}

    inner = StateGraph(MessagesState)
    inner.add_node("ask", ask)
    inner.add_edge(START, "ask")
    outer = StateGraph(MessagesState)
    outer.add_node("child", inner.compile(checkpointer=True))
    outer.add_edge(START, "child")
    return outer.compile(checkpointer=saver)


def test_a_thread_that_waits_in_a_subgraph_goes_on_after_a_prune(both):
    graph = asking(both)
    say(graph, "t", "q1")
    graph.invoke(Command(resume="one"), on("t"))
    waiting = graph.get_state(on("t"), subgraphs=True)
    assert [each.value for task in waiting.tasks for each in task.interrupts] == ["second?"]
    both.saver.prune(["t"])
    assert comparable(both.get_tuple(on("t")))
    result = graph.invoke(Command(resume="two"), on("t"))
    assert [message.content.split(" a ")[0] for message in result["messages"]][-1] == "one two"


def _process(url, connection):
    """Do what is asked for, in a process that remembers what it has read and written."""
    with CompactRedisSaver.from_url(url) as saver:
        app = talker(saver)
        while (asked := connection.recv()) is not None:
            what, thread, arguments = asked
            if what == "say":
                say(app, thread, *arguments)
            elif what == "put again":
                _put_after(saver, saver.get_tuple(on(thread)), connection)
            elif what == "prune":
                saver.prune([thread])
            else:
                saver.delete_thread(thread)
            connection.send(texts(app.get_state(on(thread))))


def _put_after(saver, old, connection):
    """Read, let the other process do something, and put what comes after what was read."""
    connection.send("read")
    connection.recv()
    new = {**old.checkpoint, "id": str(uuid6())}
    versions = {"messages": saver.get_next_version(old.checkpoint["channel_versions"]["messages"], None)}
    saver.put(old.config, {**new, "channel_versions": new["channel_versions"] | versions}, old.metadata, versions)


@pytest.fixture(scope="module")
def both_processes(url):
    """Two processes, each with a saver of its own; each is asked, and answers with what the thread says.

    They remember threads, so each test has a name of its own for one.
    """
    # Not forks of this process: in a run of the whole suite it has threads, and what they hold stays held in a fork. To
    # import the saver and LangGraph takes more than a second of a processor, so one process does it for both.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    pipes = [context.Pipe() for _ in range(2)]
    started = [context.Process(target=_process, args=(url, far), daemon=True) for _, far in pipes]
    for each, (_, far) in zip(started, pipes, strict=True):
        each.start()
        # Otherwise no process would learn that the other end is gone.
        far.close()

    def ask(number, what, thread, *arguments):
        near = pipes[number][0]
        near.send((what, thread, arguments))
        assert near.poll(LONGEST_SECONDS)
        return near.recv()

    ask.pipes = [near for near, _ in pipes]
    yield ask
    for (near, _), each in zip(pipes, started, strict=True):
        near.send(None)
        each.join(LONGEST_SECONDS)
        assert each.exitcode == 0


@pytest.fixture
def processes(both_processes, client):
    return both_processes


def test_two_processes_in_turns_with_a_prune_and_a_deletion_between(processes, client):
    said = []
    for number in range(8):
        said += [f"q{number}", f"a{2 * number + 1}"]
        assert processes(number % 2, "say", "t", f"q{number}") == said
        if number == 4:
            assert processes(1, "prune", "t") == said
    assert client.zcard("lgc:{t}:ids") > 1
    assert processes(1, "delete_thread", "t") == []
    assert processes(0, "say", "t", "new") == ["new", "a1"]
    assert processes(1, "say", "t", "more") == ["new", "a1", "more", "a3"]


def test_a_put_of_one_process_after_a_deletion_by_the_other_is_whole(processes):
    for number in range(3):
        said = processes(0, "say", "other", f"q{number}")
    assert processes(0, "put again", "other") == "read"
    assert processes(1, "delete_thread", "other") == []
    # It goes on from what it remembers and the server has no longer: sent again, whole.
    processes.pipes[0].send("go on")
    assert processes.pipes[0].recv() == said
    assert processes(1, "say", "other", "more")[: len(said)] == said


def test_the_asynchronous_saver_runs_the_same_graphs(url, client):
    async def run():
        async with AsyncCompactRedisSaver.from_url(url) as saver:
            graph = talker(saver)
            for each in ("q1", "q2"):
                await graph.ainvoke({"messages": [HumanMessage(LONG, id=each)]}, on("t"))
            await parallel(saver).ainvoke({"done": []}, on("p"))
            return [texts(each) async for each in graph.aget_state_history(on("t"))]

    found = asyncio.run(run())
    # What one has written the other reads.
    assert [texts(each) for each in talker(CompactRedisSaver(client)).get_state_history(on("t"))] == found
    assert found[0] == ["q1", "a1", "q2", "a3"]


def test_the_synchronous_saver_serves_asynchronous_graphs(saver):
    async def run():
        graph = talker(saver)
        await graph.ainvoke({"messages": [HumanMessage(LONG, id="q1")]}, on("t"))
        return [texts(each) async for each in graph.aget_state_history(on("t"))]

    assert asyncio.run(run())[0] == ["q1", "a1"]


@pytest.mark.parametrize("size", [10, 1000])
def test_encrypted_threads_read_back_and_hold_no_plain_text(client, size):
    from cryptography.fernet import Fernet
    from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

    class Cipher:
        def __init__(self):
            self.fernet = Fernet(Fernet.generate_key())

        def encrypt(self, plaintext):
            return "fernet", self.fernet.encrypt(plaintext)

        def decrypt(self, ciphername, ciphertext):
            return self.fernet.decrypt(ciphertext)

    serde = EncryptedSerializer(Cipher())
    both = SideBySide(CompactRedisSaver(client, serde=serde), InMemorySaver(serde=serde))
    graph = talker(both)
    for number in range(3):
        graph.invoke({"messages": [HumanMessage("secret " * size, id=f"q{number}")]}, on("t"))
    list(graph.get_state_history(on("t")))
    stored = b"".join(part for pair in client.hgetall("lgc:{t}").items() for part in pair)
    assert b"secret" not in stored
    assert b"sentence" not in stored


class Typed(TypedDict):
    value: Any


def test_a_value_of_any_kind_reads_back(both):
    graph = StateGraph(Typed)
    graph.add_node("node", lambda state: {"value": state["value"]})
    graph.add_edge(START, "node")
    compiled = graph.compile(checkpointer=both)
    for value in (None, 0, "", b"", b"x" * 300_000, "y" * 5000, [], {}, {"a": [1] * 3000}, {1, 2}, ("t", 1), 2.5, [[]]):
        compiled.invoke({"value": value}, on("t"))
    assert len(list(compiled.get_state_history(on("t")))) == 39
