"""Retention policies: classes of threads with different retention in one cleanup.

The first policy that matches a thread, by weight, holds for it. What it leaves empty comes from the run. Nothing here
reads or writes. Times are seconds.
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
# Ten years; what is to stay for longer stays for ever.
MAX_DAYS = 3650
MAX_HOURS = 24 * MAX_DAYS

# A thread that no policy matches.
NO_POLICY = -1

_DURATION = re.compile(r"\s*(\d{1,6})\s*(h|hour|hours|d|day|days)\s*", re.IGNORECASE)
_FOREVER = re.compile(r"\s*(for\s?ever|always)\s*", re.IGNORECASE)


def read_duration(text: str) -> float:
    """Parse a retention such as ``12 hours``, ``30 days`` or ``forever``; return its seconds.

    Raises:
        ValueError: It is no such thing; the message is a sentence.
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
        name: Its name, which reports give.
        patterns: Globs over thread ids; a thread that one of them matches is of this policy.
        retention: Seconds past which a checkpoint may go; FOREVER for never.
        pending_retention: The same for threads that wait for an answer.
        trim_live_threads: Whether old checkpoints of live threads go.
        keep_last: Checkpoints that each namespace of a live thread keeps whatever their age.
        max_checkpoints: Checkpoints that each namespace has at most, whatever their age.
        max_bytes: Memory that a thread takes at most; its oldest checkpoints go first.
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
    """Finds the policy of a thread, in time that hardly depends on the number of policies.

    Nearly all patterns are an id, or the beginning or the end of one with a star: those are looked up. The others are
    one expression, for ids that end as one of them does.

    Args:
        policies: The policies, by weight: of those that match a thread the first holds.
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
        # A run looks at each thread: a loop for each kind of pattern takes less time than one for each name.
        for part, ranks in self._parts:
            look = ranks.get
            best = [
                rank if (rank := look(name[part], last)) < known else known
                for name, known in zip(names, best, strict=True)
            ]
        if self._other_ends:
            # The first that matches counts, and comparing takes longer than looking up.
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
        """Return the same as `ranks_of_each` for ids in braces, which few patterns can match."""
        return self.ranks_of_each(names) if self._may_be_braced else [NO_POLICY] * len(names)

    def ranks_of(self, names: Iterable[bytes]) -> tuple[int, ...]:
        """Return the places of the policies for all names that a thread may have, the likeliest name's first."""
        return tuple(dict.fromkeys(self.ranks_of_each(tuple(names))))

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of the policies."""
        return frozenset(policy.name for policy in self.policies)


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
