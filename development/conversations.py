"""Realistic conversations: LangGraph graphs, saved by real savers."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

APPROVED = "Deployed after approval."


def build_graph(saver: BaseCheckpointSaver[Any]) -> Any:
    """Build an agent that remembers, searches devices in a subgraph, and asks before it deploys."""
    lookup = StateGraph(MessagesState)
    lookup.add_node("search", lambda state: {"messages": [AIMessage("Found 3 devices.")]})
    lookup.add_edge(START, "search")

    graph = StateGraph(MessagesState)
    graph.add_node("lookup", lookup.compile())
    graph.add_node("approve", _approve)
    graph.add_node("answer", _answer)
    graph.add_conditional_edges(START, _route, {"lookup": "lookup", "approve": "approve"})
    graph.add_edge("lookup", "answer")
    graph.add_edge("approve", END)
    graph.add_edge("answer", END)
    return graph.compile(checkpointer=saver)


def _route(state: MessagesState) -> str:
    return "approve" if str(state["messages"][-1].content).startswith("Deploy") else "lookup"


def _approve(state: MessagesState) -> dict[str, Any]:
    interrupt("May I deploy?")
    return {"messages": [AIMessage(APPROVED)]}


def _answer(state: MessagesState) -> dict[str, Any]:
    questions = [message.content for message in state["messages"] if isinstance(message, HumanMessage)]
    return {"messages": [AIMessage(remembering(questions))]}


def remembering(questions: Sequence[object]) -> str:
    """Return the agent's answer: it shows whether the agent still knows the start of the conversation."""
    return f"That was question {len(questions)}; the first was: {questions[0]}"


def thread(thread_id: str) -> dict[str, Any]:
    """Return the config that selects a thread."""
    return {"configurable": {"thread_id": thread_id}}


async def ask(graph: Any, thread_id: str, question: str) -> str:
    """Take one turn and return the last message."""
    state = await graph.ainvoke({"messages": [HumanMessage(question)]}, thread(thread_id))
    return str(state["messages"][-1].content)


async def resume(graph: Any, thread_id: str) -> str:
    """Answer the pending interrupt of a thread and return the last message."""
    state = await graph.ainvoke(Command(resume="yes"), thread(thread_id))
    return str(state["messages"][-1].content)


async def hold_in_the_past(
    saver: BaseCheckpointSaver[Any], thread_id: str, questions: Sequence[str], age: timedelta
) -> None:
    """Save a conversation of this `age`.

    It takes place now, in memory. Then the saver's own ``aput`` and ``aput_writes`` store each checkpoint with an id
    and a time that are `age` older.
    """
    memory = InMemorySaver()
    graph = build_graph(memory)
    for question in questions:
        await ask(graph, thread_id, question)
    history = [saved async for saved in memory.alist(thread(thread_id))]
    for saved in sorted(history, key=lambda each: each.checkpoint["id"]):
        await _save_aged(saver, saved, age)


async def _save_aged(saver: BaseCheckpointSaver[Any], saved: CheckpointTuple, age: timedelta) -> None:
    checkpoint = saved.checkpoint | {
        "id": aged_uuid6(saved.checkpoint["id"], age),
        "ts": (datetime.fromisoformat(saved.checkpoint["ts"]) - age).isoformat(),
    }
    parent = saved.parent_config["configurable"]["checkpoint_id"] if saved.parent_config else None
    metadata = dict(saved.metadata)
    metadata["parents"] = {ns: aged_uuid6(each, age) for ns, each in metadata.get("parents", {}).items()}
    place = {key: saved.config["configurable"][key] for key in ("thread_id", "checkpoint_ns")}
    config = {"configurable": place | ({"checkpoint_id": aged_uuid6(parent, age)} if parent else {})}
    stored = await saver.aput(config, checkpoint, metadata, checkpoint["channel_versions"])
    for task_id in {task_id for task_id, _, _ in saved.pending_writes or ()}:
        writes = [(channel, value) for task, channel, value in saved.pending_writes or () if task == task_id]
        await saver.aput_writes(stored, writes, task_id)


def aged_uuid6(value: str, age: timedelta) -> str:
    """Return the UUID version 6 of `value` with a time that is `age` older.

    RFC 9562, section 5.6: 60 bits of time in 100 ns steps, the version between the upper 48 and the lower 12.
    """
    number = uuid.UUID(value).int
    time = (number >> 80) << 12 | (number >> 64) & 0xFFF
    time -= round(age / timedelta(microseconds=1)) * 10
    below = number & (0xF << 76 | (1 << 64) - 1)
    return str(uuid.UUID(int=(time >> 12) << 80 | (time & 0xFFF) << 64 | below))
