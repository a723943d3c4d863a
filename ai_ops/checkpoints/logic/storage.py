"""Statistics of the checkpoint Redis: ages, savers, the oldest and the largest threads.

This module has no input or output. Times are seconds since 1970.
"""

from __future__ import annotations

import heapq
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from ai_ops.checkpoints.logic.compact_plan import Look, State, time_of_id
from ai_ops.checkpoints.logic.keys import VALKEY_LIST, KeyParser
from ai_ops.checkpoints.logic.lookups import Facts
from ai_ops.checkpoints.logic.plan import waits_for_answer
from ai_ops.checkpoints.logic.reports import text_of
from ai_ops.checkpoints.logic.retention import DAY, RetentionPolicy
from ai_ops.checkpoints.logic.threads import Thread
from ai_ops.logic.largest import Largest

SHOWN_THREADS = 10
SHOWN_CHARACTERS = 120  # of a thread's id
SHOWN_MISSING_PINS = 1000
# Limits on the measured keys: a random sample of all keys, and some keys of the threads with the most keys.
SIZED_KEYS = 1000
SIZED_THREADS = 50
SIZED_KEYS_PER_THREAD = 50
MAX_DAY_BARS = 31
MAX_WEEK_BARS = 53  # a year; the last one includes older keys


@dataclass(frozen=True)
class StorageReport:
    """The report of one sampling of the checkpoint storage.

    Attributes:
        error: The reason why it failed, as a sentence.
        server: The description by `ai_ops.checkpoints.connection.CheckpointRedis`; None if its user may not call INFO.
        memory_bytes: Memory of the whole server; None if its user may not read it.
        evicted_keys: Keys evicted since the start of the server; None if its user may not read it.
        database_keys: Number of all keys in the database.
        scanned_keys: Number of scanned keys.
        complete: Whether all keys were scanned. If not, threads may have further keys.
        checkpoint_keys: Number of keys that are checkpoints or belong to one.
        thread_count: Number of their threads.
        families: `checkpoint_keys` by family.
        savers: Number of threads by saver.
        checkpoint_bytes: Memory of the checkpoint keys, estimated from `sized_keys` of them; None if not measurable.
        sized_keys: Number of measured keys.
        ages: Bars of a chart, newest first: `label`, `keys`, `threads`.
        age_unit: Unit of the labels: "day" or "week".
        undated_keys: Number of keys of unknown age.
        oldest_threads: `thread`, `keys`, `last_activity` (ISO time) of the ten threads with the oldest last activity.
        largest_threads: `thread`, `keys`, `bytes`, `last_activity` of the ten largest among those measured.
        pin_count: Number of pinned threads.
        missing_pins: Pinned threads without keys in Redis; None if unknown or too many.
        cleanup: The counts and the policy of a cleanup at that time, as in `CleanupReport`; None if not all keys were
            scanned.
        max_memory_bytes: Memory limit of the server, Redis' ``maxmemory``; None without a limit, or if unknown.
        policies: The counts of a cleanup by the name of each retention policy: `threads_deleted`, `threads_kept`,
            `checkpoints_trimmed`, `deleted_count`; under the empty name for threads under no policy. Empty without.
        states: Threads by state: `pinned`, `waiting` (for an answer), `idle`.
        seconds: Duration of the sampling.
    """

    error: str | None = None
    server: dict[str, Any] | None = None
    memory_bytes: int | None = None
    evicted_keys: int | None = None
    database_keys: int = 0
    scanned_keys: int = 0
    complete: bool = True
    checkpoint_keys: int = 0
    thread_count: int = 0
    families: dict[str, int] = field(default_factory=dict)
    savers: dict[str, int] = field(default_factory=dict)
    checkpoint_bytes: int | None = None
    sized_keys: int = 0
    ages: list[dict[str, Any]] = field(default_factory=list)
    age_unit: str = "day"
    undated_keys: int = 0
    oldest_threads: list[dict[str, Any]] = field(default_factory=list)
    largest_threads: list[dict[str, Any]] = field(default_factory=list)
    pin_count: int = 0
    missing_pins: list[str] | None = None
    cleanup: dict[str, Any] | None = None
    max_memory_bytes: int | None = None
    policies: dict[str, dict[str, int]] = field(default_factory=dict)
    states: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the result of `sample_checkpoint_storage` for JSON: `success`, and every attribute by name."""
        return {"success": self.error is None, **asdict(self)}


@dataclass(order=True)
class _Entry:
    """A thread in a heap: its sort key, a number for ties, and its data."""

    rank: float
    number: int
    row: dict[str, Any] = field(compare=False)
    keys: Sequence[bytes] = field(compare=False, default=())


class StorageTally:
    """Counts the content of threads in constant memory.

    Args:
        now: The time from which ages are counted.
        pins: Ids of the pinned threads.
        globs: Globs for the ids of further pinned threads.
    """

    def __init__(self, now: float, pins: frozenset[str], globs: frozenset[str] = frozenset()) -> None:
        self.thread_count = self.checkpoint_keys = self.undated_keys = 0
        self.families: Counter[str] = Counter()
        self.savers: Counter[str] = Counter()
        self.states: Counter[str] = Counter()
        self.missing_pins = set(pins)
        self._now = now
        self._pins = RetentionPolicy(0, 0, pinned=pins, pinned_globs=globs)
        self._keys_by_day: Counter[int] = Counter()
        self._threads_by_day: Counter[int] = Counter()
        self._oldest = Largest[_Entry](SHOWN_THREADS)
        self._most_keys = Largest[_Entry](SIZED_THREADS)
        self._sample = Largest[tuple[int, bytes]](SIZED_KEYS)

    def add(self, threads: Iterable[Thread], interrupts: frozenset[bytes] = frozenset()) -> None:
        """Count threads with all their keys.

        Args:
            threads: The threads.
            interrupts: Their writes that are interrupts, if this is not in the key.
        """
        facts = Facts(interrupts=interrupts)
        for thread in threads:
            self._add_state(thread.names, waits_for_answer(thread, facts))
            self.thread_count += 1
            self.savers[saver_of(thread)] += 1
            active = thread.last_activity()
            if active is not None:
                self._threads_by_day[self._day(active)] += 1
            self._add_pins(thread.names)
            keys = self._add_keys(_keys_of(thread), active)
            self._add_to_lists(thread.names[0], active, keys, len(keys))

    def add_compact(
        self, looks: Iterable[Look], parser: KeyParser, waiting: Mapping[Look, bool | None] | None = None
    ) -> None:
        """Count threads of CompactRedisSaver."""
        for look in looks:
            if look.state == State.GONE:
                continue
            self.thread_count += 1
            self.savers["CompactRedisSaver"] += 1
            self._add_state((look.thread.name,), bool(waiting and waiting.get(look)))
            active = time_of_id(look.newest, parser)
            if active is not None:
                self._threads_by_day[self._day(active)] += 1
            self._add_pins((look.thread.name,))
            there = zip(look.thread.keys, (look.thread.has_hash, look.thread.has_ids), strict=True)
            keys = self._add_keys((("compact threads", key, active) for key, has in there if has), active)
            # It always has two keys, so the number of checkpoints estimates its size.
            self._add_to_lists(look.thread.name, active, keys, max(len(keys), look.checkpoints))

    def sample(self) -> list[bytes]:
        """Return a thousand keys, chosen by their checksums as a random sample, or all if there are fewer."""
        return [key for _, key in self._sample]

    def candidates(self) -> list[bytes]:
        """Return keys of the threads with the most keys, up to fifty of each."""
        return [key for entry in self._most_keys for key in entry.keys]

    def oldest(self) -> list[dict[str, Any]]:
        """Return the threads with the oldest last activity."""
        return [entry.row for entry in self._oldest]

    def largest(self, sizes: Mapping[bytes, int]) -> list[dict[str, Any]]:
        """Return the largest of the threads with the most keys; `sizes` has the bytes of some keys of each."""
        rows = [entry.row | {"bytes": _scaled(entry, sizes)} for entry in self._most_keys]
        return heapq.nlargest(SHOWN_THREADS, rows, key=lambda row: row["bytes"] or 0)

    def bars(self) -> tuple[str, list[dict[str, Any]]]:
        """Return the unit of the chart, and its bars."""
        return age_bars(self._keys_by_day, self._threads_by_day)

    def _add_state(self, names: tuple[bytes, ...], waits: bool) -> None:
        self.states["pinned" if not self._pins.covers(names) else "waiting" if waits else "idle"] += 1

    def _add_pins(self, names: tuple[bytes, ...]) -> None:
        if not self._pins.covers(names):
            self.missing_pins -= {name.decode(errors="surrogateescape") for name in names}

    def _add_keys(self, of_thread: Iterable[tuple[str, bytes, float | None]], active: float | None) -> list[bytes]:
        keys: list[bytes] = []
        for family, key, time in of_thread:
            keys.append(key)
            self.families[family] += 1
            # Pointers and blobs have no time, so they have the age of their thread.
            if (dated := time if time is not None else active) is None:
                self.undated_keys += 1
            else:
                self._keys_by_day[self._day(dated)] += 1
            self._sample.add((-zlib.crc32(key), key))
        self.checkpoint_keys += len(keys)
        return keys

    def _add_to_lists(self, name: bytes, active: float | None, keys: Sequence[bytes], rank: int) -> None:
        row = {"thread": shown_id(name), "keys": len(keys), "last_activity": _iso(active)}
        if active is not None:
            self._oldest.add(_Entry(-active, self.thread_count, row))
        step = -(-len(keys) // SIZED_KEYS_PER_THREAD)
        self._most_keys.add(_Entry(rank, self.thread_count, row, keys[::step]))

    def _day(self, time: float) -> int:
        return max(0, int((self._now - time) // DAY))


def saver_of(thread: Thread) -> str:
    """Return the saver that wrote a thread, by the keys beside its checkpoints."""
    spaces = thread.namespaces.values()
    if any(pointer.startswith(VALKEY_LIST) for space in spaces for pointer in space.pointers):
        return "ValkeySaver"
    if any(space.blobs for space in spaces):
        return "RedisSaver 0.0.x or JavaScript"
    if any(space.is_shallow for space in spaces):
        return "Shallow savers"
    if any(space.pointers or space.satellites for space in spaces):
        return "RedisSaver"
    return "plain keys"


def age_bars(keys_by_day: Mapping[int, int], threads_by_day: Mapping[int, int]) -> tuple[str, list[dict[str, Any]]]:
    """Return the bars of a chart of counts by age: one per day up to a month, else one per week up to a year.

    Returns:
        "day" or "week", and the bars, newest first: `label` (the age in this unit; the last label may end in "+" and
        includes older keys), `keys`, `threads`.
    """
    oldest = max([*keys_by_day, *threads_by_day], default=0)
    unit, days, limit = ("day", 1, MAX_DAY_BARS) if oldest < MAX_DAY_BARS else ("week", 7, MAX_WEEK_BARS)
    count = min(oldest // days + 1, limit)
    bars = [{"label": str(number), "keys": 0, "threads": 0} for number in range(count)]
    for name, counts in (("keys", keys_by_day), ("threads", threads_by_day)):
        for day, number in counts.items():
            bars[min(day // days, count - 1)][name] += number  # type: ignore[operator]
    if oldest // days >= limit:
        bars[-1]["label"] = f"{limit - 1}+"
    return unit, bars


def shown_id(name: bytes) -> str:
    """Return a thread's id as text for every database, cut to a length for tables."""
    text = text_of(name)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"


def _keys_of(thread: Thread) -> Iterator[tuple[str, bytes, float | None]]:
    """Yield the family of each key, the key, and its own time."""
    for space in thread.namespaces.values():
        yield from (("checkpoints", document.key, document.time) for document in space.documents.values())
        yield from (("pointers", pointer, None) for pointer in set(space.pointers))
        yield from {("writes and registries", each.key, each.time) for each in space.satellites}
        yield from (("blobs", blob, None) for blob in set(space.blobs))


def _scaled(entry: _Entry, sizes: Mapping[bytes, int]) -> int | None:
    """Return the memory of all keys of a thread, estimated from the measured ones."""
    measured = [sizes[key] for key in entry.keys if key in sizes]
    return round(sum(measured) / len(measured) * entry.row["keys"]) if measured else None


def _iso(time: float | None) -> str | None:
    return None if time is None else datetime.fromtimestamp(time, tz=UTC).isoformat(timespec="seconds")
