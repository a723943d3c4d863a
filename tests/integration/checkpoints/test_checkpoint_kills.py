"""Wherever a cleanup is killed: live threads are whole, and the next run ends where it would have ended."""

from __future__ import annotations

import contextlib
import os

import pytest
from langgraph.checkpoint.redis import RedisSaver

from development import forks
from langgraph_checkpoint_compact import CompactRedisSaver
from tests.fakes import killed_runs
from tests.fakes.conversations import days_ago, graph, on
from tests.integration.checkpoints.test_checkpoint_acl import LAYOUTS

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def killed_everywhere(tmp_path_factory):
    """A function that cleans up in processes of which all but the last are killed."""
    log = tmp_path_factory.mktemp("kills") / "log"
    # Without Nautobot, which would be much to fork.
    forks.start_server(os.environ, log, killed_runs.__name__)

    def kill(server, days=30):
        ours, theirs = forks.CONTEXT.Pipe()
        arguments = (server.url(0), days, theirs)
        process = forks.CONTEXT.Process(target=killed_runs.kill_everywhere, args=arguments, daemon=True)
        process.start()
        theirs.close()
        assert ours.poll(120)
        with contextlib.suppress(EOFError):
            return ours.recv()
        raise AssertionError(log.read_text())

    return kill


@pytest.mark.parametrize("layout", LAYOUTS)
def test_killed_between_any_two_batches_the_next_run_converges(
    checkpoint_server, checkpoint_redis, killed_everywhere, layout
):
    LAYOUTS[layout](checkpoint_redis)
    result = killed_everywhere(checkpoint_server)
    assert result["wrong"] == []
    assert result["killed"] >= 15


@pytest.mark.parametrize("kind", [RedisSaver, CompactRedisSaver])
def test_after_all_those_kills_the_live_threads_are_what_they_were(
    checkpoint_server, checkpoint_redis, killed_everywhere, kind
):
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
