"""What a run of the health check Job costs on a large fleet, with real Celery workers, PostgreSQL and Redis.

``python -m development.bench_health`` runs its cases, each in a process with a state folder of its own:

- `flips`: 1,000 servers that are all down at once, on one worker. `wall_s` of the Job, `floor_s` (three rounds of
  servers * delay / threads, and two pauses), `ratio`; and `waiting_in_threads_s`, the same arithmetic for a checker
  whose threads wait out the pauses of each server by themselves.
- `workers`: 10,000 servers that are well, on one worker and, divided in two, on two. `ratio` of the two times; each
  server must have been asked once, and have one row in the history.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ai_ops.core.health import CHECKS_TO_FLIP, MAX_WORKERS, PAUSE_SECONDS

SERVER_SECONDS = 0.05
PROJECT = Path(__file__).resolve().parent.parent

# Ends a measurement that went wrong; the longer case takes four minutes.
TIMEOUT_SECONDS = 900


def figures(case: str) -> dict[str, Any]:
    """Run a case in a process of its own, with its own PostgreSQL and Redis; give what it measured."""
    with tempfile.TemporaryDirectory(prefix="ai-ops-bench-") as state:
        env = os.environ | {"AI_OPS_STATE": state}
        command = [sys.executable, "-m", "development.bench_fleet", case]
        run = subprocess.run(command, cwd=PROJECT, env=env, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_SECONDS)
    if run.returncode:
        raise SystemExit(f"The case {case} failed, see above: nothing was measured.")
    return json.loads(run.stdout.splitlines()[-1])


# --------------------------------------------------------------------------------------------
# One server that stands for all of them


async def serve(port: int) -> None:
    """Answer ``/up...`` with 200 and ``/down...`` with 500, late; ``/asked`` with how often each path was asked."""
    asked: Counter[str] = Counter()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
        body, status = b"ok", 500 if path.startswith("/down") else 200
        if path == "/asked":
            body = json.dumps(asked).encode()
            asked.clear()
        else:
            asked[path] += 1
            await asyncio.sleep(SERVER_SECONDS)
        head = f"HTTP/1.1 {status} -\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port, backlog=512)
    await server.serve_forever()


# --------------------------------------------------------------------------------------------
# Nautobot around it


class Stack:
    """PostgreSQL, Redis, a migrated Nautobot in this process, and the server."""

    def __init__(self, supervisor: Any) -> None:
        from development import services, stack

        self._services, self._supervisor = services, supervisor
        settings = services.Settings.load()
        self._env = stack.start_servers(supervisor, settings)
        subprocess.run([sys.executable, "-m", "development.bootstrap"], env=self._env, cwd=PROJECT, check=True)
        os.environ.update(self._env)
        import nautobot

        nautobot.setup()
        (port,) = services.free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "development.bench_fleet", "serve", str(port)]
        supervisor.start(services.Service("fleet", command, ready=lambda: self.asked() is not None))

    def asked(self) -> dict[str, int] | None:
        """How often each path was asked since the last time; None while the server does not answer."""
        import httpx

        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/asked", timeout=30).json()
        return None

    def add_servers(self, count: int, path: str) -> None:
        """Make so many Healthy servers, each with an entry in the change log as if a person had made it."""
        from nautobot.extras.models import ObjectChange, Status

        from ai_ops.models import AgentGeneration, MCPServer

        healthy = Status.objects.get_for_model(MCPServer).get(name="Healthy")
        MCPServer.objects.bulk_create(
            [
                MCPServer(name=f"fleet-{n:05}", url=self.url, health_check=f"{path}/{n}", probe="http", status=healthy)
                for n in range(count)
            ],
            batch_size=1_000,
        )
        made = {"action": "create", "object_data": {}, "request_id": uuid.uuid4(), "user_name": "bench"}
        ObjectChange.objects.bulk_create(
            [
                ObjectChange(changed_object=server, object_repr=server.name, change_context="orm", **made)
                for server in MCPServer.objects.all()
            ],
            batch_size=1_000,
        )
        AgentGeneration.bump()

    @contextlib.contextmanager
    def workers(self, count: int, shard_size: int) -> Iterator[list[int]]:
        """So many Celery workers of one process each; gives their ids."""
        running = []
        for number in range(count):
            ready = self._services.STATE / "run" / f"worker-{number}.ready"
            ready.unlink(missing_ok=True)
            env = self._env | {
                "AI_OPS_HEALTH_CHECK_SHARD_SIZE": str(shard_size),
                # The checks alone are measured: tools are listed after them, once an hour.
                "AI_OPS_TOOL_CHECK_INTERVAL_MINUTES": "0",
                "NAUTOBOT_CELERY_WORKER_PREFETCH_MULTIPLIER": "1",
                "NAUTOBOT_CELERY_WORKER_READINESS_FILE": str(ready),
                "NAUTOBOT_CELERY_WORKER_HEARTBEAT_FILE": str(ready.with_suffix(".heartbeat")),
            }
            command = [str(Path(sys.executable).with_name("nautobot-server")), "celery", "worker"]
            command += ["--concurrency", "1", "--hostname", f"worker-{number}@%h", "--loglevel", "INFO"]
            running.append(self._services.Service(f"worker-{number}", command, ready=ready.exists, env=env))
        self._supervisor.start(*running)
        try:
            yield [service.process.pid for service in running]
        finally:
            for service in running:
                service.stop()
                self._supervisor.services.remove(service)

    def run_job(self) -> list[Any]:
        """Run the Job on whatever workers there are; give the results of the run and of its shards, all ended."""
        from nautobot.extras.models import JobResult
        from nautobot.users.models import User

        from ai_ops.schedules import find_job

        job = find_job("health")
        job.enabled = True
        job.save()
        first = JobResult.enqueue_job(job, User.objects.get(username=os.environ["AI_OPS_DEMO_USER"]), job_kwargs={})
        runs = _ended([first])
        runs += _ended([JobResult(pk=shard["job_result"]) for shard in runs[0].result.get("shards", [])])
        if failed := [run for run in runs if run.status != "SUCCESS"]:
            raise SystemExit(f"{len(failed)} of {len(runs)} runs ended as {failed[0].status}: {failed[0].result}")
        return runs


def _ended(runs: list[Any]) -> list[Any]:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    for run in runs:
        run.refresh_from_db()
        while run.date_done is None:
            if time.monotonic() > deadline:
                raise SystemExit(f"A run is still {run.status} after {TIMEOUT_SECONDS} s.")
            time.sleep(0.2)
            run.refresh_from_db()
    return runs


def cpu_seconds(pids: list[int]) -> float:
    """CPU that these processes and their children have used, on Linux."""
    ticks = 0
    for pid in pids:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(after_name[11]) + int(after_name[12])
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            ticks += round(cpu_seconds([int(child) for child in task.read_text().split()]) * os.sysconf("SC_CLK_TCK"))
    return ticks / os.sysconf("SC_CLK_TCK")


# --------------------------------------------------------------------------------------------
# Cases


def flips(stack: Stack, servers: int = 1_000) -> dict[str, Any]:
    """All servers are down at once."""
    stack.add_servers(servers, "/down")
    with stack.workers(1, shard_size=0) as pids:
        cpu = cpu_seconds(pids)
        (run,) = stack.run_job()
        cpu = cpu_seconds(pids) - cpu
    if run.result["changed_count"] != servers:
        raise SystemExit(f"{run.result['changed_count']} of {servers} servers were flipped: nothing was measured.")
    _require_times(stack, servers, CHECKS_TO_FLIP)
    pauses = (CHECKS_TO_FLIP - 1) * PAUSE_SECONDS
    floor_s = CHECKS_TO_FLIP * servers * SERVER_SECONDS / MAX_WORKERS + pauses
    wall_s = (run.date_done - run.date_started).total_seconds()
    return {
        "servers": servers,
        "wall_s": round(wall_s, 2),
        "floor": f"{CHECKS_TO_FLIP} rounds * {servers} * {SERVER_SECONDS} s / {MAX_WORKERS} threads + {pauses:g} s",
        "floor_s": floor_s,
        "ratio": round(wall_s / floor_s, 3),
        "cpu_s": round(cpu, 2),
        "cpu_ms_per_flip": round(cpu / servers * 1000, 2),
        "waiting_in_threads": f"{servers} * ({CHECKS_TO_FLIP} * {SERVER_SECONDS} s + {pauses:g} s) / {MAX_WORKERS}",
        "waiting_in_threads_s": servers * (CHECKS_TO_FLIP * SERVER_SECONDS + pauses) / MAX_WORKERS,
    }


def workers(stack: Stack, servers: int = 10_000) -> dict[str, Any]:
    """All servers are well, on one worker and on two."""
    from ai_ops.models import MCPServerCheck

    stack.add_servers(servers, "/up")
    measured: dict[str, Any] = {"servers": servers, "floor_s": servers * SERVER_SECONDS / MAX_WORKERS}
    for count, name in ((1, "one_worker"), (2, "two_workers")):
        MCPServerCheck.objects.all().delete()
        with stack.workers(count, shard_size=0 if count == 1 else servers // count) as pids:
            cpu = cpu_seconds(pids)
            runs = stack.run_job()
            measured[f"{name}_cpu_s"] = round(cpu_seconds(pids) - cpu, 2)
        wall = max(run.date_done for run in runs) - runs[0].date_created
        measured[f"{name}_s"] = round(wall.total_seconds(), 2)
        measured[f"{name}_checked"] = [run.result["checked_count"] for run in runs]
        _require_times(stack, servers, 1)
        rows = MCPServerCheck.objects.count(), MCPServerCheck.objects.values("server").distinct().count()
        if rows != (servers, servers):
            raise SystemExit(f"{rows[0]} rows of {rows[1]} servers in the history instead of {servers}.")
    measured["ratio"] = round(measured["two_workers_s"] / measured["one_worker_s"], 3)
    return measured | {"each_checked": "once"}


def _require_times(stack: Stack, servers: int, times: int) -> None:
    asked = stack.asked() or {}
    asked.pop("/asked", None)
    if len(asked) != servers or set(asked.values()) != {times}:
        raise SystemExit(f"{len(asked)} servers were asked {sorted(set(asked.values()))} times, instead of {times}.")


CASES: dict[str, Callable[..., dict[str, Any]]] = {"flips": flips, "workers": workers}


def main() -> int:
    """Run a case, of so many servers if that is said, in this process with a state of its own; or the server."""
    if sys.argv[1] == "serve":
        asyncio.run(serve(int(sys.argv[2])))
        return 0
    from development.services import Supervisor, remove_state

    try:
        with Supervisor() as supervisor:
            measured = CASES[sys.argv[1]](Stack(supervisor), *map(int, sys.argv[2:]))
    finally:
        remove_state()
    print(json.dumps(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
