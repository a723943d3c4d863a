"""A cleanup that was replaced by another deletes nothing more, whatever it had prepared."""

from __future__ import annotations

import uuid
from functools import partial

import pytest
from django.db import transaction

from ai_ops.celery_tasks import cleanup_old_checkpoints
from ai_ops.checkpoints.callbacks import Callbacks
from ai_ops.checkpoints.cleanup import DELETIONS_PER_BATCH
from ai_ops.checkpoints.redis.fence import Fence
from ai_ops.exceptions import LeaseLostError
from ai_ops.runs import lease as leases
from development.bench_cleanup import OLD_DAYS, plain_thread
from tests.fakes.cleanups import run_of

KEY = "ai_ops:fence:test"
KEYS = 5 * DELETIONS_PER_BATCH  # two of each thread


@pytest.fixture
def old_threads(checkpoint_redis):
    """Two and a half batches of them."""
    with checkpoint_redis.pipeline(transaction=False) as pipeline:
        for number in range(KEYS // 2):
            for command in plain_thread(number, OLD_DAYS):
                pipeline.execute_command(*command)
        pipeline.execute()
    return checkpoint_redis


def locked(lease):
    with transaction.atomic():
        lease.lock()


def test_a_cleanup_leaves_no_fence_behind(old_threads):
    assert cleanup_old_checkpoints(30)["deleted_count"] == KEYS
    assert old_threads.dbsize() == 0


def test_a_dry_run_writes_no_fence(old_threads):
    assert cleanup_old_checkpoints(30, dryrun=True)["deleted_count"] == KEYS
    assert old_threads.dbsize() == KEYS


def test_what_was_prepared_before_the_takeover_is_not_deleted_after_it(old_threads):
    first = leases.acquire("cleanup", "stopped", uuid.uuid4(), 0.0)
    left = []

    def taken_over_after_the_first_batch():
        # Called before each batch, and after each step of the scan. The run may not know at once that it lost.
        if not left and old_threads.dbsize() < KEYS:
            second = leases.acquire("cleanup", "woken", uuid.uuid4(), 0.0)
            Fence(KEY, second.fence, partial(locked, second)).claim(
                lambda source, keys, values: old_threads.eval(source, len(keys), *keys, *values)
            )
            # Only now: Redis may have been at work on calls that were sent before.
            left.append(old_threads.dbsize())

    run = run_of(
        old_threads,
        fence=Fence(KEY, first.fence, lambda: None),
        callbacks=Callbacks(confirm=taken_over_after_the_first_batch),
    )
    with pytest.raises(LeaseLostError, match="taken over"):
        run.execute()
    assert [old_threads.dbsize()] == left
    assert 0 < left[0] < KEYS
    assert old_threads.get(KEY) == b"2"


def test_who_comes_too_late_to_write_the_fence_down_deletes_nothing(old_threads):
    first = leases.acquire("cleanup", "stopped", uuid.uuid4(), 0.0)
    leases.acquire("cleanup", "the next, which has ended", uuid.uuid4(), 60.0).release()
    with pytest.raises(LeaseLostError):
        run_of(old_threads, fence=Fence(KEY, first.fence, partial(locked, first))).execute()
    assert old_threads.dbsize() == KEYS


def test_a_lower_number_does_not_replace_a_higher_one(old_threads):
    old_threads.set(KEY, 7)
    with pytest.raises(LeaseLostError, match="taken over"):
        run_of(old_threads, fence=Fence(KEY, 6, lambda: None)).execute()
    assert old_threads.dbsize() == KEYS + 1


def test_the_fence_of_a_killed_run_holds_up_no_run(old_threads):
    old_threads.set(KEY, 6)
    run_of(old_threads, fence=Fence(KEY, 7, lambda: None)).execute()
    assert old_threads.dbsize() == 0
