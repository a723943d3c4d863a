"""Benchmark of health checks: the time of a run, CPU, memory, and the sessions left in the servers.

``python -m development.bench_health`` prints one line of JSON per case and exits with 1 if a limit is exceeded. Servers
run in their own processes on loopback, so CPU is only that of the checker.

- `fleet`: 1,000 servers that answer in 50 ms, each with its own address. `wall_s`; `cpu_ms` of each probe.
- `outage`: 800 that answer in 50 ms and 200 that drop packets: `over_s`, the time of one round beyond the time of one
  probe.
- `cpu_http`, `cpu_mcp`: CPU of a probe by the health page, and over MCP with a server of the SDK: handshake, list of
  tools, end of the session.
- `leak`: 500 handshakes with a server of the SDK; `growth_bytes` of its resident memory after the
  first `settle` probes, which let it settle.
- `outage_job`, `flips`, `fleet_job` and `workers`: whole runs of the Job on large fleets, see
  `development.bench_fleet`.

Each line has `load`, the load average at the start of its case: the figures include other load of the machine.

A new case is a function that returns its figures, and an entry in CASES.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai_ops.logic.limits import CHECK_TIMEOUT_SECONDS
from ai_ops.mcp.http.prober import Prober, Target
from ai_ops.mcp.logic.verdicts import ProbeKind
from development import bench_fleet
from development.bench_fleet import addresses
from development.services import free_ports

SERVER_SECONDS = 0.05


@dataclass(frozen=True)
class Case:
    """A measurement, and the limits on its figures."""

    run: Callable[[], dict[str, Any]]
    limits: dict[str, float]


# --------------------------------------------------------------------------------------------
# Servers


@contextlib.contextmanager
def slow_server(seconds: float) -> Iterator[int]:
    """Start a server with this delay on every address of this machine; yield its port."""
    (port,) = free_ports(1)
    with _process([sys.executable, "-m", "development.bench_fleet", "serve", str(port), str(seconds)], port):
        yield port


@contextlib.contextmanager
def sdk_server() -> Iterator[tuple[str, int]]:
    """Start a real MCP server; yield its URL and the id of its process."""
    (port,) = free_ports(1)
    with _process([sys.executable, "-m", "development.demo_mcp_servers", str(port)], port) as pid:
        yield f"http://127.0.0.1:{port}", pid


@contextlib.contextmanager
def _process(command: list[str], port: int) -> Iterator[int]:
    with subprocess.Popen(command, cwd=Path(__file__).parent.parent) as process, prober() as asking:
        deadline = time.monotonic() + 120
        while not asking.probe(Target(f"http://127.0.0.1:{port}/health")).ok:
            if time.monotonic() > deadline:
                process.terminate()
                raise SystemExit(f"The server on port {port} did not start.")
            time.sleep(0.1)
        try:
            yield process.pid
        finally:
            process.terminate()


# --------------------------------------------------------------------------------------------
# Cases


def prober() -> Prober:
    """Return a prober like that of a run, for servers on this machine."""
    return Prober(allow_loopback=True)


def probed(targets: Sequence[Target], ill: int = 0) -> dict[str, float]:
    """Probe them like a run; return the seconds of the wall clock and of this process's CPU."""
    times = len(targets)
    with prober() as asking:
        began, cpu = time.monotonic(), time.process_time()
        failed = sum(not probe.ok for probe in asking.probe_all(targets))
        wall_s, cpu_s = time.monotonic() - began, time.process_time() - cpu
    if failed != ill:
        raise SystemExit(f"{failed} of {times} probes failed instead of {ill}: nothing was measured.")
    return {"wall_s": round(wall_s, 2), "cpu_ms": round(cpu_s / times * 1000, 2)}


def fleet(servers: int = 1_000) -> dict[str, Any]:
    """Probe many slow servers."""
    with slow_server(SERVER_SECONDS) as port:
        return {"servers": servers, **probed([Target(f"{url}/up") for url in addresses(servers, port)])}


def outage(servers: int = 1_000, ill: int = 200) -> dict[str, Any]:
    """Probe many servers in random order, some of which drop packets."""
    with slow_server(SERVER_SECONDS) as port, bench_fleet.swallowing() as dead:
        every = servers // ill
        urls = addresses(servers, port)
        urls[::every] = addresses(servers, dead)[::every]
        measured = probed([Target(f"{url}/up") for url in urls], ill)
    return {
        "servers": servers,
        "ill": ill,
        **measured,
        "timeout_s": CHECK_TIMEOUT_SECONDS,
        "over_s": round(measured["wall_s"] - CHECK_TIMEOUT_SECONDS, 2),
    }


def cpu_http(probes: int = 500) -> dict[str, Any]:
    """Request the health page of a server that answers immediately."""
    with slow_server(0) as port:
        return {"probes": probes, **probed([Target(f"{url}/up") for url in addresses(probes, port)])}


def cpu_mcp(probes: int = 500) -> dict[str, Any]:
    """Do the handshake with a server of the SDK, list its tools and end the session."""
    with sdk_server() as (url, _):
        return {"probes": probes, **probed([_handshake(url)] * probes)}


def leak(probes: int = 500, settle: int = 200) -> dict[str, Any]:
    """Measure the sessions that handshakes leave in a server of the SDK."""
    with sdk_server() as (url, pid):
        probed([_handshake(url)] * settle)
        before = resident_bytes(pid)
        probed([_handshake(url)] * probes)
        return {"probes": probes, "settle": settle, "growth_bytes": resident_bytes(pid) - before}


def _handshake(url: str) -> Target:
    return Target(f"{url}/health", f"{url}/mcp", ProbeKind.MCP)


def resident_bytes(pid: int) -> int:
    """Return the memory of a process, on Linux."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


CASES = {
    "fleet": Case(fleet, {"wall_s": 3.0}),
    "outage": Case(outage, {"over_s": 2.0}),
    "cpu_http": Case(cpu_http, {"cpu_ms": 3.0}),
    "cpu_mcp": Case(cpu_mcp, {"cpu_ms": 3.0}),
    "leak": Case(leak, {"growth_bytes": 2 * 1024 * 1024}),
    "outage_job": Case(lambda: bench_fleet.figures("outage_job"), {"ratio": 1.15}),
    "flips": Case(lambda: bench_fleet.figures("flips"), {"wall_s": 30.0}),
    "fleet_job": Case(lambda: bench_fleet.figures("fleet_job"), {"wall_s": 45.0, "memory_mib": 150.0}),
    # Half the time, and more for the division and for the database that both workers share.
    "workers": Case(lambda: bench_fleet.figures("workers"), {"ratio": 0.55}),
}


def main() -> int:
    """Run the requested cases; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--case", action="append", choices=CASES, help="name of a case; may be repeated; by default all cases"
    )
    failed = False
    for name in parser.parse_args().case or CASES:
        case = CASES[name]
        load = round(os.getloadavg()[0], 1)
        figures = case.run()
        ok = all(figures[figure] <= limit for figure, limit in case.limits.items())
        failed = failed or not ok
        print(json.dumps({"case": name, "load": load, **figures, "limits": case.limits, "ok": ok}), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
