"""The conversations of the demo: held before the Jobs run, and checked afterwards.

This is a separate module, because LangGraph takes two seconds to import: the demo imports it while its servers start.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from development import conversations
from langgraph_checkpoint_compact import AsyncCompactRedisSaver

if TYPE_CHECKING:
    from development.demo import Checks

FIRST = "Which switches run old firmware?"
QUESTIONS = [FIRST, "And which of them are at the edge?", "Draft the change."]
# Typical thread ids: with colons, and one that is the start of another.
OLD_THREADS = {"demo:site": 31, "demo:audit-2026": 45, "demo:upgrade:draft": 400}  # age in days
LIVE_THREAD = "demo:site:berlin"
TAIL_THREAD = "demo:upgrade"  # live, with an old tail
WAITING_THREAD = "demo:rollout"  # waits for a user's answer
HELD_THREAD = "demo:held:case"  # old, under a policy that keeps it for ever
ERASED_THREAD = "demo:person:42"  # from today, and erased


async def fill(redis_url: str) -> dict[str, Any]:
    """Write the demo's conversations again; return the state of each live thread."""
    async with AsyncCompactRedisSaver.from_url(redis_url) as saver:
        graph = conversations.build_graph(saver)
        for thread_id in (*OLD_THREADS, LIVE_THREAD, TAIL_THREAD, WAITING_THREAD):
            await saver.adelete_thread(thread_id)
        for thread_id, days in OLD_THREADS.items():
            await conversations.hold_in_the_past(saver, thread_id, QUESTIONS, timedelta(days=days))
        for thread_id, days in ((HELD_THREAD, 400), (ERASED_THREAD, 0)):
            await saver.adelete_thread(thread_id)
            await conversations.hold_in_the_past(saver, thread_id, QUESTIONS, timedelta(days=days))
        await conversations.hold_in_the_past(saver, TAIL_THREAD, QUESTIONS, timedelta(days=40))
        for question in QUESTIONS:
            await conversations.ask(graph, LIVE_THREAD, question)
        await conversations.ask(graph, TAIL_THREAD, "Is it done?")
        await conversations.ask(graph, WAITING_THREAD, FIRST)
        await conversations.ask(graph, WAITING_THREAD, "Deploy it to all of them.")
        return await live_state(graph)


async def live_state(graph: Any) -> dict[str, Any]:
    """Return the state from which each live thread would resume."""
    found = {}
    for thread_id in (LIVE_THREAD, TAIL_THREAD, WAITING_THREAD):
        state = await graph.aget_state(conversations.thread(thread_id))
        found[thread_id] = (state.values, state.next, state.config, state.interrupts)
    return found


async def count_checkpoints(redis_url: str) -> dict[str, int]:
    """Count each demo thread's checkpoints, in its root namespace."""
    async with AsyncCompactRedisSaver.from_url(redis_url) as saver:
        counts = {}
        for thread_id in (*OLD_THREADS, LIVE_THREAD, TAIL_THREAD, WAITING_THREAD):
            config = conversations.thread(thread_id)
            config["configurable"]["checkpoint_ns"] = ""
            counts[thread_id] = len([each async for each in saver.alist(config)])
        return counts


async def inspect(redis_url: str, before: dict[str, Any], had: dict[str, int], checks: Checks) -> None:
    """Check every thread after the cleanup, and take the next turn of the live ones."""
    has = await count_checkpoints(redis_url)
    async with AsyncCompactRedisSaver.from_url(redis_url) as saver:
        graph = conversations.build_graph(saver)
        for thread_id, days in OLD_THREADS.items():
            checks.see(
                has[thread_id] == 0 < had[thread_id],
                f"deleted: {thread_id} ({had[thread_id]} checkpoints, last active {days} days ago)",
            )
        after = await live_state(graph)
        for thread_id, state in before.items():
            checks.see(
                after[thread_id] == state and has[thread_id] > 0,
                f"kept: {thread_id} resumes from the same state ({had[thread_id]} -> {has[thread_id]} checkpoints)",
            )
        checks.see(has[TAIL_THREAD] < had[TAIL_THREAD], f"trimmed: the old tail of {TAIL_THREAD} is gone")
        for thread_id, number in ((LIVE_THREAD, 4), (TAIL_THREAD, 5)):
            answer = await conversations.ask(graph, thread_id, "What did I ask first?")
            wanted = conversations.remembering([FIRST] * number)
            checks.see(answer == wanted, f"{thread_id} answers its next turn: {answer!r}")
        answer = await conversations.resume(graph, WAITING_THREAD)
        checks.see(answer == conversations.APPROVED, f"{WAITING_THREAD} takes its approval: {answer!r}")
