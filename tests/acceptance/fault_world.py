"""A PostgreSQL database, two Redis servers and processes that may be killed, and a record of all that was written.

What holds after every fault is asked of triggers in the database: they note each change of a run's state, of a
lease, of what agents see of the servers, and of the agents' generation, by any process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import uuid
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psycopg2

from development import database, forks, services
from tests.acceptance import fault_processes
from tests.acceptance.fault_processes import Tuning
from tests.fakes.cut_proxy import CutProxy
from tests.fakes.webhook_receiver import WebhookReceiver
from tests.plugin import RedisServer, running_redis
from tests.waiting import LONGEST_SECONDS, until

FINAL = ("succeeded", "failed", "skipped", "interrupted", "lost", "dead")

NOTES = """
CREATE TABLE noted_state (at bigserial, run uuid, was text, became text, kind text, subject text, fence bigint);
CREATE TABLE noted_lease (at bigserial, name text, fence bigint, token uuid);
CREATE TABLE noted_change (at bigserial, what text, tx bigint);

CREATE FUNCTION note_state() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP = 'INSERT' OR OLD.state <> NEW.state OR OLD.fence IS DISTINCT FROM NEW.fence THEN
        INSERT INTO noted_state (run, was, became, kind, subject, fence) VALUES (
            NEW.id, CASE WHEN TG_OP = 'INSERT' THEN '' ELSE OLD.state END, NEW.state, NEW.kind, NEW.subject, NEW.fence);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE ON ai_ops_maintenancerun FOR EACH ROW EXECUTE FUNCTION note_state();

CREATE FUNCTION note_lease() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP = 'INSERT' OR OLD.token IS DISTINCT FROM NEW.token THEN
        INSERT INTO noted_lease (name, fence, token) VALUES (NEW.name, NEW.fence, NEW.token);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE ON ai_ops_maintenancelease FOR EACH ROW EXECUTE FUNCTION note_lease();

CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO noted_change (what, tx) VALUES (TG_ARGV[0], txid_current());
    RETURN NULL;
END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON ai_ops_mcpserver
    FOR EACH ROW EXECUTE FUNCTION note_change('server');
CREATE TRIGGER note AFTER INSERT OR UPDATE ON ai_ops_agentgeneration
    FOR EACH ROW EXECUTE FUNCTION note_change('generation');
"""

FORGET = """
TRUNCATE ai_ops_maintenancerun, ai_ops_maintenancelease, ai_ops_mcpserver, ai_ops_mcpserverincident CASCADE;
TRUNCATE noted_state, noted_lease, noted_change;
"""

# As if the process had been dead for an hour: what waiting for it would do, without the waiting.
AN_HOUR_PASSES = """
UPDATE ai_ops_maintenancelease SET expires = expires - interval '1 hour', acquired = acquired - interval '1 hour';
UPDATE ai_ops_maintenancerun SET heartbeat = heartbeat - interval '1 hour', started = started - interval '1 hour'
    WHERE state = 'running';
"""

TWO_UNDER_ONE_FENCE = """
SELECT name, fence, count(DISTINCT token) FROM noted_lease GROUP BY name, fence HAVING count(DISTINCT token) > 1
"""
TWO_RUNS_WITH_ONE_FENCE = """
SELECT kind, subject, fence, count(*) FROM noted_state WHERE became = 'running' AND fence IS NOT NULL
    GROUP BY kind, subject, fence HAVING count(*) > 1
"""
# Exactly once into a final state, and never out of one.
NOT_ENDED_ONCE = """
SELECT run, array_agg(was || '>' || became ORDER BY at) FROM noted_state GROUP BY run
    HAVING count(*) FILTER (WHERE became IN %(final)s) <> 1 OR count(*) FILTER (WHERE was IN %(final)s) > 0
