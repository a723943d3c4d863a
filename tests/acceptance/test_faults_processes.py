"""Maintenance whose process, database, Redis or clock fails it: what is promised holds after each fault.

Processes are killed and stopped where the work shows that it is there: when a server is asked, when a status has
changed, when keys are going. Nothing in them is replaced.
"""

from __future__ import annotations

import contextlib
import re
import signal
from datetime import timedelta

import pytest
from langgraph.checkpoint.redis import RedisSaver
from redis.exceptions import OutOfMemoryError

from ai_ops.runs.delivery import REDELIVERY_GRACE
from tests.acceptance import fault_processes as processes
from tests.acceptance.fault_world import Died, World
from tests.fakes.conversations import days_ago, graph, on
from tests.fakes.mcp_server import FakeMCPServer
from tests.waiting import LONGEST_SECONDS, until

HEALTH, CLEANUP, INCIDENTS = "health", "cleanup", "incidents"
STARTERS, ROUNDS = 20, 100
HOUR = 3600.0
GRACE_MINUTES = REDELIVERY_GRACE / timedelta(minutes=1)
# The port of tcpmux, which nothing serves.
NOTHING_LISTENS = "http://127.0.0.1:1"
# A pause in which a test finds the process, whatever else the machine does.
LONG = 60.0


# --------------------------------------------------------------------------------------------
# SIGKILL


@contextlib.contextmanager
def after_the_lease(world: World, server: FakeMCPServer):
    with world.locked("ai_ops_mcpserver"):
        child = world.start(processes.scheduled, HEALTH)
        until(world.has_lease, "a lease")
        until(world.runs, "a record")
        yield child


@contextlib.contextmanager
def in_a_round_of_probes(world: World, server: FakeMCPServer):
    server.delay = LONG
    child = world.start(processes.scheduled, HEALTH)
    until(lambda: server.requests, "a probe")
    yield child
    server.delay = 0.0


@contextlib.contextmanager
def in_the_pause(world: World, server: FakeMCPServer):
    child = world.start(processes.scheduled, HEALTH, pause=LONG)
    until(lambda: server.requests and not server.open_now, "an answer")
    yield child


@contextlib.contextmanager
def between_flip_and_cache(world: World, server: FakeMCPServer):
    server.delay = 0.2
    child = world.start(processes.scheduled, HEALTH)
    until(lambda: len(server.requests) == 3, "the third probe")
    with world.cache.client() as cache:
        cache.execute_command("CLIENT", "PAUSE", int(LONG * 1000), "WRITE")
        until(lambda: world.status_of("Tickets") == "Healthy", "the flip")
        yield child
        cache.execute_command("CLIENT", "UNPAUSE")


@pytest.mark.parametrize("moment", [after_the_lease, in_a_round_of_probes, in_the_pause, between_flip_and_cache])
def test_a_killed_health_check_is_done_again_and_the_agents_learn_of_one_flip(world, recovered, moment):
    before, _ = world.do(processes.generations)
    with moment(world, recovered) as child:
        child.kill()
    assert world.runs() == ["running"], "a killed process ends nothing"
    world.settle()
    assert world.runs() == ["succeeded"], "the same run, tried again"
    assert world.status_of("Tickets") == "Healthy"
    with world.cache.client() as cache:
        cache.flushall()  # as after the half minute for which the cache keeps the number
    assert world.do(processes.generations) == (before + 1, before + 1)


@pytest.mark.parametrize(("at_once", "flipped"), [(1, 1), (25, 2)])
def test_the_next_run_opens_the_incidents_of_all_flips_that_a_killed_worker_committed(world, at_once, flipped):
    for name in "ab":
        world.do(processes.add_server, name, NOTHING_LISTENS, "Healthy")
    with pytest.raises(Died, match=f"ended with -{signal.SIGKILL:d}$"):
        world.do(processes.check_and_be_killed, at_once)
    # Flips are committed some at a time: all of a transaction or none of it.
    assert [world.status_of(name) for name in "ab"] == ["Unhealthy"] * flipped + ["Healthy"] * (2 - flipped)
    assert world.open_incidents() == []
    world.an_hour_passes()
    assert world.do(processes.scheduled, HEALTH)["changed_count"] == 2 - flipped
    assert world.open_incidents() == ["a: CONNECT", "b: CONNECT"]
    world.do(processes.scheduled, HEALTH)
    assert world.open_incidents() == ["a: CONNECT", "b: CONNECT"]
    world.settle()


