"""A database that hangs up during a wait, or is away at the end of a run."""

from __future__ import annotations

import logging
import threading
import time
from datetime import timedelta

import psycopg2
import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError, connection, connections
from django.utils import timezone
from nautobot.core.celery.log import NautobotDatabaseHandler
from nautobot.extras.choices import JobResultStatusChoices
from nautobot.extras.models import JobResult, Status

from ai_ops.choices import RunStateChoices, RunTriggerChoices
from ai_ops.kinds import KINDS
from ai_ops.models import MaintenanceRun, MCPServer, MCPServerCheck, MCPServerIncident, ThreadErasure
from ai_ops.runs import database_outages, execution
from ai_ops.runs.context import RunRequest, requested_by
from ai_ops.runs.database_outages import (
    connections_checked_after_pauses,
    guarded_job_log,
    replace_lost_connections,
    retry_write,
)
from ai_ops.schedules import find_job
from ai_ops.supervision.rescue import rescue
from langgraph_checkpoint_compact import CompactRedisSaver
from tests.fakes.conversations import old_id, talk
from tests.fakes.cut_proxy import CutProxy
from tests.fakes.jobs import enable_jobs
from tests.fakes.mcp_server import FakeMCPServer
from tests.fakes.runs import FreeHold, recorded

committed = pytest.mark.django_db(transaction=True, databases=["default", "job_logs"])


@pytest.fixture
def impatient_database(transactional_db):
    """A database that hangs up on who says nothing for three times as long as a server takes to answer."""
    name = connection.settings_dict["NAME"]
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE \"{name}\" SET idle_session_timeout = '2s'")
    connections.close_all()
    yield 0.6
    replace_lost_connections()
    with connection.cursor() as cursor:
        cursor.execute(f'ALTER DATABASE "{name}" RESET idle_session_timeout')
    connections.close_all()


@committed
def test_a_check_whose_connections_dropped_between_rounds_keeps_all_it_found(
    impatient_database, settings, pauses, monkeypatch, capfd
):
    # Of 12 s and 4 s a sixth each, and the pauses likewise; the lease is renewed more seldom than it hangs up.
    settings.PLUGINS_CONFIG = {"ai_ops": {"allow_loopback": True, "lease_seconds": 9}}
    pauses(2.2)
    monkeypatch.setattr(database_outages, "LOOK_SECONDS", 0.0)
    enable_jobs()
    user = get_user_model().objects.create_superuser("oncall", password="-")
    healthy = Status.objects.get_for_model(MCPServer).get(name="Healthy")
    with FakeMCPServer(delay=impatient_database, health_status=503).running() as slow:
        for number in range(3):
            MCPServer.objects.create(name=f"slow {number}", url=slow.url, status=healthy, probe="http")
        result = JobResult.enqueue_job(find_job("health"), user, synchronous=True, job_kwargs={})
    result.refresh_from_db()
    assert result.status == JobResultStatusChoices.STATUS_SUCCESS, result.traceback
    assert (result.result["changed_count"], result.result["error"]) == (3, None)
    assert MCPServerCheck.objects.count() == 3
    assert MCPServerIncident.objects.count() == 1
    assert MaintenanceRun.objects.get(kind="health").state == RunStateChoices.SUCCEEDED
    lines = set(result.job_log_entries.values_list("message", flat=True))
    assert any(line.startswith("⚠️ MCP health check completed") or "completed: 3 server(s)" in line for line in lines)
    assert sum("is now Unhealthy" in line for line in lines) == 3
    assert "Logging error" not in capfd.readouterr().err


def server_of_the_database():
    """A cursor of the same server that is connected to another database."""
    options = connection.settings_dict
    server = psycopg2.connect(
        dbname="postgres",
        user=options["USER"],
        password=options["PASSWORD"],
        host=options["HOST"],
        port=options["PORT"],
    )
    server.autocommit = True
    return server.cursor()


def hang_up(cursor, name):
    """End all connections to the database of that name on which nothing is under way, and wait until they are gone."""
    cursor.execute(
        "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE datname = %s AND state = 'idle'", [name]
    )


