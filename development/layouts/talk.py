"""Talk through the installed version of a saver, then print the messages of the live threads.

python talk.py URL SAVER [remember]: with the third word it only prints.
"""

import contextlib
import json
import operator
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypedDict

import time_machine
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

OLD = timedelta(days=400)
LIVE = ("live", "live:1", "{live}:1", "asked:live")
PREFIXES = {"checkpoint_prefix": "app:cp", "checkpoint_write_prefix": "app:cp:w"}


class Dialogue(TypedDict):
    """Return all messages, in order."""

    said: Annotated[list[str], operator.add]


def graph(saver):
    """Return a graph that answers, in a stateful subgraph, and asks a user on request."""

    def answer(now):
        last = now["said"][-1]
        return {"said": [f"you said {interrupt('go on?')}" if last == "ask me" else f"answer to {last}"]}

    inner = StateGraph(Dialogue)
    inner.add_node("inner", answer)
    inner.add_edge(START, "inner")
    outer = StateGraph(Dialogue)
    outer.add_node("child", inner.compile(checkpointer=True))
    outer.add_edge(START, "child")
    outer.add_edge("child", END)
    return outer.compile(checkpointer=saver)


def on(thread):
    """Return the configuration of a graph for `thread`."""
    return {"configurable": {"thread_id": thread}}


def talk(app):
    """Write old threads, live ones with an old start, and threads that wait for an answer."""
    with time_machine.travel(datetime.now(UTC) - OLD):
        for thread in ("old", "old:1", "{old}:1", "live:1", "{live}:1"):
            app.invoke({"said": ["hello"]}, on(thread))
        for thread in ("asked:old", "asked:live"):
            app.invoke({"said": ["ask me"]}, on(thread))
        app.invoke(Command(resume="yes"), on("asked:live"))
    for thread in ("live", "live:1", "{live}:1"):
        app.invoke({"said": ["again"]}, on(thread))
    app.invoke({"said": ["ask me"]}, on("asked:live"))


def _asked(interrupted):
    # Some versions of RedisSaver return an interrupt in the form of its JSON.
    return interrupted["value"] if isinstance(interrupted, dict) else interrupted.value


def states(app):
    """Return the state of the live threads."""
    seen = {thread: app.get_state(on(thread)) for thread in LIVE}
    return {
        thread: {
            "values": state.values,
            "next": state.next,
            "asks": [_asked(each) for task in state.tasks for each in task.interrupts],
            "id": state.config["configurable"]["checkpoint_id"],
        }
        for thread, state in seen.items()
    }


def opened(url, kind):
    """Return the saver for a name in the recorder."""
    if kind == "ValkeySaver":
        from langgraph_checkpoint_aws.checkpoint.valkey import ValkeySaver

        return ValkeySaver.from_conn_string(url.replace("redis:", "valkey:"))
    from langgraph.checkpoint.redis import RedisSaver
    from langgraph.checkpoint.redis.shallow import ShallowRedisSaver

    if kind == "RedisSaver with prefixes":
        return contextlib.nullcontext(RedisSaver(redis_url=url, **PREFIXES))
    return {"RedisSaver": RedisSaver, "ShallowRedisSaver": ShallowRedisSaver}[kind].from_conn_string(url)


url, kind = sys.argv[1:3]
with opened(url, kind) as saver:
    if hasattr(saver, "setup"):
        saver.setup()
    app = graph(saver)
    if "remember" not in sys.argv:
        talk(app)
    print(json.dumps(states(app), sort_keys=True))
