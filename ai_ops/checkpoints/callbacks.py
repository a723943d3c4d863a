"""The callbacks by which the caller of a cleanup watches it, and stops it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ai_ops.checkpoints.logic.compact_plan import CompactDeletion, Look
from ai_ops.checkpoints.logic.deletion import Deletion, Outcome
from ai_ops.checkpoints.logic.keys import CheckpointKey
from ai_ops.checkpoints.logic.reports import ThreadReport


def _continue() -> None:
    """Let the run go on."""


def _never(scanned: int) -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Functions that a cleanup calls.

    Attributes:
        confirm: Called between batches; raises if the run may not go on.
        enough: Given the number of keys scanned so far, returns whether to stop the scan. Then nothing is decided: a
            thread may have a newer checkpoint among the keys that were not scanned.
        progress: Given a line on the progress of the run, at most once a second.
        on_keys: Given all keys of a part of the threads, before the cleanup decides on them.
        on_compact: Given some threads of CompactRedisSaver, before the cleanup decides on them.
        on_deletion: Given each deletion and its outcome.
        on_thread: Given the report of each thread that was deleted whole.
    """

    confirm: Callable[[], object] = _continue
    enough: Callable[[int], bool] = _never
    progress: Callable[[str], object] | None = None
    on_keys: Callable[[list[CheckpointKey]], object] | None = None
    on_compact: Callable[[Sequence[Look]], object] | None = None
    on_deletion: Callable[[Deletion | CompactDeletion, Outcome], object] | None = None
    on_thread: Callable[[ThreadReport], object] | None = None