@pytest.fixture
def database_hangs_up_at_each_answer_of_redis(checkpoint_server, checkpoint_redis, monkeypatch):
    monkeypatch.setattr(database_outages, "LOOK_SECONDS", 0.0)
    name = connection.settings_dict["NAME"]
    with server_of_the_database() as cursor, CutProxy(checkpoint_server.port).running() as proxy:
        proxy.before_answer = lambda: hang_up(cursor, name)
        url = checkpoint_server.url(0).replace(f":{checkpoint_server.port}/", f":{proxy.port}/")
        monkeypatch.setenv("LANGGRAPH_REDIS_URL", url)
        yield
        proxy.before_answer = None
    replace_lost_connections()


WORK = [
    ("cleanup", {}),
    ("cleanup", {"dryrun": True}),
    ("storage", {}),
    ("search", {"pattern": "*"}),
    ("moves", {"source": "valkey"}),
    ("erasure", {"reason": "asked for", "thread_pattern": "user-*"}),
    ("supervisor", {}),
]


def test_each_kind_that_waits_for_redis_is_among_them():
    of_servers = {"health", "server", "incidents"}
    assert {kind for kind, _ in WORK} == KINDS.keys() - of_servers


@committed
@pytest.mark.parametrize(("kind", "variables"), WORK)
def test_no_run_fails_though_the_database_hangs_up_whenever_redis_is_waited_for(
    kind, variables, checkpoint_redis, database_hangs_up_at_each_answer_of_redis, capfd
):
    enable_jobs()
    user = get_user_model().objects.create_superuser("oncall", password="-")
    ThreadErasure.objects.create(
        reason="earlier", guarded_until=timezone.now() + timedelta(days=1), guard={"ids": ["gone"], "pattern": ""}
    )
    saver = CompactRedisSaver(checkpoint_redis)
    talk(saver, "user-old", 60)
    talk(saver, "user-live", 60, 1)
    for days in (60, 1):
        checkpoint_redis.set(f"checkpoint:{{user-valkey}}:__empty__:{old_id(days)}", "{}")
    result = JobResult.enqueue_job(find_job(kind), user, synchronous=True, job_kwargs=variables)
    result.refresh_from_db()
    assert result.status == JobResultStatusChoices.STATUS_SUCCESS, result.traceback
    assert {*MaintenanceRun.objects.values_list("state", "error")} == {(RunStateChoices.SUCCEEDED, "")}
    assert {kind} <= {*MaintenanceRun.objects.values_list("kind", flat=True)}
    assert "Logging error" not in capfd.readouterr().err


@committed
def test_a_pause_that_is_over_leaves_connections_to_django():
    with connections_checked_after_pauses():
        with connections_checked_after_pauses():
            pass
        assert all("close_if_health_check_failed" in each.__dict__ for each in connections.all())
    for each in connections.all():
        assert "close_if_health_check_failed" not in each.__dict__
        assert each.health_check_enabled is False


@committed
def test_all_connections_of_a_thread_are_replaced_where_they_were_lost():
    for alias in ("default", "job_logs"):
        connections[alias].ensure_connection()
        backend = connections[alias].connection
        backend.close()
        replace_lost_connections()
        assert connections[alias].connection is not backend
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT 1")
            assert cursor.fetchone() == (1,)


@pytest.mark.django_db
def test_within_a_transaction_nothing_is_replaced():
    backend = connection.connection
    replace_lost_connections()
    assert connection.connection is backend


class Written(NautobotDatabaseHandler):
    """Nautobot's handler where no database takes a line; it counts those that reach it."""

    def __init__(self):
        super().__init__()
        self.reached = []

    def emit(self, record):
        self.reached.append(record.getMessage())


