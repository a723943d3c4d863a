"""Set-up that several acceptance tests have in common."""

from __future__ import annotations

import pytest

from tests.acceptance import local_processes
from tests.fakes.mcp_server import FakeMCPServer


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """A state folder, removed with what PostgreSQL had to keep elsewhere. The first start makes a database in it."""
    folder = tmp_path_factory.mktemp("services") / "state"
    yield folder
    local_processes.remove(folder)


@pytest.fixture
def world(worlds):
    """The servers of the file with no row, no key and no process of an earlier test."""
    worlds.forget()
    return worlds


@pytest.fixture
def server():
    """A server that is well."""
    with FakeMCPServer().running() as server:
        yield server


@pytest.fixture
def recovered(world, server):
    """A server that is well and not known to be: the next run flips it, after two pauses."""
    from tests.acceptance import fault_processes

    world.do(fault_processes.add_server, "Tickets", server.url, "Unhealthy")
    return server
