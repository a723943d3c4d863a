"""Mass outages: servers with the same kind of problem in one run share an incident."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

# Two servers may fail by chance within ten minutes. Three probably have a common cause.
MASS_OUTAGE_SERVERS = 3

Each = TypeVar("Each")


def shared_incidents(servers: Sequence[Each]) -> list[Sequence[Each]]:
    """Return the servers of each incident to open: one incident for all servers, or one for each if they are few."""
    return [servers] if len(servers) >= MASS_OUTAGE_SERVERS else [[each] for each in servers]
