"""Set-up that several acceptance tests have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.acceptance import local_processes
from tests.fakes.mcp_server import FakeMCPServer

if TYPE_CHECKING:
    from tests.acceptance.fault_world import World


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """A state folder, removed with what PostgreSQL had to keep elsewhere. The first start makes a database in it."""
    folder = tmp_path_factory.mktemp("services") / "state"
    yield folder
    local_processes.remove(folder)


@pytest.fixture(scope="package")
def worlds(tmp_path_factory) -> Iterator[World]:
    """The servers of all files with faults, for which Nautobot is set up once; one process runs these files."""
    from tests.acceptance.fault_world import running_world

    with running_world(tmp_path_factory.mktemp("faults")) as world:
        yield world


@pytest.fixture
def world(worlds):
    """The servers with no row, no key and no process of an earlier test."""
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
