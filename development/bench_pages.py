"""Benchmark of the pages on a large installation: queries, and server time from the request to the finished page.

``python -m development.bench_pages`` prints one line of JSON per case and exits with 1 if a limit is exceeded. It uses
its own database and Redis server, which it removes at the end. There is no worker and no Redis with checkpoints: a page
that asks one of them is slow here, or fails.

The installation has 1,000 servers with a check every ten minutes, 1,000,000 checks in all, 100,000 runs with their
JobResults, 5,000 tools and 20,000 changes in the log. A user with all permissions, granted one by one, costs more than
a superuser, because each list is restricted to the objects that the user may view. A user whose permissions have
constraints costs most.

A new case is a function that returns its figures, and an entry in CASES.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any

from development.bench_runs import Case, chosen_cases, nautobot, run_cases

SERVERS = 1_000
CHECKS = 1_000_000
RUNS = 100_000
TOOLS = 5_000
CHANGES = 20_000
# The first request of a process loads templates and menus.
WARM_UP = 3
TIMES = 15
# A page of Nautobot with only a few words.
EMPTY_PAGE = "/user/profile/"
# Number of a page's statements to print with their times.
SHOWN_STATEMENTS = 4
# The models on the pages.
MODELS = (
    ("ai_ops", "mcpserver"),
    ("ai_ops", "mcpserverhealth"),
    ("ai_ops", "mcpservercheck"),
    ("ai_ops", "mcpserverincident"),
    ("ai_ops", "mcpservertool"),
    ("ai_ops", "maintenancerun"),
    ("ai_ops", "checkpointstoragesnapshot"),
    ("extras", "scheduledjob"),
    ("extras", "objectchange"),
    ("extras", "job"),
)

# Of each hundred servers one is down, one flaps, and one was never checked.
SERVERS_SQL = """
INSERT INTO ai_ops_mcpserver (id, created, last_updated, _custom_field_data, name, status_id, protocol, url,
                              mcp_endpoint, health_check, probe, verify_tls, ca_file, mcp_type, description)
SELECT gen_random_uuid(), now() - interval '30 days', now(), '{}', 'Server ' || number,
       CASE WHEN number %% 100 = 1 THEN %(down)s ELSE %(up)s END::uuid, 'http', 'http://mcp.example.com', '/mcp',
       '/health', 'auto', true, '', 'internal', ''
FROM generate_series(1, %(servers)s) AS number
"""
HEALTH_SQL = """
INSERT INTO ai_ops_mcpserverhealth (id, server_id, checked, ok, reason, message, latency_ms, last_ok, last_failure,
                                    last_failure_reason, recent, change_percent, flapping, alert_held,
                                    protocol_version, server_name, server_version)
SELECT gen_random_uuid(), id, now() - interval '1 minute', status_id <> %(down)s,
       CASE WHEN status_id = %(down)s THEN 'TIMEOUT' ELSE '' END,
       CASE WHEN status_id = %(down)s THEN 'http://mcp.example.com did not answer within 10 s: see whether it runs.'
            ELSE '' END,
       20, CASE WHEN status_id = %(down)s THEN now() - interval '3 hours' ELSE now() END,
       CASE WHEN name LIKE '%%7' THEN now() - interval '1 hour' END, '', repeat('1', 20) || '0', 0,
       name LIKE '%%50', false, '', '', ''
FROM ai_ops_mcpserver WHERE name NOT LIKE '%%99'
"""
CHECKS_SQL = """
INSERT INTO ai_ops_mcpservercheck (id, server_id, time, ok, reason, latency_ms, http_status, flipped, probes, failures,
                                   protocol_version, server_name, server_version)
SELECT gen_random_uuid(), server.id, now() - number * interval '10 minutes' - random() * interval '20 seconds',
       random() > 0.01, '', 20 + 100 * random(), 200, false, 1, 0, '', '', ''
FROM generate_series(%(each)s, 1, -1) AS number, (SELECT id FROM ai_ops_mcpserver) AS server
"""
RUNS_SQL = """
WITH made AS (
    SELECT number, gen_random_uuid() AS id, gen_random_uuid() AS result,
           now() - number * interval '30 days' / %(runs)s AS at,
           (ARRAY['health', 'incidents', 'storage', 'cleanup', 'supervisor'])[1 + number %% 5] AS kind,
           (ARRAY['succeeded', 'succeeded', 'succeeded', 'skipped'])[1 + number / 5 %% 4] AS usual,
           number %% 997 = 0 AS failed
    FROM generate_series(1, %(runs)s) AS number
), results AS (
    INSERT INTO extras_jobresult (id, _custom_field_data, name, date_created, status, task_args, task_kwargs,
                                  celery_kwargs, canceled_by_user_name, cancel_type, scheduled_job_id)
    SELECT result, '{{}}', kind, at, 'SUCCESS', '[]', '{{}}', '{{}}', '', '', CASE kind {schedules} END FROM made
)
INSERT INTO ai_ops_maintenancerun (id, name, kind, subject, trigger, state, job_result_id, options, attempt,
                                   max_attempts, attempts, holder, progress, cancel_requested, created, started,
                                   finished, execution_time_ms, counters, error, errors, trace_parent)
