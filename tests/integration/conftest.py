"""Set-up that all integration tests have in common."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

# Nautobot is imported in the fixtures: a process that only hands tests to others loads this file without it.


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
