"""Moving conversations to CompactRedisSaver, as function, as Job and as a run that was asked for."""

from __future__ import annotations

import asyncio

import pytest
from langgraph.checkpoint.redis.aio import AsyncRedisSaver
from langgraph.types import Command

from ai_ops.celery_tasks import move_conversations
from ai_ops.exceptions import RunOptionsError, RunStoppedError
from ai_ops.jobs.conversation_moves import MoveConversationsJob
from ai_ops.models import MaintenanceRun
from ai_ops.runs.options import checked_options, job_variables
from langgraph_checkpoint_compact import CompactRedisSaver
from tests.fakes.conversations import days_ago, graph, on

pytestmark = pytest.mark.django_db


def state(app, thread):
    seen = app.get_state(on(thread))
    return seen.values, seen.next, seen.config, seen.metadata["step"], [each.value for each in seen.interrupts]


def ids(app, thread):
    return {each.config["configurable"]["checkpoint_id"] for each in app.get_state_history(on(thread))}


def talk(app, thread, asks=False):
    for age in (40, 2):
        with days_ago(age):
            if asks and age == 2:
                app.invoke(Command(resume="yes"), on(thread))
            app.invoke({"said": [f"{age} days ago"]}, on(thread))


@pytest.fixture
def of_redis_saver(checkpoint_server, saver):
    """Conversations of RedisSaver, in an app that reads them."""
    for thread in ("user-1-a", "user-1:b", "user-2"):
        talk(graph(saver, subgraph=True), thread)

    async def wait_for_an_answer():
        async with AsyncRedisSaver.from_conn_string(checkpoint_server.url(0)) as own:
            await graph(own, asks=True).ainvoke({"said": ["hello"]}, on("waits"))

    asyncio.run(wait_for_an_answer())
    return graph(saver, subgraph=True)


@pytest.fixture
def of_valkey_saver(checkpoint_server, checkpoint_redis, monkeypatch):
    valkey = pytest.importorskip("valkey")
    module = pytest.importorskip("langgraph_checkpoint_aws.checkpoint.valkey")
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", checkpoint_server.url(2))
    saver = module.ValkeySaver(valkey.Valkey(port=checkpoint_server.port, password=checkpoint_server.password, db=2))
    for thread in ("user-1-a", "user-1:b", "user-2"):
        talk(graph(saver, subgraph=True), thread)
    graph(saver, asks=True).invoke({"said": ["hello"]}, on("waits"))
    return graph(saver, subgraph=True)


def check_moved(app, client):
    counted = move_conversations(dryrun=True)
    assert counted["success"], counted["error"]
    assert not list(client.scan_iter("lgc:*"))
    done = move_conversations()
    assert done["success"], done["error"]
    assert {**counted, "dryrun": 0, "seconds": 0, "run": 0} == {**done, "dryrun": 0, "seconds": 0, "run": 0}
    assert (done["threads_moved"], done["threads_failed"], done["checkpoints_present"]) == (4, 0, 0)
    moved = CompactRedisSaver(client)
    there = graph(moved, subgraph=True)
    for thread in ("user-1-a", "user-1:b", "user-2"):
        assert state(there, thread) == state(app, thread)
        # RedisSaver lists the subgraph's checkpoints with them.
        assert ids(there, thread) <= ids(app, thread)
        assert len(ids(there, thread)) == 8
    assert there.invoke({"said": ["more"]}, on("user-2"))["said"][0] == "40 days ago"
    assert graph(moved, asks=True).invoke(Command(resume="yes"), on("waits"))["said"][-1] == "you said yes"
    again = move_conversations(done["source"], "user-1*")
    assert (again["success"], again["threads_moved"], again["checkpoints_moved"]) == (True, 2, 0)
    assert again["checkpoints_present"] > 4
    run = MaintenanceRun.objects.filter(kind="moves").latest("created")
    assert (run.state, run.options["pattern"], run.counters["threads_moved"]) == ("succeeded", "user-1*", 2)


def test_from_redis_saver(of_redis_saver, checkpoint_redis):
    check_moved(of_redis_saver, checkpoint_redis)


def test_from_valkey_saver(of_valkey_saver, checkpoint_server):
    with checkpoint_server.client(2) as client:
        check_moved(of_valkey_saver, client)


def test_a_run_that_was_stopped_is_gone_on_with(of_redis_saver, checkpoint_redis, monkeypatch):
    calls = []

    def stop_at_the_third(self):
        calls.append(1)
        if len(calls) == 3:
            raise RunStoppedError("The run was told to stop.")

    with monkeypatch.context() as patch:
        patch.setattr("ai_ops.runs.lease_keeper.Keeper.confirm", stop_at_the_third)
        # A line of progress confirms too, on a machine that is slow enough for one.
        patch.setattr("ai_ops.checkpoints.conversation_moves.PROGRESS_SECONDS", 3600.0)
        stopped = move_conversations()
    assert (stopped["success"], stopped["threads_moved"]) == (False, 2)
    assert "told to stop" in stopped["error"]
    assert move_conversations()["threads_moved"] == 4


def test_a_conversation_that_cannot_be_read_stops_no_other(of_redis_saver, checkpoint_redis):
    for key in checkpoint_redis.scan_iter("checkpoint:user-2:__empty__:*"):
        checkpoint_redis.json().set(key, "$.checkpoint", "damaged")
    report = move_conversations("redis")
    assert (report["success"], report["threads_failed"]) == (False, 1)
    assert report["threads_moved"] == 3
    assert "Thread user-2" in report["errors"][0]


def test_where_no_other_saver_has_conversations_nothing_is_moved(checkpoint_redis, caplog):
    assert move_conversations()["success"] is True
    assert "There is nothing to move: agents use CompactRedisSaver" in caplog.text
    assert move_conversations("redis")["threads_moved"] == 0


def test_a_saver_that_cannot_work_there__a_sentence(checkpoint_server, checkpoint_redis, monkeypatch):
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", checkpoint_server.url(2))
    assert "RedisSaver can't work on" in move_conversations("redis")["error"]
    assert "source must be one of" in move_conversations("postgres")["error"]


def test_the_job(of_redis_saver):
    job = MoveConversationsJob()
    report = job.run(source="auto", pattern="user-2", dryrun=True)
    assert (report["threads_moved"], report["dryrun"]) == (1, True)
    assert MoveConversationsJob.Meta.name == "Move Conversations"


def test_options_of_a_run():
    asked = {"source": "valkey", "pattern": "a*", "dryrun": True}
    assert job_variables("moves", checked_options("moves", asked, None)) == asked
    for wrong in ({"source": "postgres"}, {"pattern": ""}, {"dryrun": "yes"}, {"target": "redis"}):
        with pytest.raises(RunOptionsError):
            checked_options("moves", wrong, None)
