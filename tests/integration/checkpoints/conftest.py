"""Set-up that tests of checkpoints have in common."""

from __future__ import annotations

import pytest

# LangGraph is imported in the fixtures: a process that only hands tests to others loads this file without it.


@pytest.fixture
def saver(checkpoint_redis):
    """RedisSaver, on an empty server; a test of another saver has a fixture of the same name."""
    from langgraph.checkpoint.redis import RedisSaver

    saver = RedisSaver(redis_client=checkpoint_redis)
    saver.setup()
    return saver


@pytest.fixture
def app(saver):
    """A conversation that is kept by it."""
    from tests.fakes.conversations import graph

    return graph(saver)
