"""Benchmark of the record of a run, its lease and its heartbeat, and of a request for a run.

``python -m development.bench_runs`` prints one line of JSON per case and exits with 1 if a limit is exceeded. It uses
its own database and Redis servers, which it removes at the end.

- `overhead`: an empty run compared with the same work without a record, in turns; `added_ms` is the median of the
  differences.
- `queries`: of a whole run, and of each batch, which is a `confirm` and a `lock` in a transaction.
- `enqueue`: a health check of 40 servers that answer in 100 ms, requested by REST and called synchronously, in turns;
  `share` is the time of the REST answer divided by that of the call.
- `supervisor`: its pass over a hundred and over a hundred thousand runs that stay, with as many to delete as one pass
  deletes; the seconds of the second pass, and the difference in queries.

A new case is a function that returns its figures, and an entry in CASES.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from development import database, services

SERVERS = 40
SERVER_SECONDS = 0.1
OLD_RUNS = 100_000


@dataclass(frozen=True)
class Case:
    """A measurement, and the limits on its figures."""

    run: Callable[[], dict[str, Any]]
    limits: dict[str, float]


# --------------------------------------------------------------------------------------------
# Surroundings


@contextlib.contextmanager
def nautobot(*, with_worker: bool) -> Iterator[None]:
    """Set up Nautobot in this process, with its own servers."""
    from tests.plugin import running_redis

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ai-ops-bench-")))
        supervisor = stack.enter_context(services.Supervisor())
        for service in services.wanted_services(services.Settings.load(), databases_only=True):
            if not service.ready():
                supervisor.start(service)
        redis = stack.enter_context(running_redis("bench-runs"))
        env = services.environment(services.Settings.load()) | {
            "NAUTOBOT_REDIS_HOST": "127.0.0.1",
            "NAUTOBOT_REDIS_PORT": str(redis.port),
            "NAUTOBOT_REDIS_PASSWORD": redis.password,
        }
        database.prepare_template(env)
        env |= {
            "NAUTOBOT_DB_NAME": f"bench_{os.getpid()}",
            "NAUTOBOT_ROOT": str(folder),
            "NAUTOBOT_CELERY_HEALTH_PROBES_AS_FILES": "true",
            "NAUTOBOT_CELERY_WORKER_READINESS_FILE": str(folder / "ready"),
            "NAUTOBOT_CELERY_WORKER_HEARTBEAT_FILE": str(folder / "heartbeat"),
        }
        database.copy(env, services.TEMPLATE_DATABASE, env["NAUTOBOT_DB_NAME"])
        stack.callback(database.execute, env, "DROP DATABASE {} WITH (FORCE)", env["NAUTOBOT_DB_NAME"])
        os.environ.update(env)
        import nautobot

        nautobot.setup()
        if with_worker:
            supervisor.start(_worker(env, folder))
        yield


def _worker(env: dict[str, str], folder: Path) -> services.Service:
    from development.stack import NAUTOBOT_SERVER

    command = [NAUTOBOT_SERVER, "celery", "worker", "--concurrency", "1", "--loglevel", "INFO"]
    return services.Service("worker", command, (folder / "ready").exists, env, log=folder / "worker.log")


def _milliseconds(action: Callable[[], Any]) -> float:
    began = time.perf_counter()
    action()
    return (time.perf_counter() - began) * 1000


def _report(error: str | None = None) -> dict[str, Any]:
    return {"success": error is None, "error": error}


def _run(work: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    from ai_ops.choices import MaintenanceKindChoices, RunTriggerChoices
    from ai_ops.runs.context import RunRequest, requested_by
    from ai_ops.runs.execution import run_as

    with requested_by(RunRequest(RunTriggerChoices.SCHEDULE)):
        return run_as(MaintenanceKindChoices.INCIDENTS, {}, work, _report)


# --------------------------------------------------------------------------------------------
# Cases


def overhead(runs: int = 200) -> dict[str, Any]:
    """Measure the record, the lease and the heartbeat of a run."""
    _run(lambda hold: _report())
    pairs = [(_milliseconds(lambda: _run(lambda hold: _report())), _milliseconds(_report)) for _ in range(runs)]
    added = sorted(recorded - alone for recorded, alone in pairs)
    return {
        "runs": runs,
        "added_ms": round(statistics.median(added), 2),
        "worst_ms": round(added[-1], 2),
    }


def queries(batches: int = 50) -> dict[str, Any]:
    """Return the statements to the database, without those for transactions."""
    from django.db import connection, transaction
    from django.test.utils import CaptureQueriesContext

    def work(hold: Any) -> dict[str, Any]:
        for _ in range(batches):
            hold.confirm()
            with transaction.atomic():
                hold.lock()
        return _report()

    def counted(work: Callable[[Any], dict[str, Any]]) -> int:
        with CaptureQueriesContext(connection) as captured:
            _run(work)
        said = [query["sql"].split()[0] for query in captured.captured_queries]
        return sum(word not in ("BEGIN", "COMMIT") for word in said)

    a_run = counted(lambda hold: _report())
    return {"queries_per_run": a_run, "batches": batches, "queries_per_batch": (counted(work) - a_run) / batches}


def enqueue(times: int = 5) -> dict[str, Any]:
    """Compare REST with the synchronous call of the same work."""
    from django.contrib.auth import get_user_model
    from nautobot.extras.models import Job, Status
    from rest_framework.test import APIClient

    from ai_ops.celery_tasks import perform_mcp_health_checks
    from ai_ops.models import MaintenanceRun, MCPServer
    from tests.fakes.mcp_server import FakeMCPServer

    Job.objects.filter(module_name__startswith="ai_ops.").update(enabled=True)
    client = APIClient()
    client.force_authenticate(get_user_model().objects.create(username="bench", is_superuser=True))
    with FakeMCPServer(delay=SERVER_SECONDS).running() as server:
        healthy = Status.objects.get(name="Healthy")
        for number in range(SERVERS):
            MCPServer(name=f"Server {number}", url=server.url, status=healthy, health_check="/health").save()
        synchronous, by_rest = [], []
        for _ in range(times):
            synchronous.append(_milliseconds(perform_mcp_health_checks))
            by_rest.append(_milliseconds(lambda: _asked_for(client)))
            _wait_until(lambda: not MaintenanceRun.objects.filter(state__in=("pending", "running")).exists())
        MCPServer.objects.all().delete()
    figures = {"synchronous_ms": statistics.median(synchronous), "rest_ms": statistics.median(by_rest)}
    return {
        "servers": SERVERS,
        **{name: round(value, 1) for name, value in figures.items()},
        "slowest_rest_ms": round(max(by_rest), 1),
        "share": round(figures["rest_ms"] / figures["synchronous_ms"], 3),
    }


def _asked_for(client: Any) -> None:
    answer = client.post("/api/plugins/ai-ops/runs/", {"kind": "health"}, format="json", HTTP_HOST="127.0.0.1")
    if answer.status_code != 202:
        raise SystemExit(f"REST answered {answer.status_code}: {answer.content[:500]!r}")


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("The worker did not complete the check within a minute.")
        time.sleep(0.05)


def supervisor(passes: int = 5) -> dict[str, Any]:
    """Measure a pass of the supervisor over few ended runs and over many."""
    from ai_ops.celery_tasks import supervise
    from ai_ops.models import MaintenanceRun

    MaintenanceRun.objects.all().delete()
    counts, seconds = [], []
    for old_runs in (100, OLD_RUNS):
        _make_old_runs(old_runs)
        # The first pass after a change of this size fills caches.
        supervise()
        measured = []
        for _ in range(passes):
            expected = _make_due_for_deletion()
            measured.append(_counted(lambda expected=expected: _supervised(supervise, expected)))
        seconds.append(statistics.median(took for took, _ in measured))
        counts.append(statistics.median(count for _, count in measured))
    return {
        "old_runs": OLD_RUNS,
        "seconds": round(seconds[1], 3),
        "queries": counts[1],
        "more_queries_than_for_100": counts[1] - counts[0],
    }


def _supervised(supervise: Callable[[], dict[str, Any]], expected: int) -> None:
    report = supervise()
    if report["run"]["state"] != "succeeded":
        raise SystemExit(f"The pass was {report['run']['state']}: {report['error'] or report['run']['note']}")
    # A pass with fewer deletions makes fewer queries, and could not be compared with another.
    if report["history"]["fixed"] != expected:
        raise SystemExit(f"The pass deleted {report['history']['fixed']} records, not {expected}.")


def _counted(action: Callable[[], Any]) -> tuple[float, int]:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as captured:
        took = _milliseconds(action) / 1000
    return took, len(captured)


def _make_old_runs(count: int) -> None:
    """Create runs of the last three weeks, of all kinds; most of them succeeded."""
    from datetime import timedelta

    from django.db import connection
    from django.utils import timezone

    from ai_ops.models import MaintenanceRun

    now = timezone.now()
    # No skipped pass of the incident review, which a pass of the supervisor deletes: all these runs stay.
    states = ["succeeded"] * 16 + ["skipped", "succeeded", "failed", "dead"]
    for start in range(0, count, 5000):
        runs = [
            MaintenanceRun(
                name=f"old {count} {number}",
                kind=("health", "cleanup", "incidents", "storage")[number % 4],
                trigger="schedule",
                state=states[number % len(states)],
                attempt=1,
                fence=number,
                counters={"checked_count": 40, "changed_count": 0},
            )
            for number in range(start, min(start + 5000, count))
        ]
        MaintenanceRun.objects.bulk_create(runs)
    for day in range(21):
        at = now - timedelta(days=day)
        ours = MaintenanceRun.objects.filter(name__startswith=f"old {count} ", fence__gte=0)
        ours.filter(fence__gte=count * day // 21, fence__lt=count * (day + 1) // 21).update(
            created=at, started=at, finished=at, heartbeat=at
        )
    with connection.cursor() as cursor:
        # Like autovacuum after some time.
        cursor.execute("ANALYZE ai_ops_maintenancerun")


def _make_due_for_deletion() -> int:
    """Create as many expired runs and quiet passes as one pass deletes; return their number."""
    from datetime import timedelta

    from django.utils import timezone

    from ai_ops.models import MaintenanceRun
    from ai_ops.supervision.history import MAX_QUIET_PASSES, MAX_RECORDS

    now = timezone.now()
    for kind, state, age, count in (
        ("health", "succeeded", timedelta(days=40), MAX_RECORDS),
        ("incidents", "skipped", timedelta(hours=1), MAX_QUIET_PASSES),
    ):
        runs = [
            MaintenanceRun(name=f"due {kind} {number}", kind=kind, trigger="schedule", state=state)
            for number in range(count)
        ]
        created = MaintenanceRun.objects.bulk_create(runs)
        MaintenanceRun.objects.filter(pk__in=[run.pk for run in created]).update(created=now - age)
    return MAX_RECORDS + MAX_QUIET_PASSES


CASES = {
    "overhead": Case(overhead, {"added_ms": 30.0}),
    "queries": Case(queries, {"queries_per_batch": 2.0}),
    # The share depends as much on the number of parallel probes as on the cost of the request.
    "enqueue": Case(enqueue, {"rest_ms": 150.0, "share": 0.2}),
    "supervisor": Case(supervisor, {"seconds": 1.0, "more_queries_than_for_100": 0}),
}


def chosen_cases(cases: dict[str, Case], description: str) -> list[str]:
    """Return the names of the cases requested on the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--case", action="append", choices=cases, help="name of a case; may be repeated; by default all cases"
    )
    return parser.parse_args().case or list(cases)


def run_cases(cases: dict[str, Case], chosen: list[str]) -> int:
    """Print the figures of each case; return the exit code, which is 1 if a limit is exceeded."""
    failed = False
    for name in chosen:
        case = cases[name]
        figures = case.run()
        ok = all(figures[figure] <= limit for figure, limit in case.limits.items())
        failed = failed or not ok
        print(json.dumps({"case": name, **figures, "limit": case.limits, "ok": ok}), flush=True)
    return 1 if failed else 0


def main() -> int:
    """Run the requested cases; return the exit code."""
    chosen = chosen_cases(CASES, __doc__.splitlines()[0])
    with nautobot(with_worker="enqueue" in chosen):
        return run_cases(CASES, chosen)


if __name__ == "__main__":
    sys.exit(main())
