"""All tests of langgraph-checkpoint-conformance, on each kind of server, for both savers."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager

import pytest
import redis
import redis.asyncio
from langgraph.checkpoint.conformance import checkpointer_test, validate
from redis.asyncio.cluster import RedisCluster as AsyncRedisCluster

from langgraph_checkpoint_compact import AsyncCompactRedisSaver, CompactRedisSaver
from tests.fakes.redis_servers import cluster_client, cluster_of_three, debian_redis, debian_server, plain_server

# What release 0.0.2 has: base and extended. A newer one may have more.
TESTS = 81


@contextmanager
def _modules():
    with plain_server("modules", modules=True) as port:
        yield port


SERVERS = {"valkey": lambda: plain_server("plain"), "debian redis": debian_server, "modules": _modules}


@pytest.fixture(scope="module", params=[*SERVERS, "cluster"])
def clients(request):
    """Makers of a synchronous and of an asynchronous client, of one server after the other."""
    if request.param == "debian redis" and debian_redis() is None:
        pytest.skip("no redis-server of the system is installed: apt-get install redis-server")
    if request.param == "cluster":
        with cluster_of_three() as port:
            yield lambda: cluster_client(port), lambda: AsyncRedisCluster(host="127.0.0.1", port=port)
        return
    with SERVERS[request.param]() as port:
        # Database 2, which most savers with modules can't use.
        yield lambda: redis.Redis(port=port, db=2), lambda: redis.asyncio.Redis(port=port, db=2)


def assert_conforms(factory):
    report = asyncio.run(validate(factory))
    failures = {name: result.failures for name, result in report.results.items() if result.failures}
    assert failures == {}
    assert sum(result.tests_passed for result in report.results.values()) >= TESTS
    assert all(result.detected for result in report.results.values())


def test_the_synchronous_saver_conforms(clients):
    @checkpointer_test(name="CompactRedisSaver")
    async def factory():
        with clients[0]() as client:
            yield CompactRedisSaver(client)

    assert_conforms(factory)


def test_the_asynchronous_saver_conforms(clients):
    @checkpointer_test(name="AsyncCompactRedisSaver")
    async def factory():
        async with clients[1]() as client:
            yield AsyncCompactRedisSaver(client)

    assert_conforms(factory)
