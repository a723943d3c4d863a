"""Reports of moves of conversations to another saver."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ai_ops.logic.foreign_text import printable

# Maximum number of errors. Usually all failures of a move have the same cause.
MAX_ERRORS = 20
SHOWN_THREAD = 120


@dataclass
class MoveReport:
    """The report of a run: the moves, or in a dry run the possible moves.

    Attributes:
        source: The saver of the original conversations: ``redis`` or ``valkey``.
        target: The saver of the copies.
        dryrun: Whether nothing was written.
        threads_moved: Number of conversations that are complete in the target, including existing ones.
        threads_failed: Number of conversations that could not be moved; the source has them unchanged.
        checkpoints_moved: Number of written checkpoints.
        checkpoints_present: Number of checkpoints that the target already had.
        writes_moved: Number of written pending writes.
        errors: The errors of the first failed conversations, as sentences.
        error: The reason why the run failed or ended early, as a sentence.
        seconds: Duration of the run.
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
        """Count a moved conversation."""
        self.threads_moved += 1
        self.checkpoints_moved += checkpoints
        self.checkpoints_present += present
        self.writes_moved += writes

    def add_failure(self, thread_id: str, why: str) -> None:
        """Count a failed conversation."""
        self.threads_failed += 1
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(f"Thread {printable(thread_id, SHOWN_THREAD)}: {printable(why)}")

    def failure(self) -> str | None:
        """Return a sentence about conversations that could not be moved; None if there are none."""
        if not self.threads_failed:
            return None
        return (
            f"{self.threads_failed} of {self.threads_failed + self.threads_moved} conversations could not be moved, "
            f"the first: {self.errors[0]} The source has them unchanged; the next run retries them."
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the result of `move_conversations`: `success`, and every attribute by its name, in a form for JSON."""
        error = self.error or self.failure()
        errors = self.errors or ([error] if error else [])
        return {"success": error is None, **asdict(self), "error": error, "errors": errors}
