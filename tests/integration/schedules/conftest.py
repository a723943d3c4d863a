"""Set-up that all tests of schedules have in common."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_schedules(db):
    """Leave out the provisioned schedules, so that a test finds its own alone."""
    # Here, since a process that only hands tests to others loads this file without Nautobot.
    from tests.fakes.jobs import delete_schedules

    delete_schedules()
