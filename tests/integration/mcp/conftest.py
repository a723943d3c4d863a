"""Set-up that all tests of MCP servers have in common."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_schedules(request):
    """Leave out the provisioned schedules, which become late while the suite runs, and then are incidents."""
    if request.node.get_closest_marker("django_db"):
        request.getfixturevalue("db")
        # Here, since a process that only hands tests to others loads this file too, and has no Nautobot.
        from nautobot.extras.models import ScheduledJob

        # Nothing refers to them yet. To look for that, and to tell beat of each, took a twentieth of these tests' time.
        ScheduledJob.objects.all()._raw_delete("default")
