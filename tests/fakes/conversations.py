"""Real LangGraph conversations that took place when a test wants them to have."""

from __future__ import annotations

import operator
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Annotated, Any, TypedDict

import langgraph.checkpoint.base.id as checkpoint_ids
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

DAY = 86_400.0


class Dialogue(TypedDict):
    """The state of a conversation: all that was said, in order."""

    said: Annotated[list[str], operator.add]


@contextmanager
def days_ago(days: float) -> Iterator[None]:
    """Let LangGraph make checkpoint ids as it did some days ago: its clock is set, nothing else."""
    real = checkpoint_ids.time
    shift = int(days * DAY * 1e9)
    checkpoint_ids.time = SimpleNamespace(time_ns=lambda: time.time_ns() - shift)
    checkpoint_ids._last_v6_timestamp = None
    try:
        yield
    finally:
        checkpoint_ids.time = real
        checkpoint_ids._last_v6_timestamp = None


def old_id(days: float) -> str:
    """A checkpoint id that LangGraph would have made some days ago."""
    with days_ago(days):
        return str(checkpoint_ids.uuid6())


def undated_id() -> str:
    """An id that carries no time."""
    return str(uuid.UUID(int=uuid.uuid4().int & ~(0xF << 76) | (4 << 76)))


def graph(saver: Any, *, subgraph: bool = False, asks: bool = False) -> Any:
    """A graph that answers what it is told; with a stateful subgraph, and asking before it answers."""

    def answer(state: Dialogue) -> Dialogue:
        return {"said": [f"answer {len(state['said'])}"]}

    def ask(state: Dialogue) -> Dialogue:
        return {"said": [f"you said {interrupt('go on?')}"]}

    inner = StateGraph(Dialogue)
    inner.add_node("inner", ask if asks else answer)
    inner.add_edge(START, "inner")
    outer = StateGraph(Dialogue)
    outer.add_node("answer", answer)
    outer.add_node("child", inner.compile(checkpointer=True) if subgraph else (ask if asks else answer))
    outer.add_edge(START, "answer")
    outer.add_edge("answer", "child")
    outer.add_edge("child", END)
    return outer.compile(checkpointer=saver)


def on(thread: str) -> dict[str, Any]:
    """The configuration under which a graph talks on `thread`."""
    return {"configurable": {"thread_id": thread}}
