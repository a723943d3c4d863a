"""Benchmark of the health check Job on a large fleet, with real Celery workers, PostgreSQL and Redis.

``python -m development.bench_health`` runs its cases, each in a process with a state folder of its own:

- `outage_job`: 800 healthy servers and 200 that newly drop packets, on one worker. `floor_s` (three times the time of a
  probe, and two pauses) and `ratio`.
- `flips`: 1,000 servers that go down at once, on one worker. `wall_s` of the Job; and `waiting_in_threads_s`, the
  calculated time of a checker whose threads wait for the pauses of each server themselves.
- `fleet_job`: 10,000 healthy servers, on one worker. `wall_s`, and `memory_mib`, the greatest growth of the worker.
- `workers`: the same on one worker and, divided in two, on two. `ratio` of the two times; each server must have been
  asked once, and have one row in the history.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ai_ops.logic.limits import CHECK_TIMEOUT_SECONDS
from ai_ops.mcp.logic.pauses import PAUSE_SECONDS
from ai_ops.mcp.logic.probe_threads import MAX_WORKERS
from ai_ops.mcp.logic.verdicts import CHECKS_TO_FLIP

SERVER_SECONDS = 0.05
PROJECT = Path(__file__).resolve().parent.parent

# Time limit for a failed measurement; the longest case takes four minutes.
TIMEOUT_SECONDS = 900


def figures(case: str) -> dict[str, Any]:
    """Run a case in its own process, with its own PostgreSQL and Redis; return its figures."""
    with tempfile.TemporaryDirectory(prefix="ai-ops-bench-") as state:
        env = os.environ | {"AI_OPS_STATE": state}
        command = [sys.executable, "-m", "development.bench_fleet", case]
        run = subprocess.run(command, cwd=PROJECT, env=env, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_SECONDS)
    if run.returncode:
        raise SystemExit(f"The case {case} failed, see above: nothing was measured.")
    return json.loads(run.stdout.splitlines()[-1])


# --------------------------------------------------------------------------------------------
# One server for all addresses


def addresses(count: int, port: int) -> list[str]:
    """Return this number of addresses of this machine, as URLs: on Linux, 127.0.0.0/8 belongs to it."""
    return [f"http://127.{1 + n // 62_500}.{n // 250 % 250}.{1 + n % 250}:{port}" for n in range(count)]


@contextlib.contextmanager
def swallowing() -> Iterator[int]:
    """Open a port on every address of this machine that drops packets, like a firewall; yield the port."""
    with contextlib.ExitStack() as opened:
        full = opened.enter_context(socket.create_server(("0.0.0.0", 0), backlog=0))
        port = full.getsockname()[1]
        for _ in range(8):
            filler = opened.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        time.sleep(0.1)
        yield port


async def serve(port: int, seconds: float = SERVER_SECONDS) -> None:
    """Answer ``/up...`` with 200 and ``/down...`` with 500, late; ``/asked`` with the requests per path."""
    asked: Counter[str] = Counter()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
        body, status = b"ok", 500 if path.startswith("/down") else 200
        if path == "/asked":
            body = json.dumps(asked).encode()
            asked.clear()
        else:
            asked[path] += 1
            await asyncio.sleep(seconds)
        head = f"HTTP/1.1 {status} -\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "0.0.0.0", port, backlog=4096)
    await server.serve_forever()


# --------------------------------------------------------------------------------------------
# Nautobot around it


class Stack:
    """Start PostgreSQL, Redis and the server, and set up a migrated Nautobot in this process."""

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
        self.url, self._port = f"http://127.0.0.1:{port}", port
        command = [sys.executable, "-m", "development.bench_fleet", "serve", str(port)]
        supervisor.start(services.Service("fleet", command, ready=lambda: self.asked() is not None))

    def asked(self) -> dict[str, int] | None:
        """Return the number of requests for each path since the last time; None while the server does not answer."""
        import httpx

        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/asked", timeout=30).json()
        return None

    def add_servers(self, count: int, path: str, port: int | None = None) -> None:
        """Create this number of Healthy servers, each with its own address and an entry in the change log."""
        from nautobot.extras.models import ObjectChange, Status

        from ai_ops.models import AgentGeneration, MCPServer

        healthy = Status.objects.get_for_model(MCPServer).get(name="Healthy")
        MCPServer.objects.bulk_create(
            [
                MCPServer(name=f"{path[1:]}-{n:05}", url=url, health_check=f"{path}/{n}", probe="http", status=healthy)
                for n, url in enumerate(addresses(count, port or self._port))
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
        """Start this number of Celery workers with one process each; yield their ids."""
        running = []
        for number in range(count):
            ready = self._services.STATE / "run" / f"worker-{number}.ready"
            ready.unlink(missing_ok=True)
            env = self._env | {
                "AI_OPS_HEALTH_CHECK_SHARD_SIZE": str(shard_size),
                # Only checks are measured: tools are listed after them, once an hour.
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
        """Run the Job on the existing workers; return the results of the run and of its shards after all have ended."""
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
    """Return the CPU time of these processes and their children, on Linux."""
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
    """Measure a run in which all servers go down at once."""
    stack.add_servers(servers, "/down")
    with stack.workers(1, shard_size=0) as pids:
        cpu = cpu_seconds(pids)
        (run,) = stack.run_job()
        cpu = cpu_seconds(pids) - cpu
    if run.result["changed_count"] != servers:
        raise SystemExit(f"{run.result['changed_count']} of {servers} servers were flipped: nothing was measured.")
    _require_times(stack, servers, CHECKS_TO_FLIP)
    pauses = (CHECKS_TO_FLIP - 1) * PAUSE_SECONDS
    return {
        "servers": servers,
        "wall_s": _seconds(run),
        "cpu_s": round(cpu, 2),
        "cpu_ms_per_flip": round(cpu / servers * 1000, 2),
        "waiting_in_threads": f"{servers} * ({CHECKS_TO_FLIP} * {SERVER_SECONDS} s + {pauses:g} s) / {MAX_WORKERS}",
        "waiting_in_threads_s": servers * (CHECKS_TO_FLIP * SERVER_SECONDS + pauses) / MAX_WORKERS,
    }


def outage_job(stack: Stack, servers: int = 1_000, ill: int = 200) -> dict[str, Any]:
    """Measure a run in which some servers newly drop packets."""
    with swallowing() as dead, stack.workers(1, shard_size=0):
        stack.add_servers(ill, "/swallowed", dead)
        stack.add_servers(servers - ill, "/up")
        (run,) = stack.run_job()
    if run.result["changed_count"] != ill:
        raise SystemExit(f"{run.result['changed_count']} of {ill} servers were flipped: nothing was measured.")
    floor_s = CHECKS_TO_FLIP * CHECK_TIMEOUT_SECONDS + (CHECKS_TO_FLIP - 1) * PAUSE_SECONDS
    wall_s = _seconds(run)
    measured = {"servers": servers, "ill": ill, "wall_s": wall_s, "floor_s": floor_s}
    return measured | {"ratio": round(wall_s / floor_s, 3)}


def fleet_job(stack: Stack, servers: int = 10_000) -> dict[str, Any]:
    """Measure a run over healthy servers with one worker."""
    stack.add_servers(servers, "/up")
    with stack.workers(1, shard_size=0) as pids:
        cpu, before = cpu_seconds(pids), resident_mib(pids)
        (run,) = stack.run_job()
        cpu, peak = cpu_seconds(pids) - cpu, resident_mib(pids, "VmHWM")
    _require_times(stack, servers, 1)
    measured = {"servers": servers, "wall_s": _seconds(run), "cpu_s": round(cpu, 2)}
    return measured | {"memory_mib": round(peak - before, 1)}


def _seconds(run: Any) -> float:
    return round((run.date_done - run.date_started).total_seconds(), 2)


def resident_mib(pids: list[int], line: str = "VmRSS") -> float:
    """Return the memory of these processes and their children: the current one, or with VmHWM the peak."""
    kib = 0.0
    for pid in pids:
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        kib += next(int(each.split()[1]) for each in status if each.startswith(line))
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            kib += 1024 * resident_mib([int(child) for child in task.read_text().split()], line)
    return kib / 1024


def workers(stack: Stack, servers: int = 10_000) -> dict[str, Any]:
    """Compare runs over healthy servers with one worker and with two."""
    from ai_ops.models import MCPServerCheck

    stack.add_servers(servers, "/up")
    measured: dict[str, Any] = {"servers": servers}
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


CASES: dict[str, Callable[..., dict[str, Any]]] = {
    "flips": flips,
    "fleet_job": fleet_job,
    "outage_job": outage_job,
    "workers": workers,
}


def main() -> int:
    """Run a case, or the server, in this process with its own state; the number of servers is optional."""
    if sys.argv[1] == "serve":
        asyncio.run(serve(int(sys.argv[2]), *map(float, sys.argv[3:])))
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
