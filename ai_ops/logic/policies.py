"""Retention policies, which give classes of threads different retentions in one cleanup.

The first policy that matches a thread, by weight, applies to it. The run provides its empty values. This module has no
input or output. Times are in seconds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat

from ai_ops.logic.globs import any_of, is_end, is_exact, is_start, literal_end

HOUR, DAY = 3_600.0, 86_400.0
FOREVER = math.inf
# Ten years. For a longer retention use forever.
MAX_DAYS = 3650
MAX_HOURS = 24 * MAX_DAYS

# The rank of a thread without a matching policy.
NO_POLICY = -1

_DURATION = re.compile(r"\s*(\d{1,6})\s*(h|hour|hours|d|day|days)\s*", re.IGNORECASE)
_FOREVER = re.compile(r"\s*(for\s?ever|always)\s*", re.IGNORECASE)


def read_duration(text: str) -> float:
    """Parse a retention such as ``12 hours``, ``30 days`` or ``forever``; return it in seconds.

    Raises:
        ValueError: The text is not a retention; the message is a sentence.
    """
    if _FOREVER.fullmatch(text):
        return FOREVER
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError("Enter a number of hours or days, such as 12 hours or 30 days, or forever.")
    number, unit = int(found[1]), HOUR if found[2][0] in "hH" else DAY
    if not HOUR <= number * unit <= MAX_DAYS * DAY:
        raise ValueError(f"Enter 1 hour to {MAX_DAYS} days, or forever.")
    return number * unit


def duration_text(seconds: float) -> str:
    """Return a retention as text, in days if it is whole days."""
    if math.isinf(seconds):
        return "forever"
    number, unit = (seconds / DAY, "day") if seconds % DAY == 0 else (seconds / HOUR, "hour")
    return f"{number:g} {unit}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class Policy:
    """A policy as a run applies it. A value of None comes from the run's options.

    Attributes:
        name: Its name in reports.
        patterns: Globs for thread ids; the policy applies to a thread that matches one of them.
        retention: Seconds after which a checkpoint may be deleted; FOREVER for never.
        pending_retention: Retention of threads that wait for a user's answer.
        trim_live_threads: Whether old checkpoints of live threads are deleted.
        keep_last: Minimum number of checkpoints that each namespace of a live thread keeps, regardless of age.
        max_checkpoints: Maximum number of checkpoints in each namespace, regardless of age.
        max_bytes: Maximum memory of a thread in bytes; its oldest checkpoints are deleted first.
    """

    name: str
    patterns: tuple[str, ...]
    retention: float | None = None
    pending_retention: float | None = None
    trim_live_threads: bool | None = None
    keep_last: int | None = None
    max_checkpoints: int | None = None
    max_bytes: int | None = None


class PolicyIndex:
    """Finds the policy of a thread, in time almost independent of the number of policies.

    Most patterns are an id, or its beginning or end with a star, and are looked up. The others form one regular
    expression, used for ids with a matching end.

    Args:
        policies: The policies by weight. The first that matches a thread applies to it.
    """

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.policies = tuple(policies)
        self._exact: dict[bytes, int] = {}
        starts: dict[int, dict[bytes, int]] = {}
        ends: dict[int, dict[bytes, int]] = {}
        others: list[tuple[int, str]] = []
        for rank, policy in enumerate(self.policies):
            for pattern in policy.patterns:
                if is_exact(pattern):
                    self._exact.setdefault(_encoded(pattern), rank)
                elif is_start(pattern):
                    start = _encoded(pattern[:-1])
                    starts.setdefault(len(start), {}).setdefault(start, rank)
                elif is_end(pattern):
                    end = _encoded(pattern[1:])
                    ends.setdefault(-len(end), {}).setdefault(end, rank)
                else:
                    others.append((rank, pattern))
        self._parts = [
            *((slice(length), ranks) for length, ranks in starts.items()),
            *((slice(length, None), ranks) for length, ranks in ends.items()),
        ]
        self._ranks = [len(self.policies), *(rank for rank, _ in others)]
        self._first_other = others[0][0] if others else 0
        self._others = any_of(pattern for _, pattern in others)
        self._other_ends = tuple({_encoded(literal_end(pattern)) for _, pattern in others})

        patterns = [pattern for policy in self.policies for pattern in policy.patterns]
        self._may_be_braced = any(each[0] in "*?[{" and each[-1] in "*?]}" for each in patterns)

    def __len__(self) -> int:
        """Return the number of policies."""
        return len(self.policies)

    def ranks_of_each(self, names: Sequence[bytes]) -> list[int]:
        """Return for each thread id the index of its policy, or NO_POLICY."""
        last = len(self.policies)
        best = list(map(self._exact.get, names, repeat(last)))
        # A run looks up every thread. A loop for each kind of pattern is faster than a loop for each name.
        for part, ranks in self._parts:
            look = ranks.get
            best = [
                rank if (rank := look(name[part], last)) < known else known
                for name, known in zip(names, best, strict=True)
            ]
        if self._other_ends:
            # The first matching policy counts, and the expression takes longer than the look-ups.
            first, ends = self._first_other, self._other_ends
            best = [
                self._with_others(name, known) if known > first and name.endswith(ends) else known
                for name, known in zip(names, best, strict=True)
            ]
        return [rank if rank < last else NO_POLICY for rank in best]

    def _with_others(self, name: bytes, best: int) -> int:
        found = self._others.match(name.decode(errors="surrogateescape"))
        return min(best, self._ranks[found.lastindex or 0]) if found else best

    def ranks_of_braced(self, names: Sequence[bytes]) -> list[int]:
        """Return the ranks, as `ranks_of_each`, for ids in braces, which few patterns can match."""
        return self.ranks_of_each(names) if self._may_be_braced else [NO_POLICY] * len(names)

    def ranks_of(self, names: Iterable[bytes]) -> tuple[int, ...]:
        """Return the ranks of the policies for all possible names of a thread, that of the most likely name first."""
        return tuple(dict.fromkeys(self.ranks_of_each(tuple(names))))

    @cached_property
    def names(self) -> frozenset[str]:
        """Return the names of the policies."""
        return frozenset(policy.name for policy in self.policies)


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
