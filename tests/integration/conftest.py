"""Set-up that all integration tests have in common."""

from __future__ import annotations

import os
from contextlib import ExitStack

import pytest

from tests import worker_forks

# Nautobot is imported in the fixtures: a process that only hands tests to others loads this file without it.


@pytest.fixture(scope="session")
def django_db_setup(django_db_blocker):
    """The database of this process: a copy, which needs no migration."""
    name = f"{os.environ['AI_OPS_TEST_DATABASE']}_{os.environ.get('PYTEST_XDIST_WORKER', '')}"
    with django_db_blocker.unblock():
        if not worker_forks.is_fork:
            worker_forks.use_migrated_database()
        with worker_forks.copied_database(name):
            yield


@pytest.fixture
def admin(db):
    """A user who may do everything."""
    from django.contrib.auth import get_user_model

    return get_user_model().objects.create_superuser("admin", password="secret")


@pytest.fixture
def running_jobs(db):
    """Jobs that may run, a worker that Nautobot believes to have seen, and no schedule."""
    from tests.fakes.jobs import let_jobs_run

    let_jobs_run()


@pytest.fixture(autouse=True)
def pauses():
    """Let the pauses between two rounds of probes be short; a test of the pause calls this with its seconds."""
    from tests.fakes.runs import with_pauses

    with ExitStack() as stack:

        def set_pauses(seconds: float) -> None:
            stack.enter_context(with_pauses(seconds))

        set_pauses(0.02)
        yield set_pauses


@pytest.fixture
def redis_retries():
    """Give runs other delays between their tries of a Redis that is away; called with the seconds of each."""
    from tests.fakes.runs import with_redis_retries

    with ExitStack() as stack:
        yield lambda *seconds: stack.enter_context(with_redis_retries(*seconds))