@pytest.mark.django_db
def test_a_database_that_is_away_is_told_once_and_lines_are_kept_from_it(monkeypatch, caplog):
    task_logger, handler = logging.getLogger("celery.task"), Written()
    task_logger.addHandler(handler)
    monkeypatch.setattr(database_outages, "current_task", object())
    away = [True]

    def ensure(self):
        if away[0]:
            raise OperationalError("connection refused")

    monkeypatch.setattr(type(connections["default"]), "ensure_connection", ensure)
    monkeypatch.setattr(database_outages, "AWAY_SECONDS", 0.05)
    monkeypatch.setattr(database_outages, "LOOK_SECONDS", 0.0)
    try:
        with guarded_job_log():
            for number in range(200):
                logging.getLogger("celery.task.some").warning("line %d", number)
            assert [line for line in handler.reached if line.startswith("line")] == []
            away[0] = False
            time.sleep(0.06)
            logging.getLogger("celery.task.some").warning("it is back")
    finally:
        task_logger.removeHandler(handler)
    assert handler.reached[-1] == "it is back"
    told = [each for each in caplog.records if "database is unavailable" in each.getMessage()]
    assert len(told) == 1
    assert told[0].skip_db_logging is True
    assert sum(each.getMessage().startswith("line") for each in caplog.records) == 200


def test_the_end_of_a_run_waits_for_a_database_that_restarts(monkeypatch):
    monkeypatch.setattr(database_outages, "retry_on_new_connection", lambda write: write())
    monkeypatch.setattr(database_outages, "PATIENCE_WAITS", (0.01,))
    answers = iter([OperationalError("restarting"), OperationalError("restarting"), None])

    def write():
        answer = next(answers)
        if answer:
            raise answer
        return "written"

    monkeypatch.setattr(database_outages, "connection", type("Free", (), {"in_atomic_block": False}))
    assert retry_write(write) == "written"
    answers = iter([OperationalError("restarting")] * 9)
    with pytest.raises(OperationalError):
        retry_write(write, lambda: True)
    assert len(list(answers)) == 8


@committed
def test_a_run_whose_end_meets_a_database_that_is_away_is_written_when_that_is_back(monkeypatch):
    """The connection is cut by the server, and new ones are refused for a moment, as in a restart."""
    monkeypatch.setattr(database_outages, "PATIENCE_WAITS", (0.1,))
    name, refused = connection.settings_dict["NAME"], threading.Event()

    def allow(yes):
        with server_of_the_database() as cursor:
            cursor.execute(f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS {"true" if yes else "false"}')

    def work(hold):
        allow(False)
        with server_of_the_database() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        refused.set()
        return {"success": True, "error": None}

    def back():
        refused.wait(60)
        time.sleep(0.6)
        allow(True)

    thread = threading.Thread(target=back)
    thread.start()
    try:
        with requested_by(RunRequest(RunTriggerChoices.SCHEDULE)):
            result = execution.run_as("storage", {}, work, lambda error: {"success": error is None, "error": error})
    finally:
        thread.join()
        allow(True)
    assert result["run"]["state"] == RunStateChoices.SUCCEEDED
    assert MaintenanceRun.objects.get().state == RunStateChoices.SUCCEEDED


@pytest.mark.django_db
def test_a_run_whose_job_reported_success_is_not_called_lost():
    job = find_job("storage")
    result = JobResult.objects.create(
        name=job.name,
        job_model=job,
        task_name=job.class_path,
        status=JobResultStatusChoices.STATUS_SUCCESS,
        result={"success": True, "thread_count": 7},
    )
    ended = recorded("storage", state=RunStateChoices.RUNNING, ago=timedelta(hours=1), job_result=result)
    part = recorded("orphans", "part", state=RunStateChoices.RUNNING, ago=timedelta(hours=1), job_result=result)
    silent = recorded("cleanup", "shell", state=RunStateChoices.RUNNING, ago=timedelta(hours=1))
    assert rescue(FreeHold(), None, ask=lambda ids: frozenset()).fixed == 3
    for run in (ended, part, silent):
        run.refresh_from_db()
    assert (ended.state, ended.error, ended.counters) == ("succeeded", "", {"success": True, "thread_count": 7})
    assert part.state == RunStateChoices.LOST
    assert "has died, or could not record its end" in silent.error
