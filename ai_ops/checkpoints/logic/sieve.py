"""Decisions on threads that are plain to see from their keys. Times are seconds since 1970."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ai_ops.checkpoints.logic.deletion import Deletion, Reason
from ai_ops.checkpoints.logic.keys import CheckpointKey, Family, readings, stem_of
from ai_ops.checkpoints.logic.retention import RetentionPolicy


@dataclass(frozen=True)
class Sieved:
    """Keys sorted into those of threads that need thought and those that do not.

    Attributes:
        keys: The keys of the threads that need it.
        kept_threads: How many threads are young in every part, and complete, by the name of their policy.
        deletions: Threads of nothing but old checkpoints.
    """

    keys: list[CheckpointKey]
    kept_threads: Counter[str]
    deletions: list[Deletion]


def sieve(keys: Iterable[CheckpointKey], policy: RetentionPolicy, now: float) -> Sieved:
    """Decide on the threads that are young in every part or hold old checkpoints alone, which are most.

    `make_plan` decides the same of them, but builds a thread of their keys first, which takes ten times as
    long. Whatever is not plain to see is left to it.
    """
    groups: dict[bytes, list[CheckpointKey]] = {}
    unsure: set[bytes] = set()
    for key in keys:
        groups.setdefault(key[1], []).append(key)
        if not key[6]:
            # It may be of a thread whose other keys say so: a plain key of "a:b" looks like namespace b of "a".
            unsure.update(name for name, _ in readings(stem_of(key)))
    oldest, longest = now - policy.shortest, now - max(policy.retention, policy.pending_retention)
    sieved = Sieved([], Counter(), [])
    held = policy
    for name, group in groups.items():
        if policy.classes is not None:
            held = policy.of((name,))
            oldest, longest = now - held.shortest, now - max(held.retention, held.pending_retention)
        times = [key[4] for key in group if key[0] == Family.DOCUMENT]
        if not times or None in times or name in unsure or not all(key[6] for key in group):
            sieved.keys.extend(group)
        elif len(times) == len(group) and max(times) < longest and _ends_in_ids(group) and policy.covers((name,)):  # type: ignore[type-var, operator]
            documents = tuple(dict.fromkeys(key[5] for key in group))
            keys_of = {Family.DOCUMENT: documents}
            sieved.deletions.append(Deletion(name, Reason.EXPIRED, (), (), (), keys_of, 1, max(times), held.name))  # type: ignore[type-var]
        elif min(times) >= oldest and _is_complete(group) and (not held.has_limits or _is_within(held, times)):  # type: ignore[type-var, operator]
            sieved.kept_threads[held.name] += 1
        else:
            sieved.keys.extend(group)
    return sieved


def _ends_in_ids(documents: list[CheckpointKey]) -> bool:
    return all(key[3] and key[5].endswith(key[3]) for key in documents)


def _is_within(policy: RetentionPolicy, times: Sequence[float | None]) -> bool:
    """Return whether so many checkpoints are surely within the limits."""
    return policy.max_bytes is None and len(times) <= (policy.max_checkpoints or 0)


def _is_complete(group: list[CheckpointKey]) -> bool:
    """Return whether all that a thread has belongs to a checkpoint of it, and nothing can be a stub."""
    families = {key[0] for key in group}
    if families == {Family.DOCUMENT}:
        return True
    owners = {key[3] for key in group if key[0] == Family.DOCUMENT}
    pointed = {key[2] for key in group if key[0] == Family.POINTER}
    satellites = (Family.WRITE, Family.REGISTRY)
    return (
        Family.BLOB not in families
        and all(key[2] in pointed for key in group)
        and all(key[3] in owners for key in group if key[0] in satellites)
    )
