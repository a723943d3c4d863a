"""Results of a search for threads, as values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

# Rows of a page; a pattern that matches more is to be narrower.
SHOWN_THREADS = 200

PINNED, WAITING, IDLE, ERASED = "pinned", "waiting", "idle", "erased"


@dataclass(frozen=True)
class FoundThread:
    """A thread that a search has found.

    Attributes:
        thread: Its id.
        saver: The saver that wrote it.
        last_activity: When its newest checkpoint was made, ISO 8601 in UTC; None where nothing tells.
        checkpoints: How many it has.
        keys: Its keys.
        bytes: About what they take in Redis; None where that is not known.
        state: ``idle``, ``waiting`` (for an answer), ``pinned``, or ``erased``: an erasure has taken it, and nothing of
            it is there.
        policy: The name of the retention policy that holds; empty for the configured options.
    """

    thread: str
    saver: str = ""
    last_activity: str | None = None
    checkpoints: int = 0
    keys: int = 0
    bytes: int | None = None
    state: str = IDLE
    policy: str = ""


@dataclass(frozen=True)
class SearchReport:
    """The report of a search.

    Attributes:
        pattern: The glob over thread ids.
        error: Why nothing was found out, in a sentence.
        looked_at: About how many keys were looked at.
        database_keys: How many keys there are.
        complete: Whether all were looked at.
        thread_count: Threads that match, of which something is there.
        key_count: Their keys.
        threads: The ones that were active last, and those that were erased.
        seconds: How long it took.
    """

    pattern: str
    error: str | None = None
    looked_at: int = 0
    database_keys: int = 0
    complete: bool = False
    thread_count: int = 0
    key_count: int = 0
    threads: tuple[FoundThread, ...] = ()
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The result of `find_threads`: `success`, and every attribute by its name, fit for JSON."""
        return {
            "success": self.error is None,
            **asdict(self),
            "threads": [asdict(each) for each in self.threads],
        }


def state_of(*, pinned: bool, waits: bool) -> str:
    """Return the state of an existing thread."""
    return PINNED if pinned else WAITING if waits else IDLE
