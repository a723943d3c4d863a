"""The checkpoints as a run uses them: under its fence, which Redis compares."""

from __future__ import annotations

from functools import partial

import redis
from django.db import transaction

from ai_ops.checkpoints.logic.keys import KeyParser
from ai_ops.checkpoints.redis.fence import Fence
from ai_ops.checkpoints.redis.store import CheckpointStore
from ai_ops.runs.hold import Hold


def store_of(hold: Hold, client: redis.Redis, parser: KeyParser) -> CheckpointStore:
    """Return the checkpoints for the run with this `hold`. Deletions compare its fence."""
    return CheckpointStore(client, parser, fence=_fence_of(hold), retry_delays=hold.redis_retry_delays)


def _fence_of(hold: Hold) -> Fence:
    return Fence(hold.fence_key, hold.fence, partial(_locked, hold))


def _locked(hold: Hold) -> None:
    with transaction.atomic():
        hold.lock()
