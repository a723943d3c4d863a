"""Wherever a cleanup is killed: live threads are whole, and the next run ends where it would have ended."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from langgraph.checkpoint.redis import RedisSaver

from development.services import PROJECT
from langgraph_checkpoint_compact import CompactRedisSaver
from tests.fakes.conversations import days_ago, graph, on
from tests.integration.checkpoints.test_checkpoint_acl import LAYOUTS

pytestmark = pytest.mark.django_db


def killed_everywhere(server, days=30):
    command = [sys.executable, "-m", "tests.fakes.killed_runs", server.url(0), str(days)]
    run = subprocess.run(command, cwd=PROJECT, capture_output=True, timeout=120)
    assert run.returncode == 0, run.stderr.decode()
    return json.loads(run.stdout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_killed_between_any_two_batches_the_next_run_converges(checkpoint_server, checkpoint_redis, layout):
    LAYOUTS[layout](checkpoint_redis)
    result = killed_everywhere(checkpoint_server)
    assert result["wrong"] == []
    assert result["killed"] >= 15


@pytest.mark.parametrize("kind", [RedisSaver, CompactRedisSaver])
def test_after_all_those_kills_the_live_threads_are_what_they_were(checkpoint_server, checkpoint_redis, kind):
    if kind is RedisSaver:
        saver = RedisSaver(redis_client=checkpoint_redis)
        saver.setup()
    else:
        saver = CompactRedisSaver(checkpoint_redis)
    app = graph(saver, subgraph=True)
    for number in range(3):
        with days_ago(40):
            app.invoke({"said": ["hello"]}, on(f"old-{number}"))
            app.invoke({"said": ["hello"]}, on(f"live-{number}"))
        app.invoke({"said": ["again"]}, on(f"live-{number}"))
    states = [app.get_state(on(f"live-{number}")) for number in range(3)]
    assert killed_everywhere(checkpoint_server)["wrong"] == []
    assert [app.get_state(on(f"live-{number}")) for number in range(3)] == states
    assert app.invoke({"said": ["more"]}, on("live-0"))["said"][0] == "hello"
    assert not list(checkpoint_redis.scan_iter("*:*old-*"))