def test_a_run_after_a_killed_one_is_skipped_until_the_lease_is_stale(world, recovered):
    with in_the_pause(world, recovered) as child:
        child.kill()
    assert world.do(processes.scheduled, HEALTH)["run"]["state"] == "skipped"
    world.wait_until_the_lease_is_stale()
    assert world.do(processes.scheduled, HEALTH)["run"]["state"] == "succeeded", "a takeover"
    world.settle()


# --------------------------------------------------------------------------------------------
# The cleanup, with real conversations


class Talk:
    """Conversations, of which the live ones must stay as they are."""

    def __init__(self, world: World, old: int, live: int = 2) -> None:
        self.client = world.checkpoints.client(0)
        saver = RedisSaver(redis_client=self.client)
        saver.setup()
        self._graph = graph(saver)
        with days_ago(40):
            for number in range(old):
                self._graph.invoke({"said": ["hello"]}, on(f"old-{number}"))
            for number in range(live):
                self._graph.invoke({"said": ["hello"]}, on(f"live-{number}"))
        for number in range(live):
            self._graph.invoke({"said": ["again"]}, on(f"live-{number}"))
        self._live = {f"live-{number}": None for number in range(live)}
        self._live = self._states()

    def _states(self):
        return {thread: self._graph.get_state(on(thread)) for thread in self._live}

    def old_keys(self) -> int:
        return sum(1 for _ in self.client.scan_iter("*:old-*", count=1000))

    def assert_only_the_live_ones_are_left(self) -> None:
        assert self._states() == self._live
        assert self.old_keys() == 0

    def assert_the_live_ones_are_there(self) -> None:
        assert self._states() == self._live


def test_a_cleanup_that_is_killed_between_deletions_is_finished_by_the_next(world):
    talk = Talk(world, old=60)
    all_keys = talk.client.dbsize()
    child = world.start(processes.scheduled, CLEANUP, batch=1)
    until(lambda: talk.client.dbsize() < all_keys, "a deletion")
    child.kill()
    assert talk.old_keys() > 0, "it was killed before the end"
    talk.assert_the_live_ones_are_there()
    world.settle()
    assert world.runs() == ["succeeded"]
    talk.assert_only_the_live_ones_are_left()


def test_a_checkpoint_redis_that_is_restarted_during_a_cleanup_costs_nothing(world):
    talk = Talk(world, old=40)
    all_keys = talk.client.dbsize()
    child = world.start(processes.scheduled, CLEANUP, batch=1)
    until(lambda: talk.client.dbsize() < all_keys, "a deletion")
    world.checkpoints.stop()
    world.checkpoints.start()
    child.result()
    world.settle()
    assert world.runs() == ["succeeded"]
    talk.assert_only_the_live_ones_are_left()


def test_a_full_checkpoint_redis_is_cleaned(world):
    talk = Talk(world, old=5)
    talk.client.config_set("maxmemory-policy", "noeviction")
    talk.client.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(OutOfMemoryError):
            talk.client.set("more", "than there is room for")
        assert world.do(processes.scheduled, CLEANUP)["error"] is None
    finally:
        talk.client.config_set("maxmemory", "0")
    world.settle()
    talk.assert_only_the_live_ones_are_left()


def test_a_checkpoint_redis_that_is_a_replica_for_a_while_is_cleaned_later(world):
    talk = Talk(world, old=5)
    # Of no test: it keeps its data and takes no writes.
    talk.client.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        report = world.do(processes.scheduled, CLEANUP)
        assert not report["success"]
        assert "will be retried at" in report["run"]["note"]
        assert world.runs() == ["pending"]
    finally:
        talk.client.execute_command("REPLICAOF", "NO", "ONE")
    world.settle()
    assert world.runs() == ["succeeded"]
    talk.assert_only_the_live_ones_are_left()


# --------------------------------------------------------------------------------------------
# SIGSTOP


