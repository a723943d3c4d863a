"""The processes that run tests at the same time."""

from __future__ import annotations

import os

import pytest
from django.core.cache import cache
from django.db import connections
from django_redis import get_redis_connection

from tests import worker_forks

IMPORTED_BY = os.getpid()


@pytest.mark.django_db(databases=["default", "job_logs"])
def test_each_has_a_cache_and_a_database_of_its_own():
    cache.set("asked by", os.getpid())
    used = get_redis_connection().connection_pool.connection_kwargs
    assert (used["port"], used["password"]) == (int(os.environ["NAUTOBOT_REDIS_PORT"]), f"correct horse {os.getpid()}")
    for connection in connections.all():
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_database()")
            (name,) = cursor.fetchone()
        assert name.startswith(os.environ["AI_OPS_TEST_DATABASE"])
        assert name.endswith(os.environ.get("PYTEST_XDIST_WORKER", ""))


def test_each_has_the_tests_from_the_process_that_it_is_a_fork_of():
    assert (os.getppid() if worker_forks.is_fork else os.getpid()) == IMPORTED_BY


def test_a_failed_assertion_tells_the_values():
    found = ["this"]
    with pytest.raises(AssertionError, match=r"assert \['this'\] == \['that'\]"):
        assert found == ["that"]
