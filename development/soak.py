"""Ten minutes of maintenance under random faults; then a check of all promises. ``make soak`` runs this.

Celery workers and processes that call the tasks directly work side by side. Meanwhile processes are killed (SIGKILL)
and paused (SIGSTOP, SIGCONT), workers are killed and restarted, Redis is restarted, connections to PostgreSQL are cut,
servers are added and removed, and conversations continue. Everything listens on 127.0.0.1 and uses its own database and
Redis servers, which it removes at the end.

``python -m development.soak --seconds 180 --seed 7`` prints one line of JSON with the events, and exits with 1 if a
promise was broken.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from development import database, services

# Time for retries after the faults are over.
SETTLE_SECONDS = 300
KINDS = ("health", "cleanup", "incidents")
QUEUE = "default"
MCP_SERVERS = 4
LIVE_THREADS = 6
# Expired conversations, so that cleanups have work.
OLD_THREADS_EACH_TIME = 10


class Writers(threading.Thread):
    """Keeps conversations going; at the end, the saver must still have every confirmed message.

    Args:
        checkpoints: The server with the checkpoints, which is restarted sometimes.
    """

    def __init__(self, checkpoints: Any) -> None:
        super().__init__(daemon=True)
        self.turns = 0
        self.failures = 0
        self._checkpoints = checkpoints
        self._said: dict[str, list[str]] = {f"live-{number}": [] for number in range(LIVE_THREADS)}
        self._ended = threading.Event()
        self._number = 0

    def run(self) -> None:
        """Talk until `end`, with a new connection after each failure."""
        from redis.exceptions import RedisError

        while not self._ended.is_set():
            try:
                with self._conversation() as graph:
                    while not self._ended.wait(0.05):
                        self._take_a_turn(graph)
            except RedisError:
                self.failures += 1
                self._ended.wait(0.5)

    def end(self) -> None:
        """Stop talking."""
        self._ended.set()
        self.join(30)

    def forgotten(self) -> list[str]:
        """Return the live threads that have lost messages."""
        with self._conversation() as graph:
            known = {thread: graph.get_state(_on(thread)).values.get("said", []) for thread in self._said}
        return [thread for thread, said in self._said.items() if not set(said) <= set(known[thread])]

    @contextlib.contextmanager
    def _conversation(self) -> Iterator[Any]:
        from langgraph.checkpoint.redis import RedisSaver

        from tests.fakes.conversations import graph

        with self._checkpoints.client(0) as client:
            saver = RedisSaver(redis_client=client)
            saver.setup()
            yield graph(saver)

    def _take_a_turn(self, graph: Any) -> None:
        from tests.fakes.conversations import days_ago

        self._number += 1
        thread, line = f"live-{self._number % LIVE_THREADS}", f"line {self._number}"
        if self._number <= LIVE_THREADS:
            with days_ago(40):
                graph.invoke({"said": ["long ago"]}, _on(thread))
        graph.invoke({"said": [line]}, _on(thread))
        self._said[thread].append(line)
        self.turns += 1
        if self._number % 20 == 0:
            with days_ago(40):
                for number in range(OLD_THREADS_EACH_TIME):
                    graph.invoke({"said": ["hello"]}, _on(f"old-{self._number}-{number}"))


def _on(thread: str) -> dict[str, Any]:
    return {"configurable": {"thread_id": thread}}


class Soak:
    """The faults; each happens repeatedly, after a random time."""

    def __init__(self, world: Any, servers: list[Any], workers: list[services.Service], draw: random.Random) -> None:
        self.counts: Counter[str] = Counter()
        self._world = world
        self._servers = servers
        self._workers = workers
        self._draw = draw
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._entries = 0
        self._children: list[Any] = []

    def run(self, seconds: float) -> None:
        """Cause faults for this number of seconds."""
        ends = time.monotonic() + seconds
        for action, mean in (
            (self._start, 0.7),
            (self._enqueue, 2.0),
            (self._flip, 3.0),
            (self._supervise, 5.0),
            (self._cut_the_database, 11.0),
            (self._restart_the_cache, 37.0),
            (self._restart_the_checkpoints, 41.0),
            (self._kill_a_worker, 29.0),
            (self._stop_a_worker, 23.0),
        ):
            self._again(action, mean)
        while (now := time.monotonic()) < ends:
            due, _, action = self._agenda[0]
            if due > now:
                time.sleep(min(due, ends) - now)
            else:
                heapq.heappop(self._agenda)
                action()
        for child in self._children:
            child.kill()

    def _in(self, seconds: float, action: Callable[[], None]) -> None:
        self._entries += 1
        heapq.heappush(self._agenda, (time.monotonic() + seconds, self._entries, action))

    def _again(self, action: Callable[[], None], mean: float) -> None:
        """Repeat `action`, on average every `mean` seconds."""

        def once() -> None:
            action()
            self._in(self._draw.expovariate(1 / mean), once)

        self._in(self._draw.expovariate(1 / mean), once)

    def _start(self) -> None:
        """Start a process that calls a task, and perhaps kill or pause it."""
        from tests.acceptance import fault_processes as processes

        self._children = [child for child in self._children if child.process.is_alive()]
        if len(self._children) >= 6:
            return
        port = self._world.proxy.port if self._draw.random() < 0.3 else None
        kind = self._draw.choice(KINDS)
        child = self._world.start(processes.scheduled, kind, pause=0.3, batch=2, database_port=port)
        self._children.append(child)
        self.counts["started"] += 1
        fate = self._draw.random()
        if fate < 0.25:
            self._in(self._draw.uniform(0, 1.5), lambda: self._kill(child))
        elif fate < 0.4:
            self._in(self._draw.uniform(0, 1.5), lambda: self._stop(child))

    def _kill(self, child: Any) -> None:
        if child.process.is_alive():
            child.kill()
            self.counts["sigkill"] += 1

    def _stop(self, child: Any) -> None:
        if child.process.is_alive():
            child.send(signal.SIGSTOP)
            self.counts["sigstop"] += 1
            self._in(self._draw.uniform(1, 8), lambda: self._resume(child))

    def _resume(self, child: Any) -> None:
        if child.process.is_alive():
            child.send(signal.SIGCONT)

    def _enqueue(self) -> None:
        from tests.acceptance import fault_processes as processes

        self.counts["enqueued"] += 1
        self._children.append(self._world.start(processes.enqueue, self._draw.choice(KINDS), QUEUE))

    def _flip(self) -> None:
        server = self._draw.choice(self._servers)
        server.health_status = 500 if server.health_status == 200 else 200
        self.counts["servers_changed"] += 1

    def _supervise(self) -> None:
        from tests.acceptance import fault_processes as processes

        self._children.append(self._world.start(processes.rescue_and_retry))

    def _cut_the_database(self) -> None:
        self._world.proxy.cut()
        self.counts["database_cuts"] += 1
        self._in(self._draw.uniform(0, 2), self._world.proxy.restore)

    def _restart_the_cache(self) -> None:
        self._restart(self._world.cache)

    def _restart_the_checkpoints(self) -> None:
        self._restart(self._world.checkpoints)

    def _restart(self, server: Any) -> None:
        server.stop()
        server.start()
        self.counts["redis_restarts"] += 1

    def _kill_a_worker(self) -> None:
        worker = self._draw.choice(self._workers)
        if worker.process is not None and worker.process.poll() is None:
            os.killpg(worker.process.pid, signal.SIGKILL)
            self.counts["workers_killed"] += 1
        worker.stop()
        worker.start()

    def _stop_a_worker(self) -> None:
        worker = self._draw.choice(self._workers)
        with contextlib.suppress(ProcessLookupError, AttributeError):
            group = worker.process.pid
            os.killpg(group, signal.SIGSTOP)
            self.counts["workers_stopped"] += 1
            self._in(self._draw.uniform(1, 8), lambda: _continue(group))


def _continue(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGCONT)


def soak(seconds: float, seed: int, folder: Path) -> dict[str, Any]:
    """Cause faults with its own database and Redis servers; return the events and the number of `violations`."""
    from tests.acceptance import fault_processes as processes
    from tests.acceptance.fault_world import celery_worker, running_world
    from tests.fakes.mcp_server import FakeMCPServer

    with contextlib.ExitStack() as stack:
        world = stack.enter_context(running_world(folder / "nautobot"))
        servers = [stack.enter_context(FakeMCPServer(delay=0.1).running()) for _ in range(MCP_SERVERS)]
        for number, server in enumerate(servers):
            world.do(processes.add_server, f"Server {number}", server.url, "Unhealthy")
        supervisor = stack.enter_context(services.Supervisor())
        workers = [
            celery_worker(world.env, folder, name, "-Q", QUEUE, "-n", f"{name}@%h") for name in ("first", "second")
        ]
        supervisor.start(*workers)
        writers = Writers(world.checkpoints)
        writers.start()
        test = Soak(world, servers, workers, random.Random(seed))
        test.run(seconds)
        writers.end()
        for worker in workers:
            worker.stop()
        world.proxy.restore()
        world.an_hour_passes()
        world.start(processes.settle).result(SETTLE_SECONDS)
        return _numbers(world, test, writers)


def _numbers(world: Any, test: Soak, writers: Writers) -> dict[str, Any]:
    violations = world.violations()
    if forgotten := writers.forgotten():
        violations["live threads that were lost"] = forgotten
    for promise, rows in violations.items():
        print(f"{promise}: {rows[:5]}", file=sys.stderr)
    states = world.sql("SELECT state, count(*) FROM ai_ops_maintenancerun GROUP BY state ORDER BY state")
    rescued = "SELECT count(*) FROM ai_ops_maintenancerun, jsonb_array_elements(attempts) a WHERE a->>'state' = 'lost'"
    return {
        **test.counts,
        "runs": dict(states),
        "attempts_rescued": world.sql(rescued)[0][0],
        "leases_taken": world.sql("SELECT count(*) FROM noted_lease WHERE token IS NOT NULL")[0][0],
        "takeovers": world.sql(TAKEOVERS)[0][0],
        "flips": world.sql("SELECT count(DISTINCT tx) FROM noted_change WHERE what = 'server'")[0][0] - MCP_SERVERS,
        "turns": writers.turns,
        "threads_checked": LIVE_THREADS,
        "violations": sum(map(len, violations.values())),
    }


# Leases that went from one holder to another without a release.
TAKEOVERS = """
SELECT count(*) FROM (
    SELECT token, lag(token) OVER (PARTITION BY name ORDER BY at) AS before FROM noted_lease
) AS each WHERE token IS NOT NULL AND before IS NOT NULL
"""


def _set_up() -> None:
    """Give this process the PostgreSQL in which `world` creates its database, and a template to copy."""
    from tests.plugin import running_redis

    env = services.environment(services.Settings.load()) | {"NAUTOBOT_REDIS_HOST": "127.0.0.1"}
    with running_redis("soak-template") as redis:
        address = {"NAUTOBOT_REDIS_PORT": str(redis.port), "NAUTOBOT_REDIS_PASSWORD": redis.password}
        database.prepare_template(env | address)
    os.environ.update({name: value for name, value in env.items() if name.startswith(("NAUTOBOT_", "LANGGRAPH_"))})


def main() -> int:
    """Print one line of JSON; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600, help="duration of the faults; 600 by default")
    parser.add_argument("--seed", type=int, default=None, help="seed of the faults' times; random by default")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(2**32)
    with tempfile.TemporaryDirectory(prefix="ai-ops-soak-") as folder, services.Supervisor() as supervisor:
        for service in services.wanted_services(services.Settings.load(), databases_only=True):
            if not service.ready():
                supervisor.start(service)
        _set_up()
        numbers = soak(arguments.seconds, seed, Path(folder))
    print(json.dumps({"seconds": arguments.seconds, "seed": seed, **numbers}), flush=True)
    return 1 if numbers["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