def test_a_health_check_that_was_stopped_and_wakes_up_after_a_takeover_writes_nothing(world, recovered):
    before, _ = world.do(processes.generations)
    with in_the_pause(world, recovered) as sleeper:
        sleeper.send(signal.SIGSTOP)
    world.wait_until_the_lease_is_stale()
    assert world.do(processes.scheduled, HEALTH)["run"]["state"] == "succeeded", "a takeover"
    checks = world.sql("SELECT count(*) FROM ai_ops_mcpservercheck")
    sleeper.send(signal.SIGCONT)
    report = sleeper.result()
    assert "lease" in report["error"]
    assert report["changed_count"] == 0
    assert world.sql("SELECT count(*) FROM ai_ops_mcpservercheck") == checks
    assert world.do(processes.generations)[0] == before + 1
    world.settle()
    assert world.do(processes.generations)[0] == before + 1


def test_a_cleanup_that_was_stopped_and_wakes_up_after_a_takeover_deletes_nothing(world):
    talk = Talk(world, old=60)
    all_keys = talk.client.dbsize()
    sleeper = world.start(processes.scheduled, CLEANUP, batch=1)
    until(lambda: talk.client.dbsize() < all_keys, "a deletion")
    sleeper.send(signal.SIGSTOP)
    world.wait_until_the_lease_is_stale()
    assert world.do(processes.scheduled, CLEANUP)["run"]["state"] == "succeeded", "a takeover"
    talk.assert_only_the_live_ones_are_left()
    sleeper.send(signal.SIGCONT)
    # Its own look at its lease, or Redis with the fence of what it had under way.
    assert re.search("lease|has taken over", sleeper.result()["error"])
    talk.assert_only_the_live_ones_are_left()
    world.settle()


# --------------------------------------------------------------------------------------------
# SIGTERM, outside Celery


def test_a_cleanup_that_is_told_to_end_stops_between_deletions_and_the_next_goes_on(world):
    talk = Talk(world, old=60)
    all_keys = talk.client.dbsize()
    child = world.start(processes.scheduled, CLEANUP, batch=1)
    until(lambda: talk.client.dbsize() < all_keys, "a deletion")
    child.send(signal.SIGTERM)
    with pytest.raises(Died):
        child.result()
    assert child.process.exitcode == -signal.SIGTERM, "it was held back, not lost"
    assert world.runs() == ["interrupted"]
    ((counted,),) = world.sql("SELECT counters->'deleted_count' FROM ai_ops_maintenancerun")
    assert counted == all_keys - talk.client.dbsize(), "what was done is recorded"
    assert talk.old_keys() > 0
    world.check()
    world.do(processes.scheduled, CLEANUP)
    talk.assert_only_the_live_ones_are_left()


# --------------------------------------------------------------------------------------------
# Many at once


def test_of_twenty_that_start_at_once_one_runs_a_hundred_times(world):
    barrier = world.context.Barrier(STARTERS)
    children = [world.start(processes.take_turns, barrier, ROUNDS, lease=60) for _ in range(STARTERS)]
    rounds = list(zip(*(child.result(300) for child in children), strict=True))
    assert len(rounds) == ROUNDS
    for each in rounds:
        assert sorted(each) == [["skipped", ""]] * (STARTERS - 1) + [["succeeded", ""]]
    world.check()
    assert world.sql("SELECT max(fence), count(*) FROM ai_ops_maintenancerun") == [(ROUNDS, STARTERS * ROUNDS)]


# --------------------------------------------------------------------------------------------
# The database, the cache, the clock, other people


def test_a_database_that_is_gone_during_a_renewal_stops_the_run_before_it_writes(world, recovered):
    before, _ = world.do(processes.generations)
    child = world.start(processes.scheduled, HEALTH, pause=LONG, database_port=world.proxy.port)
    until(lambda: recovered.requests and not recovered.open_now, "an answer")
    waits = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    # Between two renewals the run would replace the connection, and go on.
    with world.locked("ai_ops_maintenancelease"):
        until(lambda: world.sql(waits), "a renewal")
        world.proxy.cut()
        world.proxy.restore()
    report = child.result()
    assert "could not be renewed" in report["error"]
    assert world.runs() == ["pending"], "the database is back, and the run is tried again"
    assert world.status_of("Tickets") == "Unhealthy"
    world.settle()
    assert world.runs() == ["succeeded"]
    assert world.do(processes.generations)[0] == before + 1


