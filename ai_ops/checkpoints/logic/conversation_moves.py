"""Reports of moves of conversations to another saver."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ai_ops.logic.foreign_text import printable

# Of a large move with one cause of failure the first few say it all.
MAX_ERRORS = 20
SHOWN_THREAD = 120


@dataclass
class MoveReport:
    """The report of one run: what it moved, or in a dry run would have moved.

    Attributes:
        source: The saver that the conversations were read from: ``redis`` or ``valkey``.
        target: The saver that they were written to.
        dryrun: Whether nothing was written.
        threads_moved: Conversations that are whole in the target, those that were there already included.
        threads_failed: Conversations that could not be moved; the source has them as they were.
        checkpoints_moved: Checkpoints written.
        checkpoints_present: Those that the target had already.
        writes_moved: Pending writes written.
        errors: What was wrong with the first conversations that failed, each in a sentence.
        error: Why the run failed, or came to an early end, in a sentence.
        seconds: How long it took.
    """

    source: str
    target: str
    dryrun: bool = False
    threads_moved: int = 0
    threads_failed: int = 0
    checkpoints_moved: int = 0
    checkpoints_present: int = 0
    writes_moved: int = 0
    errors: list[str] = field(default_factory=list)
    error: str | None = None
    seconds: float = 0.0

    def add_thread(self, checkpoints: int, present: int, writes: int) -> None:
        """Count a conversation that was moved."""
        self.threads_moved += 1
        self.checkpoints_moved += checkpoints
        self.checkpoints_present += present
        self.writes_moved += writes

    def add_failure(self, thread_id: str, why: str) -> None:
        """Count a conversation that was not moved."""
        self.threads_failed += 1
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(f"Thread {printable(thread_id, SHOWN_THREAD)}: {printable(why)}")

    def failure(self) -> str | None:
        """Return a sentence about conversations that could not be moved; None if there are none."""
        if not self.threads_failed:
            return None
        return (
            f"{self.threads_failed} of {self.threads_failed + self.threads_moved} conversations could not be moved, "
            f"the first: {self.errors[0]} The source has them as they were; the next run tries them again."
        )

    def as_dict(self) -> dict[str, Any]:
        """The result of `move_conversations`: `success`, and every attribute by its name, fit for JSON."""
        error = self.error or self.failure()
        errors = self.errors or ([error] if error else [])
        return {"success": error is None, **asdict(self), "error": error, "errors": errors}
