"""Servers and savers for the tests of langgraph_checkpoint_compact, which need no Nautobot."""

from __future__ import annotations

import pytest
import redis
from langgraph.checkpoint.memory import InMemorySaver

from langgraph_checkpoint_compact import CompactRedisSaver
from tests.fakes.redis_servers import plain_server
from tests.fakes.side_by_side import SideBySide

# Not 0, which the saver with modules is bound to.
DATABASE = 2


@pytest.fixture(scope="session")
def valkey_port():
    with plain_server("saver") as port:
        yield port


@pytest.fixture
def client(valkey_port):
    """A client of an empty database."""
    with redis.Redis(port=valkey_port, db=DATABASE) as client:
        client.flushall()
        yield client


@pytest.fixture(scope="session")
def url(valkey_port):
    return f"redis://127.0.0.1:{valkey_port}/{DATABASE}"


@pytest.fixture
def saver(client):
    return CompactRedisSaver(client)


@pytest.fixture
def both(saver):
    """The saver, and InMemorySaver beside it: each read is compared."""
    return SideBySide(saver, InMemorySaver(serde=saver.serde))