def test_a_database_that_stays_away_leaves_the_run_to_the_supervisor(world, recovered):
    # A minute and a half of patience is for a restart of PostgreSQL; this one stays away for longer than any.
    child = world.start(processes.scheduled, HEALTH, pause=LONG, patience=2.0, database_port=world.proxy.port)
    until(lambda: recovered.requests and not recovered.open_now, "an answer")
    world.proxy.cut()
    report = child.result()
    assert not report["success"]
    assert "could not be recorded" in report["run"]["note"]
    assert world.runs() == ["running"]
    world.settle()
    assert world.runs() == ["succeeded"]


def test_a_message_that_is_delivered_twice_is_done_once_however_late_the_second_is(world, recovered):
    message = world.do(processes.add_job_result)
    with world.locked("ai_ops_maintenancelease"):
        late = world.start(processes.delivered, message)
        waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
        until(lambda: world.sql(waiting, world.env["NAUTOBOT_DB_NAME"]), "one that has looked for a record")
        late.send(signal.SIGSTOP)
    assert world.do(processes.delivered, message)["run"]["state"] == "succeeded"
    late.send(signal.SIGCONT)
    assert late.result()["run"]["state"] == "skipped"
    assert world.runs() == ["succeeded"]
    world.settle()


def test_a_database_that_is_away_from_the_start_is_said_in_a_sentence(world, recovered):
    world.proxy.cut()
    report = world.do(processes.scheduled, HEALTH, database_port=world.proxy.port)
    assert "check both; the next run tries again" in report["error"]
    assert world.runs() == []
    world.check()


def full(world):
    with world.cache.client() as cache:
        cache.config_set("maxmemory-policy", "noeviction")
        cache.config_set("maxmemory", "1mb")


def not_full(world):
    with world.cache.client() as cache:
        cache.config_set("maxmemory", "0")


def read_only(world):
    with world.cache.client() as cache:
        cache.execute_command("REPLICAOF", "127.0.0.1", "1")


def writable(world):
    with world.cache.client() as cache:
        cache.execute_command("REPLICAOF", "NO", "ONE")


def away(world):
    world.cache.stop()


def back(world):
    world.cache.start()


@pytest.mark.parametrize(("break_it", "mend_it"), [(full, not_full), (read_only, writable), (away, back)])
def test_a_cache_that_fails_between_probe_and_flip_makes_the_run_try_again_and_agents_learn_of_one_flip(
    world, recovered, break_it, mend_it
):
    before, _ = world.do(processes.generations)
    recovered.delay = 0.2
    child = world.start(processes.scheduled, HEALTH)
    until(lambda: len(recovered.requests) == 3, "the third probe")
    break_it(world)
    try:
        assert not child.result()["success"]
        assert world.runs() == ["pending"]
    finally:
        mend_it(world)
    recovered.delay = 0.0
    world.settle()
    with world.cache.client() as cache:
        cache.flushall()
    assert world.do(processes.generations) == (before + 1, before + 1)


@pytest.mark.parametrize("offset", [HOUR, -HOUR])
def test_a_worker_whose_clock_is_an_hour_off_neither_steals_nor_loses_a_lease(world, recovered, offset):
    """Its clock is Python's, shifted in that process."""
    with in_the_pause(world, recovered) as holder:
        assert world.do(processes.scheduled, HEALTH, clock=offset)["run"]["state"] == "skipped"
        holder.kill()
    world.settle()
    assert world.status_of("Tickets") == "Healthy"
    talk = Talk(world, old=2)
    talk.client.execute_command("REPLICAOF", "127.0.0.1", "1")
    world.do(processes.scheduled, CLEANUP, clock=offset)
    talk.client.execute_command("REPLICAOF", "NO", "ONE")
    due = "SELECT next_attempt BETWEEN now() - interval '5 s' AND now() + interval '5 min' FROM ai_ops_maintenancerun"
    assert world.sql(f"{due} WHERE kind = %s", CLEANUP) == [(True,)], "due soon by the database's clock"
    world.settle()
    talk.assert_only_the_live_ones_are_left()


