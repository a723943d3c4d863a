"""Counters for Prometheus in the database. They survive restarts and the deletion of the counted rows.

Each counter is a row, increased in the transaction that ends a run or saves checks. Several rows are increased in the
order of their keys, which prevents deadlocks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import connection

from ai_ops.logic.histogram_buckets import CHECK_BUCKETS, RUN_BUCKETS
from ai_ops.models.totals import BUCKETS, Total

# The first part of a key; the other parts are the labels. Reasons and kinds contain no slash.
RUNS, CHECKS, KEYS, THREADS = "runs", "checks", "keys", "threads"
SEPARATOR = "/"
WELL = "OK"
COLUMNS = ("count", "size", *(f"bucket_{place}" for place in range(1, BUCKETS + 1)))
# The statement contains only names of the app.
ADD_SQL = f"""
INSERT INTO ai_ops_total (id, key, {", ".join(COLUMNS)}) VALUES {{values}}
ON CONFLICT (key) DO UPDATE SET {", ".join(f"{name} = ai_ops_total.{name} + EXCLUDED.{name}" for name in COLUMNS)}
"""  # noqa: S608


@dataclass
class Increment:
    """An addition to one total."""

    count: int = 0
    size: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * BUCKETS)

    def add(self, seconds: float, ends: Sequence[float]) -> None:
        """Add an event of this duration."""
        self.count += 1
        self.size += seconds
        place = bisect_left(ends, seconds)
        # A longer duration than the last range is only in the count.
        if place < BUCKETS:
            self.buckets[place] += 1


@dataclass(frozen=True)
class Counted:
    """The current value of a total.

    Attributes:
        name: The name, the first part of its key.
        labels: The other parts of its key.
        count: The number of events.
        size: The sum of the sizes of the events.
        buckets: The number of events in each range, not cumulative.
    """

    name: str
    labels: tuple[str, ...]
    count: int
    size: float
    buckets: tuple[int, ...]


def count_run(
    kind: str, outcome: str, milliseconds: int | None = None, counters: Mapping[str, Any] | None = None
) -> None:
    """Count an ended run, its working time, and its deletions."""
    run = Increment()
    run.add((milliseconds or 0) / 1000, RUN_BUCKETS)
    increments = {_key(RUNS, kind, outcome): run}
    if counters and not counters.get("dryrun"):
        for name, counter in ((KEYS, "deleted_count"), (THREADS, "threads_deleted")):
            if (number := counters.get(counter)) and isinstance(number, int):
                increments[_key(name, kind)] = Increment(number)
    raise_totals(increments)


def count_checks(checks: Iterable[tuple[str, float]]) -> None:
    """Count checks of servers by reason (empty for a passed check), with their milliseconds."""
    increments: dict[str, Increment] = defaultdict(Increment)
    for reason, milliseconds in checks:
        increments[_key(CHECKS, reason or WELL)].add(milliseconds / 1000, CHECK_BUCKETS)
    raise_totals(increments)


def raise_totals(increments: Mapping[str, Increment]) -> None:
    """Increase totals in one statement; a missing total starts at 0."""
    # In the order of their keys, since this is the order of the locks.
    rows = [(key, each.count, each.size, *each.buckets) for key, each in sorted(increments.items())]
    if not rows:
        return
    values = ", ".join([f"(gen_random_uuid(), {', '.join(['%s'] * len(rows[0]))})"] * len(rows))
    with connection.cursor() as cursor:
        # Django's upsert would replace the old values instead of adding to them.
        cursor.execute(ADD_SQL.format(values=values), [value for row in rows for value in row])


def totals() -> Iterator[Counted]:
    """Return all totals, with one query."""
    for key, count, size, *buckets in Total.objects.values_list("key", *COLUMNS):
        name, *labels = key.split(SEPARATOR)
        yield Counted(name, tuple(labels), count, size, tuple(buckets))


def _key(*parts: str) -> str:
    return SEPARATOR.join(parts)
