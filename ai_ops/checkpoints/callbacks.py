"""Callbacks with which the caller of a cleanup observes and stops it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ai_ops.checkpoints.logic.compact_plan import CompactDeletion, Look
from ai_ops.checkpoints.logic.deletion import Deletion, Outcome
from ai_ops.checkpoints.logic.keys import CheckpointKey
from ai_ops.checkpoints.logic.reports import ThreadReport


def _continue() -> None:
    """Let the run continue."""


def _never(scanned: int) -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Functions that a cleanup calls.

    Attributes:
        confirm: Called between batches; raises an error if the run may not continue.
        enough: Called with the number of scanned keys; returns whether to stop the scan. After a stop nothing is
            decided, because a thread may have a newer checkpoint among the remaining keys.
        progress: Called with a line about the progress of the run, at most once a second.
        on_keys: Called with all keys of a part of the threads, before the cleanup decides about them.
        on_compact: Called with some threads of CompactRedisSaver, before the cleanup decides about them.
        on_deletion: Called with each deletion and its outcome.
        on_thread: Called with the report of each thread that was deleted whole.
    """

    confirm: Callable[[], object] = _continue
    enough: Callable[[int], bool] = _never
    progress: Callable[[str], object] | None = None
    on_keys: Callable[[list[CheckpointKey]], object] | None = None
    on_compact: Callable[[Sequence[Look]], object] | None = None
    on_deletion: Callable[[Deletion | CompactDeletion, Outcome], object] | None = None
    on_thread: Callable[[ThreadReport], object] | None = None