@pytest.mark.parametrize("offset", [HOUR, -HOUR])
def test_a_worker_whose_clock_is_an_hour_off_has_messages_sent_again_in_time(world, offset):
    def due_in_minutes():
        query = "SELECT extract(epoch FROM next_attempt - now()) / 60 FROM ai_ops_maintenancerun WHERE kind = %s"
        ((minutes,),) = world.sql(query, CLEANUP)
        return minutes

    world.do(processes.has_worker)
    world.do(processes.ask, CLEANUP, clock=offset)
    assert GRACE_MINUTES - 1 < due_in_minutes() < GRACE_MINUTES
    world.sql("UPDATE ai_ops_maintenancerun SET next_attempt = now() - interval '1 s'")
    retries = world.do(processes.supervise, clock=offset)["retries"]
    assert (retries["checked"], retries["fixed"]) == (1, 1)
    assert GRACE_MINUTES - 1 < due_in_minutes() < GRACE_MINUTES, "the second message has as long as the first"
    world.forget()
    world.do(processes.has_worker)
    world.do(processes.ask_and_approve, CLEANUP, clock=offset)
    assert GRACE_MINUTES - 1 < due_in_minutes() < GRACE_MINUTES, "its schedule sends the first"
    world.forget()
    world.cache.stop()
    try:
        world.do(processes.ask, CLEANUP, clock=offset)
    finally:
        world.cache.start()
    assert 0 < due_in_minutes() < 1, "a broker that is away is asked again soon"


def test_servers_that_are_changed_and_deleted_during_a_run_are_left_alone(world, recovered):
    world.do(processes.add_server, "Deleted", recovered.url, "Unhealthy")
    world.do(processes.add_server, "Moved", recovered.url, "Unhealthy")
    before, _ = world.do(processes.generations)
    # Stopped, so that all of this happens before it goes on.
    child = world.start(processes.scheduled, HEALTH, pause=1.0, lease=300)
    until(lambda: len(recovered.requests) == 3 and not recovered.open_now, "three answers")
    child.send(signal.SIGSTOP)
    world.do(processes.delete_server, "Deleted")
    world.do(processes.change_server, "Moved", "http://127.0.0.1:1")
    child.send(signal.SIGCONT)
    report = child.result()
    assert (report["success"], report["checked_count"], report["changed_count"]) == (True, 3, 1)
    assert world.status_of("Tickets") == "Healthy"
    assert world.status_of("Moved") == "Unhealthy"
    assert world.do(processes.generations)[0] == before + 3, "a deletion, a change and a flip"
    world.settle()
    assert world.runs() == ["succeeded"]


# --------------------------------------------------------------------------------------------
# Agents in processes of their own


@contextlib.contextmanager
def agent(world: World):
    """Yield a function that has a process of its own ask for its tools once."""
    ours, theirs = world.context.Pipe()
    child = world.start(processes.tell_tools, theirs)

    def ask() -> list[str]:
        ours.send("tools?")
        assert ours.poll(LONGEST_SECONDS)
        return ours.recv()

    yield ask
    child.kill()


def test_a_second_process_drops_a_dead_servers_tools_within_one_request_after_the_jobs_flip(world):
    with (
        agent(world) as ask,
        FakeMCPServer(tools=["alpha_lookup"]).running() as alpha,
        FakeMCPServer(tools=["beta_lookup"]).running() as beta,
    ):
        world.do(processes.add_server, "alpha", alpha.url, "Healthy")
        world.do(processes.add_server, "beta", beta.url, "Healthy")
        assert ask() == ask() == ["alpha_lookup", "beta_lookup"]
        beta.health_status = 500
        assert world.do(processes.run_the_job, HEALTH)["changed_count"] == 1
        assert ask() == ["alpha_lookup"]
        beta.health_status = 200
        assert world.do(processes.run_the_job, HEALTH)["changed_count"] == 1
        assert ask() == ["alpha_lookup", "beta_lookup"]
        world.do(processes.delete_server, "beta")
        assert ask() == ["alpha_lookup"]
        # The first check that finds a server well lists its tools too.
        assert [sum(method == "tools/list" for _, method in each.messages) for each in (alpha, beta)] == [1 + 1, 2 + 1]
