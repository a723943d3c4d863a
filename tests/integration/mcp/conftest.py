"""Set-up that all tests of MCP servers have in common."""

from __future__ import annotations

import pytest

from tests.fakes.certificates import CertificateAuthority
from tests.fakes.mcp_server import FakeMCPServer, gzip_bomb

# Nautobot is imported in the fixtures: a process that only hands tests to others loads this file without it.


@pytest.fixture(autouse=True)
def no_schedules(request):
    """Leave out the provisioned schedules, which become late while the suite runs, and then are incidents."""
    if request.node.get_closest_marker("django_db"):
        request.getfixturevalue("db")
        from tests.fakes.jobs import delete_schedules

        delete_schedules()


@pytest.fixture
def up():
    """A server that is well."""
    with FakeMCPServer().running() as server:
        yield server


@pytest.fixture
def down():
    """A server that answers with an error."""
    with FakeMCPServer(health_status=500).running() as server:
        yield server


@pytest.fixture(scope="module")
def server():
    """A server with all of the faults, which takes nothing over from one test to the next."""
    from ai_ops.mcp.http.tls import ssl_context

    # Both are made once a process, and are no part of what a probe takes.
    gzip_bomb()
    ssl_context()
    with FakeMCPServer().running() as running:
        yield running


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """An authority that signs certificates."""
    return CertificateAuthority.make(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def user(db):
    """A user who may do everything."""
    from django.contrib.auth import get_user_model

    return get_user_model().objects.create_superuser("oncall", password="-")


@pytest.fixture
def job(db):
    """The Job of the health checks, enabled."""
    from ai_ops.schedules import find_job

    found = find_job("health")
    found.enabled = True
    found.validated_save()
    return found