SELECT id, 'run ' || number, kind, '', 'schedule', CASE WHEN failed THEN 'failed' ELSE usual END, result, '{{}}', 1, 5,
       '[]', '', '', false, at, at, at, 900, '{{"checked_count": 1000, "changed_count": 0, "failed_count": 3}}',
       CASE WHEN failed THEN 'The Redis of checkpoints did not answer.' ELSE '' END, '[]', ''
FROM made
"""
INCIDENTS_SQL = """
INSERT INTO ai_ops_mcpserverincident (id, _custom_field_data, name, kind, reason, message, opened)
SELECT gen_random_uuid(), '{}', 'Outage of ' || number, 'outage', 'TIMEOUT', '', now() - number * interval '1 hour'
FROM generate_series(1, 500) AS number;
UPDATE ai_ops_mcpserverincident SET closed = opened + interval '10 minutes' WHERE name NOT LIKE '%1';
INSERT INTO ai_ops_mcpserverincident_servers (mcpserverincident_id, mcpserver_id)
SELECT incident.id, server.id FROM ai_ops_mcpserverincident AS incident
JOIN ai_ops_mcpserver AS server ON server.name = replace(incident.name, 'Outage of ', 'Server ')
"""
TOOLS_SQL = """
INSERT INTO ai_ops_mcpservertool (id, server_id, name, state, since, first_seen, hash, approved_hash, description,
                                  definition, approved_definition)
SELECT gen_random_uuid(), server.id, 'tool ' || number, CASE WHEN random() < 0.01 THEN 'changed' ELSE 'approved' END,
       now(), now(), repeat('a', 64), repeat('a', 64), 'What it does', repeat('x', 1000), ''
FROM ai_ops_mcpserver AS server, generate_series(1, %(each)s) AS number
"""
CHANGES_SQL = """
INSERT INTO extras_objectchange (id, time, user_name, request_id, action, changed_object_type_id, changed_object_id,
                                 change_context, change_context_detail, object_repr, object_data)
SELECT gen_random_uuid(), now() - number * interval '1 minute', 'bench', gen_random_uuid(), 'update',
       CASE WHEN number %% 500 = 0 THEN %(ours)s ELSE %(others)s END, gen_random_uuid(), 'orm', '', 'something', '{}'
