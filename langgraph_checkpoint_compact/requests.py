"""Requests to a server, which the logic asks for and one of the two drivers carries out.

The logic is written as generators that yield requests and are sent the answers. There is no input or output in them,
so that one logic serves the synchronous and the asynchronous saver.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from langgraph_checkpoint_compact.scripts import Script

Argument = bytes | str | int


@dataclass(frozen=True, slots=True)
class Run:
    """Run a script on the two keys of a thread; its answer is sent back."""

    script: Script
    keys: tuple[bytes, bytes]
    arguments: Sequence[Argument]


@dataclass(frozen=True, slots=True)
class Command:
    """Send one command, whose keys are those of one thread; its answer is sent back."""

    arguments: Sequence[Argument]


@dataclass(frozen=True, slots=True)
class ScanPage:
    """Look at the next part of all keys; sends back the keys that match and where to go on, None at the end."""

    pattern: bytes
    position: ScanPosition | None = None


@dataclass(frozen=True, slots=True)
class ScanPosition:
    """The place where a scan goes on: the number of the cluster's primary, and the cursor there."""

    node: int = 0
    cursor: int = 0


Request = Run | Command | ScanPage
Result = TypeVar("Result")
Item = TypeVar("Item")

Steps = Generator[Request, Any, Result]
"""Ends with one result."""


@dataclass(frozen=True, slots=True)
class Found:
    """Not a request: one item of a result that is read piece by piece."""

    item: Any


Pieces = Generator[Request | Found, Any, None]
"""Gives items on the way."""
