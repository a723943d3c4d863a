"""Statistics of the checkpoint Redis: ages, savers, the oldest and the largest threads.

Nothing here reads or writes. Times are seconds since 1970.
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
# A fat key is found among the keys of the threads that have most, or by chance among these.
SIZED_KEYS = 1000
SIZED_THREADS = 50
SIZED_KEYS_PER_THREAD = 50
MAX_DAY_BARS = 31
MAX_WEEK_BARS = 53  # a year; the last one takes what is older


@dataclass(frozen=True)
class StorageReport:
    """The report of one sampling of the checkpoint storage.

    Attributes:
        error: Why it found nothing, in a sentence.
        server: What `ai_ops.checkpoints.connection.CheckpointRedis` says of it; None where its user may not call INFO.
        memory_bytes: Memory the whole server uses; None where its user may not ask.
        evicted_keys: Keys that the server evicted since it started; None likewise.
        database_keys: Keys in the database, of whatever kind.
        scanned_keys: So many of them were looked at.
        complete: Whether those were all. If not, threads may have more keys than were seen.
        checkpoint_keys: Keys that are checkpoints or belong to one.
        thread_count: Threads they are of.
        families: `checkpoint_keys` by what they hold.
        savers: Threads by the saver that wrote them.
        checkpoint_bytes: What the checkpoint keys take, estimated from `sized_keys` of them; None if not measurable.
        sized_keys: How many keys were measured for that.
        ages: Bars of a chart, newest first: `label`, `keys`, `threads`.
        age_unit: What the labels count: "day" or "week".
        undated_keys: Keys whose age nothing tells.
        oldest_threads: `thread`, `keys`, `last_activity` (ISO time) of the ten longest idle.
        largest_threads: `thread`, `keys`, `bytes`, `last_activity` of the ten largest among those measured.
        pin_count: Pinned threads.
        missing_pins: Those of which nothing is in Redis; None where that is not known, or they are too many.
        cleanup: What a cleanup would have done then: the counts and the policy of `CleanupReport`; None where
            not all keys were looked at.
        max_memory_bytes: Memory the server may use, Redis' ``maxmemory``; None where it has no limit or does not say.
        policies: By the name of each retention policy what a cleanup would do: `threads_deleted`, `threads_kept`,
            `checkpoints_trimmed`, `deleted_count`; under the empty name for threads under no policy. Empty without.
        states: Threads by state: `pinned`, `waiting` (for an answer), `idle`.
        seconds: How long the sampling took.
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
        """The result of `sample_checkpoint_storage`: `success`, and every attribute by its name, fit for JSON."""
        return {"success": self.error is None, **asdict(self)}


@dataclass(order=True)
class _Entry:
    """A thread in a heap: what it is ordered by, a number that settles ties, and what is told of it."""

    rank: float
    number: int
    row: dict[str, Any] = field(compare=False)
    keys: Sequence[bytes] = field(compare=False, default=())


class StorageTally:
    """Counts the content of threads in constant memory.

    Args:
        now: The moment ages are counted from.
        pins: Ids of the pinned threads.
        globs: Globs over the ids of others.
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
            interrupts: Those of their writes that are interrupts, where the key does not say so.
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
        """Count threads of CompactRedisSaver, by what is known of each."""
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
            # Its keys are always two: how large it may be its checkpoints say.
            self._add_to_lists(look.thread.name, active, keys, max(len(keys), look.checkpoints))

    def sample(self) -> list[bytes]:
        """Keys chosen by their checksums, which is as good as by chance: a thousand, or all if there are fewer."""
        return [key for _, key in self._sample]

    def candidates(self) -> list[bytes]:
        """Keys of the threads that have most, up to fifty of each."""
        return [key for entry in self._most_keys for key in entry.keys]

    def oldest(self) -> list[dict[str, Any]]:
        """Return the threads that have been idle longest."""
        return [entry.row for entry in self._oldest]

    def largest(self, sizes: Mapping[bytes, int]) -> list[dict[str, Any]]:
        """The largest of the threads that have most keys; `sizes` are bytes by key, for some keys of each."""
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
            # Pointers and blobs carry no time: they are as old as their thread.
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
    """Bars of a chart from counts by age in days: one a day up to a month, else one a week up to a year.

    Returns:
        "day" or "week", and the bars, newest first: `label` (the age in that unit; the last one may end in "+"
        and takes what is older too), `keys`, `threads`.
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
    """A thread's id as text that every database takes, cut where it is too long for a table."""
    text = text_of(name)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"


def _keys_of(thread: Thread) -> Iterator[tuple[str, bytes, float | None]]:
    """Yield the family of each key, the key, and the time that it carries."""
    for space in thread.namespaces.values():
        yield from (("checkpoints", document.key, document.time) for document in space.documents.values())
        yield from (("pointers", pointer, None) for pointer in set(space.pointers))
        yield from {("writes and registries", each.key, each.time) for each in space.satellites}
        yield from (("blobs", blob, None) for blob in set(space.blobs))


def _scaled(entry: _Entry, sizes: Mapping[bytes, int]) -> int | None:
    """Bytes of all keys of a thread, from the measured ones."""
    measured = [sizes[key] for key in entry.keys if key in sizes]
    return round(sum(measured) / len(measured) * entry.row["keys"]) if measured else None


def _iso(time: float | None) -> str | None:
    return None if time is None else datetime.fromtimestamp(time, tz=UTC).isoformat(timespec="seconds")
