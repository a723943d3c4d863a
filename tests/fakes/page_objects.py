"""An object of each kind that the pages show, in each of its states, with names as long as they may be."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import Model
from django.utils import timezone
from nautobot.extras.models import Status

from ai_ops.choices import MCPIncidentKindChoices, MCPToolStateChoices, RunStateChoices
from ai_ops.models import (
    CheckpointStorageSnapshot,
    MaintenanceRun,
    MCPServer,
    MCPServerCheck,
    MCPServerHealth,
    MCPServerIncident,
    MCPServerTool,
    MCPServerToolSet,
    PinnedThread,
    RetentionPolicy,
    ThreadErasure,
)
from tests.fakes.runs import recorded

# No blank at which a browser could break it.
LONG = "n" * 255
LONG_URL = f"http://{'h' * 60}.example.com/{'p' * 150}"
ERROR = (
    "The checkpoint Redis at redis.internal.example.com:6379, database 2, could not be reached (connection refused): "
    f"check that it runs, and {LONG_URL}. "
) * 3


def one_of_each() -> dict[type[Model], Model]:
    """Make them; return for each model the one whose page has most to show."""
    server = _servers()
    return {
        MCPServer: server,
        MCPServerIncident: _incidents(server),
        MCPServerTool: _tools(server),
        MaintenanceRun: _runs(),
        PinnedThread: PinnedThread.objects.create(thread_id="t" * 255, note=LONG),
        RetentionPolicy: RetentionPolicy.objects.create(name=LONG, thread_patterns="p" * 200, retention="30d"),
        ThreadErasure: ThreadErasure.objects.create(
            reason=LONG, thread_ids=["t" * 255], guarded_until=timezone.now(), finished=timezone.now()
        ),
        CheckpointStorageSnapshot: CheckpointStorageSnapshot.objects.create(data=SNAPSHOT),
    }


def _server(name: str, status: str = "Healthy", **fields: Any) -> MCPServer:
    found = Status.objects.get_for_model(MCPServer).get(name=status)
    return MCPServer.objects.create(**{"name": name, "url": "http://mcp.example.com", "status": found} | fields)


def _servers() -> MCPServer:
    """One that is down, flaps and has a long name, and one of each other state."""
    now = timezone.now()
    down = _server(LONG, "Unhealthy", url=LONG_URL, description=LONG)
    well = _server("Tickets")
    _server("Added just now")
    _server("Of a desktop", protocol="stdio", url="")
    _server("Kept away", "Vulnerable")
    for server, ok in ((down, False), (well, True)):
        MCPServerHealth.objects.create(
            server=server,
            checked=now,
            ok=ok,
            reason="" if ok else "TIMEOUT",
            message="" if ok else ERROR,
            latency_ms=12.5,
            last_ok=now - timedelta(hours=3),
            last_failure=now - timedelta(minutes=5),
            recent="1" * 15 + "010010",
            flapping=not ok,
            protocol_version="2025-06-18",
            server_name="s" * 100,
            server_version="1.2.3",
            certificate_ends=now + timedelta(days=3),
        )
        for hours in range(6):
            MCPServerCheck.objects.create(
                server=server,
                time=now - timedelta(hours=hours),
                ok=ok or hours > 3,
                latency_ms=40 + hours,
                http_status=200,
            )
    return down


def _incidents(server: MCPServer) -> MCPServerIncident:
    now = timezone.now()
    made = {}
    for kind in MCPIncidentKindChoices.values():
        closed = None if kind in (MCPIncidentKindChoices.OUTAGE, MCPIncidentKindChoices.DRIFT) else now
        incident = MCPServerIncident.objects.create(
            name=f"{LONG[:200]}: {kind}", kind=kind, reason="TIMEOUT", message=ERROR, opened=now, closed=closed
        )
        incident.servers.add(server)
        made[kind] = incident
    return made[MCPIncidentKindChoices.OUTAGE]


def _tools(server: MCPServer) -> MCPServerTool:
    now = timezone.now()
    MCPServerToolSet.objects.create(
        server=server, asked=now, listed=now, approved=now, listed_hash="b" * 64, approved_hash="a" * 64
    )
    for state in MCPToolStateChoices.values():
        MCPServerTool.objects.create(
            server=server,
            name=f"{state}_{'t' * 110}",
            state=state,
            since=now,
            first_seen=now,
            hash="" if state == MCPToolStateChoices.REMOVED else "b" * 64,
            approved_hash="" if state == MCPToolStateChoices.ADDED else "a" * 64,
            description=LONG,
            definition="What it does " * 40,
            approved_definition="What it did " * 40,
        )
    return MCPServerTool.objects.get(server=server, state=MCPToolStateChoices.CHANGED)


def _runs() -> MaintenanceRun:
    for state in RunStateChoices.values():
        recorded("storage", state=state, owner=None, error=ERROR if state in ("dead", "failed", "lost") else "")
    return recorded(
        "cleanup",
        owner=None,
        finished=timezone.now(),
        execution_time_ms=7_500_000,
        attempt=1,
        options={"dryrun": True, "retention": "30 days"},
        counters=CLEANUP,
    )


CLEANUP = {
    "dryrun": True,
    "deleted_count": 12_345,
    "processed_count": 1_000_000,
    "threads_deleted": 321,
    "threads_kept": 1_234,
    "checkpoints_trimmed": 4_321,
    "orphan_count": 12,
    "unfixable_count": 3,
    "changed_count": 1,
    "limit_reached": False,
    "seconds": 7500,
    "policy": "30 days for idle threads, also for those that wait for an answer.",
}

# As a sampling keeps it, with lists that are full.
_THREADS = [
    {"thread": "t" * 120, "keys": 9_999, "last_activity": "2026-01-01T00:00:00+00:00", "bytes": 2**20}
    for _ in range(10)
]
SNAPSHOT = {
    "success": True,
    "error": None,
    "server": {
        "software": "Redis",
        "version": "7.4.0",
        "database": 2,
        "address": "redis.internal.example.com:6379",
        "modules": ["ReJSON", "search"],
        "saver": "RedisSaver",
        "reason": "its index is there",
    },
    "memory_bytes": 2**31,
    "checkpoint_bytes": 2**30,
    "checkpoint_keys": 1_000_000,
    "sized_keys": 1_000,
    "database_keys": 1_000_100,
    "scanned_keys": 1_000_100,
    "complete": True,
    "families": {"checkpoint": 700_000, "checkpoint_write": 300_000},
    "savers": {"RedisSaver": 12_000},
    "thread_count": 12_000,
    "undated_keys": 3,
    "age_unit": "day",
    "ages": [{"label": f"{age}", "keys": 1_000 * age, "threads": 10 * age} for age in range(12)],
    "cleanup": CLEANUP,
    "missing_pins": [],
    "oldest_threads": _THREADS,
    "largest_threads": _THREADS,
}