"""
# In one transaction with what they are about, and with nothing else.
UNTOLD = """
SELECT tx, array_agg(DISTINCT what) FROM noted_change GROUP BY tx HAVING count(DISTINCT what) <> 2
"""


class Died(Exception):
    """The process ended without an answer."""


class Child:
    """A process that was started; see `ai_ops` tasks in `fault_processes`."""

    def __init__(self, process: Any, pipe: Connection) -> None:
        self.process = process
        self._pipe = pipe

    def send(self, signum: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.process.pid, signum)

    def kill(self) -> None:
        """End it as the kernel does when memory is short, and wait until it is gone."""
        self.process.kill()
        self.process.join(LONGEST_SECONDS)

    def result(self, seconds: float = LONGEST_SECONDS) -> Any:
        """Return its result after its end; raise its exception as an AssertionError."""
        if not self._pipe.poll(seconds):
            raise TimeoutError(f"no answer from process {self.process.pid}")
        try:
            how, answer = self._pipe.recv()
        except EOFError:
            self.process.join(LONGEST_SECONDS)
            raise Died(f"process {self.process.pid} ended with {self.process.exitcode}") from None
        self.process.join(LONGEST_SECONDS)
        assert how == "returned", answer
        return answer


class World:
    """The servers, what is in them, and what was done to it."""

    def __init__(
        self,
        env: dict[str, str],
        cache: RedisServer,
        checkpoints: RedisServer,
        proxy: CutProxy,
        receiver: WebhookReceiver,
    ) -> None:
        self.env = env
        self.cache = cache
        self.checkpoints = checkpoints
        self.proxy = proxy
        self.receiver = receiver
        self.context = forks.CONTEXT
        self._children: list[Child] = []
        self._connection = database.connect(env, env["NAUTOBOT_DB_NAME"])

    def start(self, action: Callable[..., Any], *arguments: Any, **tuning: Any) -> Child:
        """Call one of the functions of `fault_processes` in a process of its own."""
        mine, theirs = self.context.Pipe()
        given = (theirs, self.env["NAUTOBOT_DB_NAME"], Tuning(**tuning), action, arguments)
        process = self.context.Process(target=fault_processes.main, args=given, daemon=True)
        with forks.in_its_environment():
            process.start()
        theirs.close()
        child = Child(process, mine)
        # Each that is kept keeps two open files.
        self._children = [*(each for each in self._children if each.process.is_alive()), child]
        return child

    def do(self, action: Callable[..., Any], *arguments: Any, **tuning: Any) -> Any:
        """The same, and wait for what it returns."""
        return self.start(action, *arguments, **tuning).result()

    def sql(self, statement: str, *arguments: Any, **named: Any) -> list[tuple[Any, ...]]:
        """Run a statement and give its rows."""
        with self._connection.cursor() as cursor:
            cursor.execute(statement, named or arguments or None)
            return cursor.fetchall() if cursor.description else []

    @contextlib.contextmanager
    def locked(self, table: str) -> Iterator[None]:
        """Let all processes wait that read or write that table."""
        connection = psycopg2.connect(self._connection.dsn, password=self.env["NAUTOBOT_DB_PASSWORD"])
        try:
            with connection.cursor() as cursor:
                cursor.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            yield
        finally:
            connection.close()

    def runs(self, kind: str | None = None) -> list[str]:
        """The states of all runs, those of the supervisor itself excepted, in the order in which they were made."""
        wanted = "kind = %s" if kind else "kind NOT IN ('supervisor', 'orphans')"
        query = f"SELECT state FROM ai_ops_maintenancerun WHERE {wanted} ORDER BY created"
        rows = self.sql(query, *filter(None, [kind]))
        return [state for (state,) in rows]

    def status_of(self, server: str) -> str:
        """The status of a server."""
        query = "SELECT s.name FROM ai_ops_mcpserver m JOIN extras_status s ON s.id = m.status_id WHERE m.name = %s"
        return self.sql(query, server)[0][0]

    def open_incidents(self) -> list[str]:
        """The names of all open incidents, in their order."""
        return [
            name for (name,) in self.sql("SELECT name FROM ai_ops_mcpserverincident WHERE closed IS NULL ORDER BY 1")
        ]

    def has_lease(self) -> bool:
        """Return whether a run has a lease."""
        return bool(self.sql("SELECT 1 FROM ai_ops_maintenancelease WHERE token IS NOT NULL"))

    def wait_until_the_lease_is_stale(self) -> None:
        """Return when the run that has a lease has not renewed it in time."""
        until(lambda: self.sql("SELECT 1 FROM ai_ops_maintenancelease WHERE expires < now()"), "a stale lease")

    def an_hour_passes(self) -> None:
        """Let leases become stale and heartbeats old."""
        self.sql(AN_HOUR_PASSES)

    def settle(self) -> None:
        """Let an hour pass, then the supervisor, then all runs that are to be tried again; and look at it all."""
        self.an_hour_passes()
        self.do(fault_processes.settle)
        self.check()

    def check(self) -> None:
        """Fail if one of the promises was broken since the last `forget`."""
        assert self.violations() == {}
        assert not self.has_lease()

    def violations(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return the contradictions to each promise; empty where all were kept."""
        found = {
            "two holders under one fence": self.sql(TWO_UNDER_ONE_FENCE),
            "two runs with one fence": self.sql(TWO_RUNS_WITH_ONE_FENCE),
            "runs that did not end in exactly one final state": self.sql(NOT_ENDED_ONCE, final=FINAL),
            "changes and generations that did not go together": self.sql(UNTOLD),
        }
        return {promise: rows for promise, rows in found.items() if rows}

    def forget(self) -> None:
        """Begin anew, with empty servers and no process."""
        for child in self._children:
            child.kill()
        self._children.clear()
        self.proxy.restore()
        self.sql(FORGET)
        for server in (self.cache, self.checkpoints):
            # Only of the database with the cache: the broker's is beside it, and a worker may listen there.
            with server.client() as client:
                client.flushdb()

    def forget_messages(self) -> None:
        """Empty the broker, before a worker listens: what was sent while none did would be done now."""
        with self.cache.client(db=1) as broker:
            broker.flushdb()


