"""Requests to a server: the logic yields them, and one of the two drivers carries them out.

The logic consists of generators that yield requests and receive the answers. They do no input or output, so the
synchronous and the asynchronous saver share them.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from langgraph_checkpoint_compact.scripts import Script

Argument = bytes | str | int


@dataclass(frozen=True, slots=True)
class Run:
    """Run a script on the two keys of a thread; the driver sends back its answer."""

    script: Script
    keys: tuple[bytes, bytes]
    arguments: Sequence[Argument]


@dataclass(frozen=True, slots=True)
class Command:
    """Send one command on keys of one thread; the driver sends back its answer."""

    arguments: Sequence[Argument]


@dataclass(frozen=True, slots=True)
class ScanPage:
    """Scan the next part of all keys; the driver sends back matching keys and the next position, None at the end."""

    pattern: bytes
    position: ScanPosition | None = None


@dataclass(frozen=True, slots=True)
class ScanPosition:
    """The position at which a scan continues: the number of the cluster's primary, and the cursor there."""

    node: int = 0
    cursor: int = 0


Request = Run | Command | ScanPage
Result = TypeVar("Result")
Item = TypeVar("Item")

Steps = Generator[Request, Any, Result]
"""Steps that end with one result."""


@dataclass(frozen=True, slots=True)
class Found:
    """One item of a result that is read piece by piece; not a request."""

    item: Any


Pieces = Generator[Request | Found, Any, None]
"""Steps that yield items between requests."""
