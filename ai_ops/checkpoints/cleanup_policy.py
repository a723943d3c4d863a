"""The retention of a run of the cleanup, from its options and the memory of Redis."""

from __future__ import annotations

from ai_ops.checkpoints.logic.keys import KeyPrefixes
from ai_ops.checkpoints.logic.pins import Pins
from ai_ops.checkpoints.logic.retention import DAY, RetentionPolicy
from ai_ops.checkpoints.redis.store import CheckpointStore
from ai_ops.config import CleanupOptions
from ai_ops.exceptions import ConfigurationError
from ai_ops.logic.policies import PolicyIndex

MIB = 1024 * 1024


def cleanup_policy(
    store: CheckpointStore,
    prefixes: KeyPrefixes,
    options: CleanupOptions,
    pins: Pins,
    classes: PolicyIndex | None = None,
) -> tuple[RetentionPolicy, str]:
    """Return the retention policy of a run, and a sentence that explains it.

    Args:
        store: The Redis, which reports its memory if the retention depends on it.
        prefixes: The prefixes of RedisSaver's keys.
        options: The requested and configured options.
        pins: The threads that are pinned now.
        classes: The policies of classes of threads; None if there are none.

    Raises:
        ConfigurationError: The retention depends on memory, and the Redis user may not read it.
        CheckpointStoreError: Redis failed for longer than the run retries.
    """
    days, why = options.retention_days, ""
    if options.memory_limit_mb is not None and options.memory_retention_days is not None:
        used = store.memory()
        if used is None:
            raise ConfigurationError(
                "memory_limit_mb needs the INFO command: grant +info to the Redis user, or remove the limit."
            )
        over = used > options.memory_limit_mb * MIB
        days = min(days, options.memory_retention_days) if over else days
        why = f", since {used / MIB:.0f} MiB are {'over' if over else 'within'} the limit of {options.memory_limit_mb}"
    pending = options.pending_retention_days
    policy = RetentionPolicy(
        retention=days * DAY,
        pending_retention=(days if pending is None else pending) * DAY,
        trim_live_threads=options.trim_live_threads,
        keep_last=options.keep_last,
        thread_pattern=options.thread_pattern,
        pinned=pins.ids,
        pinned_globs=pins.globs,
        prefixes=prefixes,
        classes=classes,
    )
    sentence = f"{days:g} days for idle threads{why}; {pending or days:g} days for threads that wait for an answer; "
    sentence += f"live threads keep the last {options.keep_last}" if options.trim_live_threads else "live threads stay"
    sentence += f"; only threads {options.thread_pattern}" if options.thread_pattern else ""
    sentence += f"; {len(classes)} {'policy' if len(classes) == 1 else 'policies'} for other threads" if classes else ""
    count = len(pins.ids) + len(pins.globs)
    return policy, sentence + (f"; {count} pinned" if count else "") + "."
