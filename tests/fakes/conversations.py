"""Real LangGraph conversations that took place when a test wants them to have."""

from __future__ import annotations

import operator
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Annotated, Any, TypedDict

import langgraph.checkpoint.base.id as checkpoint_ids
import langgraph.pregel._executor as langgraph_executor
from langchain_core.runnables.config import ContextThreadPoolExecutor
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

DAY = 86_400.0

# LangGraph would start new threads for each turn, which took a third of the processor time of a conversation. More than
# any turn needs, since some wait for others.
THREADS = ContextThreadPoolExecutor(max_workers=100)
langgraph_executor.get_executor_for_config = lambda config: nullcontext(THREADS)


class Dialogue(TypedDict):
    """The state of a conversation: all that was said, in order."""

    said: Annotated[list[str], operator.add]


def _append(said: list[str], more: list[list[str]]) -> list[str]:
    return said + [each for part in more for each in part]


class DeltaDialogue(TypedDict):
    """The same, kept as differences: a checkpoint is read together with its ancestors."""

    said: Annotated[list[str], DeltaChannel(_append, snapshot_frequency=7)]


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


def graph(saver: Any, *, subgraph: bool = False, asks: bool = False, state: type = Dialogue) -> Any:
    """A graph that answers what it is told; with a stateful subgraph, and asking before it answers."""

    def answer(now):
        return {"said": [f"answer {len(now['said'])}"]}

    def ask(now):
        return {"said": [f"you said {interrupt('go on?')}"]}

    inner = StateGraph(state)
    inner.add_node("inner", ask if asks else answer)
    inner.add_edge(START, "inner")
    outer = StateGraph(state)
    outer.add_node("answer", answer)
    outer.add_node("child", inner.compile(checkpointer=True) if subgraph else (ask if asks else answer))
    outer.add_edge(START, "answer")
    outer.add_edge("answer", "child")
    outer.add_edge("child", END)
    return outer.compile(checkpointer=saver)


def on(thread: str) -> dict[str, Any]:
    """The configuration under which a graph talks on `thread`."""
    return {"configurable": {"thread_id": thread}}


def talk(saver: Any, thread: str, *ages: float, asks: bool = False, **options: Any) -> Any:
    """Take a turn at each of these ages in days; the last one waits for an answer where the graph asks."""
    app = graph(saver, asks=asks, **options)
    for number, age in enumerate(ages):
        with days_ago(age):
            if asks and number:
                app.invoke(Command(resume="yes"), on(thread))
            app.invoke({"said": [f"{age} days ago"]}, on(thread))
    return app
