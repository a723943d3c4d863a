"""Results of a search for threads, as values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

# Maximum number of rows on a page. For more threads the user must narrow the pattern.
SHOWN_THREADS = 200

PINNED, WAITING, IDLE, ERASED = "pinned", "waiting", "idle", "erased"


@dataclass(frozen=True)
class FoundThread:
    """A found thread.

    Attributes:
        thread: Its id.
        saver: The saver that wrote it.
        last_activity: Time of its newest checkpoint, ISO 8601 in UTC; None if unknown.
        checkpoints: Number of its checkpoints.
        keys: Number of its keys.
        bytes: Approximate memory of its keys in Redis; None if unknown.
        state: ``idle``, ``waiting`` (for an answer), ``pinned``, or ``erased``, without keys.
        policy: The name of its retention policy; empty for the configured options.
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
        pattern: The glob for thread ids.
        error: The reason why the search failed, as a sentence.
        looked_at: Approximate number of scanned keys.
        database_keys: Number of keys in the database.
        complete: Whether all keys were scanned.
        thread_count: Number of matching threads with keys.
        key_count: Number of their keys.
        threads: The most recently active threads, and erased ones.
        seconds: Duration of the search.
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
        """Return the result of `find_threads`: `success`, and every attribute by its name, in a form for JSON."""
        return {
            "success": self.error is None,
            **asdict(self),
            "threads": [asdict(each) for each in self.threads],
        }


def state_of(*, pinned: bool, waits: bool) -> str:
    """Return the state of an existing thread."""
    return PINNED if pinned else WAITING if waits else IDLE
