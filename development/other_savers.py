"""A conversation on RedisSaver and one on ValkeySaver, each cleaned up on its own server. The demo shows them."""

from __future__ import annotations

import asyncio
import importlib.util
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import redis

from ai_ops.checkpoints.cleanup import CleanupRun
from ai_ops.checkpoints.logic.keys import KeyParser
from ai_ops.checkpoints.logic.retention import DAY, RetentionPolicy
from ai_ops.checkpoints.redis.store import CheckpointStore
from development import conversations
from development.services import START_TIMEOUT, ServiceError, free_ports, redis_server

THREAD = "demo:elsewhere"
OLD = timedelta(days=40)

OpenSaver = Callable[[str], AbstractAsyncContextManager[Any]]


@asynccontextmanager
async def redis_saver(url: str) -> AsyncIterator[Any]:
    """Yield RedisSaver on a server with its modules."""
    from langgraph.checkpoint.redis.aio import AsyncRedisSaver

    async with AsyncRedisSaver.from_conn_string(url) as saver:
        await saver.asetup()
        yield saver


@asynccontextmanager
async def valkey_saver(url: str) -> AsyncIterator[Any]:
    """Yield ValkeySaver on any server."""
    from langgraph_checkpoint_aws import AsyncValkeySaver

    async with AsyncValkeySaver.from_conn_string(url) as saver:
        yield saver


@contextmanager
def server(*, modules: bool) -> Iterator[str]:
    """Run a server, and yield the address of its database 0."""
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="ai-ops-demo-") as folder:
        service = redis_server("other-saver", port, "", modules=modules, folder=Path(folder))
        service.start()
        try:
            service.wait_ready(time.monotonic() + START_TIMEOUT)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            service.stop()


def conversations_kept(retention_days: int, questions: Sequence[str]) -> Iterator[tuple[bool, str]]:
    """Create the conversations and clean up; return for each whether it continues unchanged, and a sentence."""
    yield _kept("RedisSaver", redis_saver, True, retention_days, questions)
    if importlib.util.find_spec("langgraph_checkpoint_aws") is None:
        yield True, "left out: ValkeySaver, as langgraph-checkpoint-aws is not installed"
    else:
        yield _kept("ValkeySaver", valkey_saver, False, retention_days, questions)


def _kept(name: str, saver: OpenSaver, modules: bool, days: int, questions: Sequence[str]) -> tuple[bool, str]:
    try:
        with server(modules=modules) as url:
            before, had = asyncio.run(_hold(saver, url, questions))
            _clean_up(url, days)
            after, has = asyncio.run(_look(saver, url))
    except ServiceError as error:
        return True, f"left out: {name}. {error}"
    return before == after and 0 < has < had, f"kept: {name} resumes from the same state ({had} -> {has} checkpoints)"


async def _hold(saver: OpenSaver, url: str, questions: Sequence[str]) -> tuple[Any, int]:
    """Create a conversation with an old start; return the state from which it would resume, and its checkpoints."""
    async with saver(url) as opened:
        await conversations.hold_in_the_past(opened, THREAD, questions, OLD)
        await conversations.ask(conversations.build_graph(opened), THREAD, "Is it done?")
    return await _look(saver, url)


async def _look(saver: OpenSaver, url: str) -> tuple[Any, int]:
    config = conversations.thread(THREAD)
    config["configurable"]["checkpoint_ns"] = ""
    async with saver(url) as opened:
        state = await conversations.build_graph(opened).aget_state(conversations.thread(THREAD))
        return (state.values, state.next, state.config), len([each async for each in opened.alist(config)])


def _clean_up(url: str, days: int) -> None:
    """Do the same as the Job, on this server."""
    now = time.time()
    parser = KeyParser(now)
    with redis.Redis.from_url(url) as client:
        policy = RetentionPolicy(days * DAY, days * DAY)
        CleanupRun(CheckpointStore(client, parser), parser, policy, now, dryrun=False).execute()
