"""Cleanups that are killed, one before each thing that a whole one sends to Redis."""

from __future__ import annotations

import gc
import os
import signal
import time
from multiprocessing.connection import Connection

import redis
from redis.connection import AbstractConnection

from ai_ops.checkpoints import cleanup as cleanup_run
from ai_ops.checkpoints import compact_cleanup as compact_run
from ai_ops.checkpoints.logic.keys import KeyParser
from ai_ops.checkpoints.logic.retention import DAY, RetentionPolicy
from ai_ops.checkpoints.redis import deleter
from ai_ops.checkpoints.redis.store import CheckpointStore
from langgraph_checkpoint_compact import removal
from tests.fakes.kept_worlds import everything


def clean_up(url: str, days: float) -> None:
    """One run, on a connection of its own."""
    with redis.Redis.from_url(url) as client:
        parser = KeyParser(time.time())
        store = CheckpointStore(client, parser, sleep=lambda seconds: None)
        policy = RetentionPolicy(days * DAY, days * DAY)
        cleanup_run.CleanupRun(store, parser, policy, time.time(), dryrun=False).execute()


def killed_before(number: int, url: str, days: float) -> bool:
    """Run in a process that is killed before it sends for that time; False if it ended before."""
    child = os.fork()
    if child == 0:
        left, send = number, AbstractConnection.send_packed_command

        def counted(self, *args, **kwargs):
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return send(self, *args, **kwargs)

        AbstractConnection.send_packed_command = counted
        clean_up(url, days)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def put_back(client: redis.Redis, population: dict[bytes, bytes], now: dict[bytes, bytes]) -> None:
    """Bring the database back to the population from what it has now."""
    with client.pipeline(transaction=False) as pipeline:
        for key, value in population.items():
            if now.get(key) != value:
                pipeline.restore(key, 0, value, replace=True)
        pipeline.execute()


def parts(client: redis.Redis, keys: set[bytes], state: dict[bytes, bytes]) -> dict[bytes, set[bytes]]:
    """The fields or members of those of the keys that are a thread's of CompactRedisSaver, as they were in a state."""
    found = {}
    for key in keys & state.keys():
        if key.startswith(b"lgc:"):
            client.restore("then", 0, state[key], replace=True)
            found[key] = set(client.zrange("then", 0, -1) if key.endswith(b":ids") else client.hkeys("then"))
            client.unlink("then")
    return found


def use_small_batches() -> None:
    """Have many small batches, so that there is much between them."""
    removal.PORTION_REMOVED = 3
    compact_run.THREADS_AT_ONCE = 3
    compact_run.DELETIONS_AT_ONCE = compact_run.TRIMMED_AT_ONCE = 2
    deleter.KEYS_PER_COMMAND = 5
    cleanup_run.DELETIONS_PER_BATCH = 3


def kill_everywhere(url: str, days: float, answer: Connection) -> None:
    """Kill at every point, and send how many runs were killed and what was wrong after any of them.

    What is in the database is the population. For a process of its own, and a small one, since it forks.
    """
    use_small_batches()
    # To look for garbage would copy into each fork what is looked at.
    gc.disable()
    gc.freeze()
    with redis.Redis.from_url(url) as client:
        population = everything(client)
        clean_up(url, days)
        now = end = everything(client)
        killed, wrong = 0, []
        while True:
            put_back(client, population, now)
            if not killed_before(killed, url, days):
                break
            left = everything(client)
            # ValkeySaver's lists are shortened on the way, and so are threads of CompactRedisSaver.
            changed = {key for key, value in left.items() if population.get(key) != value and end.get(key) != value}
            before, at_end = parts(client, changed, population), parts(client, changed, end)
            meanwhile = parts(client, changed, left)
            changed -= {key for key, there in meanwhile.items() if at_end.get(key, set()) <= there <= before[key]}
            lost = end.keys() - left.keys()
            clean_up(url, days)
            now = everything(client)
            if lost or changed or now != end:
                wrong.append([killed, sorted(map(repr, lost | changed | (now.keys() ^ end.keys())))])
            killed += 1
        put_back(client, end, everything(client))
    answer.send({"killed": killed, "wrong": wrong})
