"""The fence of a run, which Redis compares."""

from __future__ import annotations

from functools import partial

from django.db import transaction

from ai_ops.checkpoints.redis.fence import Fence
from ai_ops.runs.decisions import Hold


def fence_of(hold: Hold) -> Fence:
    """Return the fence for the deletions of the run with this `hold`."""
    return Fence(hold.fence_key, hold.fence, partial(_locked, hold))


def _locked(hold: Hold) -> None:
    with transaction.atomic():
        hold.lock()