def celery_worker(env: dict[str, str], folder: Path, name: str, *options: str) -> services.Service:
    """A Celery worker of two processes, with the settings of a world; what it writes is in `folder`."""
    ready = folder / f"{name}.ready"
    env = env | {
        "NAUTOBOT_CELERY_WORKER_READINESS_FILE": str(ready),
        "NAUTOBOT_CELERY_WORKER_HEARTBEAT_FILE": str(folder / f"{name}.heartbeat"),
    }
    command = ("celery", "worker", "--concurrency", "2", *options, "--loglevel", "INFO")
    return forks.ForkedService(name, command, ready.exists, env, log=folder / f"{name}.log")


def celery_beat(env: dict[str, str], folder: Path) -> services.Service:
    """Celery's beat, which touches ``beat.heartbeat`` in `folder` at each look."""
    seen = folder / "beat.heartbeat"
    command = ("celery", "beat", "--pidfile", str(folder / "beat.pid"), "--loglevel", "INFO")
    env = env | {"NAUTOBOT_CELERY_BEAT_HEARTBEAT_FILE": str(seen)}
    return forks.ForkedService("beat", command, seen.exists, env, log=folder / "beat.log")


@contextlib.contextmanager
def running_world(folder: Path) -> Iterator[World]:
    """A world of its own, in a database that is a copy of the tests' template; NAUTOBOT_ROOT is `folder`."""
    name = f"faults_{os.getpid()}_{uuid.uuid4().hex[:6]}"
    with contextlib.ExitStack() as stack:
        cache = stack.enter_context(running_redis("fault-cache"))
        checkpoints = stack.enter_context(running_redis("fault-checkpoints", modules=True))
        proxy = stack.enter_context(CutProxy(int(os.environ["NAUTOBOT_DB_PORT"])).running())
        receiver = stack.enter_context(WebhookReceiver().running())
        env = dict(os.environ) | {
            "NAUTOBOT_DB_NAME": name,
            "NAUTOBOT_REDIS_PORT": str(cache.port),
            "NAUTOBOT_REDIS_PASSWORD": cache.password,
            "LANGGRAPH_REDIS_URL": checkpoints.url(0),
            "NAUTOBOT_CONFIG": str(Path(__file__).with_name("fault_config.py")),
            "NAUTOBOT_ROOT": str(folder),
            "NAUTOBOT_CELERY_HEALTH_PROBES_AS_FILES": "true",
            # Each worker would check all models when it starts.
            "CELERY_SKIP_CHECKS": "true",
            "AI_OPS_TEST_WEBHOOK_PROXY": receiver.url,
            "PYTHONPATH": str(services.PROJECT),
        }
        database.copy(env, services.TEMPLATE_DATABASE, name)
        stack.callback(database.execute, env, "DROP DATABASE {} WITH (FORCE)", name)
        world = World(env, cache, checkpoints, proxy, receiver)
        world.sql(NOTES)
        forks.start_server(env, folder / "forks.log", forks.SET_UP, "pytest", fault_processes.__name__)
        yield world
        world.forget()
