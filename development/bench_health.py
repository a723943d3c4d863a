"""What health checks cost: the time of a run over its floor, CPU, and what is left in the servers.

``python -m development.bench_health`` prints one line of JSON per case and exits with 1 when a limit is
exceeded. Servers run in processes of their own on loopback, so CPU is the checker's alone.

- `fleet`: 1,000 servers that answer in 50 ms, on four threads. `wall_s`, `floor_s` (servers * delay /
  threads) and `ratio`; `cpu_ms` of each probe.
- `cpu_http`, `cpu_mcp`: CPU of a probe by the health page, and by MCP's handshake with a server of the SDK.
- `leak`: 500 handshakes with a server of the SDK; `growth_bytes` of its resident memory, which `settle`
  probes before have let settle.
- `flips` and `workers`: whole runs of the Job on large fleets, see `development.bench_fleet`.

A new case is a function that returns its figures, and an entry in CASES.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai_ops.adapters.mcp_http import Prober, Target
from ai_ops.core.health import MAX_WORKERS, ProbeKind
from development import bench_fleet
from development.services import free_ports

SERVER_SECONDS = 0.05


@dataclass(frozen=True)
class Case:
    """What is measured, and the figure that must not be over its limit."""

    run: Callable[[], dict[str, Any]]
    figure: str
    limit: float


# --------------------------------------------------------------------------------------------
# Servers


@contextlib.contextmanager
def slow_server(seconds: float) -> Iterator[str]:
    """A server whose ``/health`` takes that long; gives its URL."""
    (port,) = free_ports(1)
    program = (
        "import time; from tests.fakes.mcp_server import FakeMCPServer\n"
        f"with FakeMCPServer(port={port}, delay={seconds}).running(): time.sleep(3600)"
    )
    with _process([sys.executable, "-c", program], port):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def sdk_server() -> Iterator[tuple[str, int]]:
    """A real MCP server; gives its URL and the id of its process."""
    (port,) = free_ports(1)
    with _process([sys.executable, "-m", "development.demo_mcp_servers", str(port)], port) as pid:
        yield f"http://127.0.0.1:{port}", pid


@contextlib.contextmanager
def _process(command: list[str], port: int) -> Iterator[int]:
    with subprocess.Popen(command, cwd=Path(__file__).parent.parent) as process, prober() as asking:
        deadline = time.monotonic() + 30
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
    """A prober as a run has it, of servers on this machine."""
    return Prober(allow_loopback=True)


def probed(target: Target, times: int) -> dict[str, float]:
    """Probe so many times as a run does; give seconds of the wall clock and of CPU, both of this process."""
    with prober() as asking:
        began, cpu = time.monotonic(), time.process_time()
        well = sum(probe.ok for probe in asking.probe_all([target] * times))
        wall_s, cpu_s = time.monotonic() - began, time.process_time() - cpu
    if well < times:
        raise SystemExit(f"{times - well} of {times} probes of {target.url} failed: nothing was measured.")
    return {"wall_s": round(wall_s, 2), "cpu_ms": round(cpu_s / times * 1000, 2)}


def fleet(servers: int = 1_000) -> dict[str, Any]:
    """Many servers that each take their time."""
    floor_s = servers * SERVER_SECONDS / MAX_WORKERS
    with slow_server(SERVER_SECONDS) as url:
        measured = probed(Target(f"{url}/health"), servers)
    return {"servers": servers, **measured, "floor_s": floor_s, "ratio": round(measured["wall_s"] / floor_s, 3)}


def cpu_http(probes: int = 500) -> dict[str, Any]:
    """The health page of a server that answers at once."""
    with slow_server(0) as url:
        return {"probes": probes, **probed(Target(f"{url}/health"), probes)}


def cpu_mcp(probes: int = 500) -> dict[str, Any]:
    """The handshake, three requests, with a server of the SDK."""
    with sdk_server() as (url, _):
        return {"probes": probes, **probed(_handshake(url), probes)}


def leak(probes: int = 500, settle: int = 200) -> dict[str, Any]:
    """What handshakes leave in a server of the SDK."""
    with sdk_server() as (url, pid):
        probed(_handshake(url), settle)
        before = resident_bytes(pid)
        probed(_handshake(url), probes)
        return {"probes": probes, "settle": settle, "growth_bytes": resident_bytes(pid) - before}


def _handshake(url: str) -> Target:
    return Target(f"{url}/health", f"{url}/mcp", ProbeKind.MCP)


def resident_bytes(pid: int) -> int:
    """Memory of a process, on Linux."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


CASES = {
    "fleet": Case(fleet, "ratio", 1.15),
    "cpu_http": Case(cpu_http, "cpu_ms", 5.0),
    "cpu_mcp": Case(cpu_mcp, "cpu_ms", 5.0),
    "leak": Case(leak, "growth_bytes", 2 * 1024 * 1024),
    "flips": Case(lambda: bench_fleet.figures("flips"), "ratio", 1.15),
    # Half, and a tenth for what dividing costs.
    "workers": Case(lambda: bench_fleet.figures("workers"), "ratio", 0.55),
}


def main() -> int:
    """Run the cases that are asked for; give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", choices=CASES, help="again for each; all of them unless given")
    failed = False
    for name in parser.parse_args().case or CASES:
        case = CASES[name]
        figures = case.run()
        ok = figures[case.figure] <= case.limit
        failed = failed or not ok
        print(json.dumps({"case": name, **figures, "limit": {case.figure: case.limit}, "ok": ok}), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