FROM generate_series(1, %(changes)s) AS number
"""

# As large as one with full lists.
SNAPSHOT = {
    "success": True,
    "error": None,
    "memory_bytes": 2**31,
    "checkpoint_bytes": 2**30,
    "cleanup": {"deleted_count": 12_345, "threads_deleted": 321, "policy": "30 days for idle threads."},
    "missing_pins": [f"thread {number}" for number in range(1_000)],
    "oldest_threads": [{"thread": "x" * 120, "keys": 9, "last_activity": None}] * 10,
}


def install() -> None:
    """Fill the database."""
    from django.contrib.contenttypes.models import ContentType
    from django.db import connection
    from django.utils import timezone
    from nautobot.extras.models import JobResult, Status

    from ai_ops.mcp.hourly_checks import sum_up_hours
    from ai_ops.models import CheckpointStorageSnapshot, MCPServer
    from ai_ops.schedules import DEFAULT_SCHEDULES, ensure_schedule
    from tests.fakes.runs import FreeHold

    cases = [f"WHEN '{kind}' THEN '{ensure_schedule(kind).pk}'::uuid" for kind in DEFAULT_SCHEDULES]
    for minutes in range(5):
        CheckpointStorageSnapshot.objects.create(data=SNAPSHOT | {"checkpoint_keys": 1_000_000 + minutes})
    statuses = {status.name: status.pk for status in Status.objects.get_for_model(MCPServer)}
    down = {"down": statuses["Unhealthy"]}
    type_of = ContentType.objects.get_for_model
    with connection.cursor() as cursor:
        cursor.execute(SERVERS_SQL, {**down, "up": statuses["Healthy"], "servers": SERVERS})
        cursor.execute(HEALTH_SQL, down)
        cursor.execute(CHECKS_SQL, {"each": CHECKS // SERVERS})
        cursor.execute(RUNS_SQL.format(schedules=" ".join(cases)), {"runs": RUNS})
        cursor.execute(INCIDENTS_SQL)
        cursor.execute(TOOLS_SQL, {"each": TOOLS // SERVERS})
        types = {"ours": type_of(MCPServer).pk, "others": type_of(JobResult).pk}
        cursor.execute(CHANGES_SQL, {**types, "changes": CHANGES})
        # Like autovacuum after some time.
        cursor.execute("VACUUM ANALYZE")
    # Like each health run.
    sum_up_hours(FreeHold(), timezone.now())


def overview(times: int = TIMES) -> dict[str, Any]:
    """Measure `/plugins/ai-ops/` for a superuser, a user with single permissions, and one with half of the servers.

    The last user gets no sums of hours, because they are for all servers.

    `frame_ms` is the time of an almost empty page of Nautobot: the cost of menu, banner and session on every page, and
    so the speed of the machine. `ratio` is the overview's time divided by it.
    """
    figures: dict[str, Any] = {}
    users = {
        "superuser": _superuser(),
        "user": _user_with_permissions("operator"),
        "part": _user_with_permissions("of a part", {"mcpserver": "name", "mcpservercheck": "server__name"}),
    }
    for name, user in users.items():
        frame, frame_queries, _ = _measured(EMPTY_PAGE, user, times)
        taken, queries, statements = _measured("/plugins/ai-ops/", user, times)
        figures |= {f"{name}_ms": round(statistics.median(taken)), f"{name}_queries": queries}
        figures |= {f"{name}_frame_ms": round(statistics.median(frame)), f"{name}_frame_queries": frame_queries}
        figures |= {f"{name}_ratio": round(statistics.median(taken) / statistics.median(frame), 1)}
        figures |= {f"{name}_slowest": statements}
    return figures


def metrics(times: int = TIMES) -> dict[str, Any]:
    """Measure the app's part of `/metrics/`, as Nautobot collects it."""
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    from ai_ops.metrics import collect

    taken = []
    for _ in range(times):
        began = time.perf_counter()
        samples = sum(len(family.samples) for family in collect())
        taken.append((time.perf_counter() - began) * 1000)
    with CaptureQueriesContext(connection) as captured:
        list(collect())
    return {"ms": round(statistics.median(taken)), "queries": len(captured), "samples": samples}


def _measured(path: str, user: Any, times: int) -> tuple[list[float], int, list[str]]:
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    client = Client()
    client.force_login(user)
    for _ in range(WARM_UP):
        answer = client.get(path)
        if answer.status_code != 200:
            raise SystemExit(f"{path} answered {answer.status_code}.")
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        client.get(path)
        taken.append((time.perf_counter() - began) * 1000)
    with CaptureQueriesContext(connection) as captured:
        client.get(path)
    slowest = sorted(captured.captured_queries, key=lambda query: -float(query["time"]))[:SHOWN_STATEMENTS]
    shown = [f"{float(query['time']) * 1000:.0f} ms {query['sql'][:90]}" for query in slowest]
    return taken, len(captured), shown


def _superuser() -> Any:
    from django.contrib.auth import get_user_model

    return get_user_model().objects.create(username="bench", is_superuser=True)


def _user_with_permissions(username: str, constrained: Mapping[str, str] | None = None) -> Any:
    """Create a user with view permissions for MODELS; in `constrained`, only for servers whose name ends in 0 to 4.

    Args:
        username: The name.
        constrained: By models, their field with the name of the server.
    """
    from django.contrib.auth import get_user_model
    from django.contrib.contenttypes.models import ContentType
    from nautobot.users.models import ObjectPermission

    user = get_user_model().objects.create(username=username)
    for app_label, model in MODELS:
        field = (constrained or {}).get(model)
        permission = ObjectPermission.objects.create(
            name=f"{username}: {model}",
            actions=["view", "run"],
            constraints={f"{field}__regex": "[0-4]$"} if field else None,
        )
        permission.users.add(user)
        permission.object_types.add(ContentType.objects.get(app_label=app_label, model=model))
    return user


CASES = {
    "overview": Case(
        overview,
        {f"{user}_ms": 300 for user in ("superuser", "user")}
        | {f"{user}_queries": 25 for user in ("superuser", "user", "part")},
    ),
    "metrics": Case(metrics, {"ms": 200, "queries": 15}),
}


def main() -> int:
    """Run the requested cases; return the exit code."""
    chosen = chosen_cases(CASES, __doc__.splitlines()[0])
    with nautobot(with_worker=False):
        install()
        return run_cases(CASES, chosen)


if __name__ == "__main__":
    sys.exit(main())
