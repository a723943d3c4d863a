"""Fast decisions on threads that need neither values from Redis nor a plan.

Nearly every key of a large database has one of a few shapes, and nearly every thread is entirely young or entirely
old. One regular expression parses a thousand such keys at once. Ids of UUID version 6 are compared as bytes, because
their bytes sort by time. `KeyParser` and `make_plan` handle all other threads: those with colons or braces in their
ids, subgraphs, other ids of checkpoints, mixed ages, or missing pointers. On the threads decided here they would decide
the same: a test compares both.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import ChainMap, Counter
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, compress
from math import inf
from operator import and_, attrgetter, ge, itemgetter, lt, not_

from ai_ops.checkpoints.logic.columns import Column, Layout, LayoutThreads, layout_threads
from ai_ops.checkpoints.logic.keys import VALKEY_DOCUMENT, Family, KeyParser
from ai_ops.checkpoints.logic.retention import RetentionPolicy
from ai_ops.checkpoints.logic.times import UUID_EPOCH
from ai_ops.checkpoints.logic.whole_threads import ID_BYTES, WholeThreads
from ai_ops.logic.policies import NO_POLICY

_HEX = "0123456789abcdef"
# Printable ASCII except colons and braces: then only the thread's id can be in its place. The quantifiers are
# possessive, because the next part of the pattern can't begin with a character of this one. That saves a fifth of the
# time.
_NAME = rb"[ -9;-z|~]{1,500}+"
# Lower ids are from before September 2020, near the oldest accepted time (EARLIEST).
_LATE_ENOUGH = rb"(?!0|1[0-9a-d]|1e[0-9a])"
_REST_OF_ID = rb"[0-9a-f]{8}-[0-9a-f]{4}-6[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_TASK = rb":[ -9;-z|~]{1,500}+:-?[0-9]{1,18}"
_MARK = b":__empty__"
# The same bound and form, for comparisons without a regular expression.
_EARLIEST = b"1eb"
_FORM_OF_ID = b"00000000-0000-0000-0000-000000000000\n"
_DIGITS = bytes.maketrans(b"123456789abcdef", b"0" * 15)
_id_of = itemgetter(slice(-ID_BYTES, None))


@dataclass(frozen=True)
class QuickDecisions:
    """The result for a part of the keys.

    Attributes:
        rest: The keys of the threads without a decision.
        kept_threads: The number of entirely young and complete threads, by the name of their policy.
        expired: The entirely old and complete threads, layout by layout.
    """

    rest: list[bytes]
    kept_threads: Counter[str]
    expired: list[WholeThreads]


# The name of a policy. Two ids: a thread expires if its newest id is below the first, and keeps all its checkpoints if
# its oldest id is not below the second. The number of checkpoints that is certainly within the policy's limits; None if
# it has no limits.
Bounds = tuple[str, bytes, bytes, int | None]
# The bounds of several threads, in columns.
BoundColumns = tuple[Sequence[str], Sequence[bytes], Sequence[bytes], Sequence[int | None]]


class _BoundsOfPolicies:
    """The bounds of policies, each computed once.

    Args:
        policy: The policy of the run.
        now: Seconds since 1970.
    """

    def __init__(self, policy: RetentionPolicy, now: float) -> None:
        self._policy = policy
        self._now = now
        # By the ranks of the policies that a thread may have.
        self._bounds: dict[tuple[int, ...], Bounds] = {}

    def are_of(self, policy: RetentionPolicy, now: float) -> bool:
        """Return whether these are the bounds of this policy at this time."""
        return self._policy is policy and self._now == now

    def of_each(self, names: Sequence[bytes], stems: Collection[bytes]) -> BoundColumns:
        """Return the bounds of threads, given by their ids and the stems of their keys.

        The possible ids of a thread may have different policies. Then it expires if all of them agree, and is kept if
        all of them agree. Otherwise only values can decide. Nearly always the first id is correct.
        """
        classes = self._policy.classes
        if classes is None:
            name, old, young, most = self._of_rank(NO_POLICY)
            return [name] * len(names), [old] * len(names), [young] * len(names), [most] * len(names)
        ranks = classes.ranks_of_each(names)
        others = self._ranks_in_braces(ranks, stems)
        possible = list(zip(ranks) if others is ranks else zip(ranks, others, strict=True))
        for some in set(possible) - self._bounds.keys():
            self._bounds[some] = _agreed([self._of_rank(rank) for rank in some])
        found = list(map(self._bounds.__getitem__, possible))
        return ([each[0] for each in found], [each[1] for each in found], [each[2] for each in found],
                [each[3] for each in found])  # fmt: skip

    def _ranks_in_braces(self, ranks: list[int], stems: Collection[bytes]) -> list[int]:
        """Return the ranks for the ids in braces; where a stem has no braces, the rank in `ranks`."""
        assert self._policy.classes is not None  # noqa: S101
        have_braces = [stem.endswith(b"}:") for stem in stems]
        if not any(have_braces):
            return ranks
        found = iter(self._policy.classes.ranks_of_braced([stem[:-1] for stem in compress(stems, have_braces)]))
        return [next(found) if has_braces else rank for has_braces, rank in zip(have_braces, ranks, strict=True)]

    def _of_rank(self, rank: int) -> Bounds:
        policy = self._policy.by_rank(rank)
        old = _id_at(self._now - max(policy.retention, policy.pending_retention))
        young = _id_at(self._now - policy.shortest)
        most = (policy.max_checkpoints or 0) if policy.max_bytes is None else 0
        return policy.name, old, young, most if policy.has_limits else None


class QuickKeys:
    """Parses keys of the usual shapes, many at a time, and decides on their threads.

    Args:
        parser: The parser of the other keys. This class uses its prefixes and its latest time.
    """

    def __init__(self, parser: KeyParser) -> None:
        prefixes = parser.prefixes
        self._document = prefixes.checkpoint.encode()
        self._write = prefixes.write.encode()
        self._pointer = self._document + b"_latest"
        heads = {self._document, VALKEY_DOCUMENT, self._pointer, self._write}
        heads |= {b"write_keys_zset", b"writes", b"thread"}
        others = {self._document + b"_blob", b"write_registry"}
        if _is_ambiguous([*heads, *others], 9 - (self._document == VALKEY_DOCUMENT)):
            heads = set()
        dated = heads - {self._write, self._pointer, b"thread"}
        latest = min(_first_tick_at(parser.latest) >> 28, 0xFFFFFFFF)
        self._latest = f"{latest:08x}".encode()
        checkpoint_id = _LATE_ENOUGH + rb"(?=" + _below(latest) + rb")" + _REST_OF_ID
        # Keys of the first two patterns have a time, and keys of the last need none, so no value has to be read. To
        # match the form of an id takes half of the time of its key. So the first pattern accepts any id, and
        # `_are_ids` checks all ids together.
        self._with_any_id, self._dated, self._others = [
            re.compile(rb"^(?:(?:" + _any(some) + rb"):\{?+(" + _NAME + rb")\}?+:" + rest + rb"|.*+)$", re.MULTILINE)
            for some, rest in (
                (dated, rb"(?:__empty__:|:)?+.{%d}" % ID_BYTES),
                (dated, rb"(?:__empty__:|:)?+" + checkpoint_id),
                (heads - dated, rb"(?:__empty__)?+(?::" + checkpoint_id + _TASK + rb")?"),
            )
        ]
        self._heads = heads
        self._bounds: _BoundsOfPolicies | None = None
        self._undated = frozenset((self._pointer, b"thread"))
        of_redis = {self._write: Family.WRITE, b"write_keys_zset": Family.REGISTRY}
        self._layouts = (
            Layout(self._document, b"", b"", b"", {}),
            Layout(self._document, b"", b":__empty__", self._pointer, of_redis),
            Layout(VALKEY_DOCUMENT, b"{", b"}:", b"thread", {b"writes": Family.WRITE}),
        )

    def threads_of(self, keys: Sequence[bytes]) -> list[bytes]:
        """Return the thread's id, without braces, for each key of a usual shape; empty for each other key.

        `KeyParser` does not need the values of these keys either.
        """
        if not keys:
            return []
        text = b"\n".join(keys)
        if text.count(b"\n") != len(keys) - 1:
            keys = [b"" if b"\n" in key else key for key in keys]
            text = b"\n".join(keys)
        names = self._with_any_id.findall(text)
        if not self._are_ids(list(map(_id_of, compress(keys, names)))):
            names = self._dated.findall(text)
        if not all(names):
            found = iter(self._others.findall(b"\n".join(compress(keys, map(not_, names)))))
            names = [name or next(found) for name in names]
        return names

    def _are_ids(self, ids: Sequence[bytes]) -> bool:
        """Return whether all of these are ids of version 6 with an accepted time."""
        if not ids:
            return True
        text = b"\n".join([*ids, b""])
        if text.translate(_DIGITS) != _FORM_OF_ID * len(ids):
            return False
        versions, variants = (text[place :: ID_BYTES + 1] for place in (14, 19))
        are_of_version_6 = versions.count(b"6") == len(ids) and not variants.strip(b"89ab")
        return are_of_version_6 and min(ids) >= _EARLIEST and max(ids)[:8] < self._latest

    def decide(
        self,
        text: bytes,
        with_other_keys: Iterable[bytes],
        policy: RetentionPolicy,
        now: float,
        between: Callable[[], object] = lambda: None,
    ) -> QuickDecisions:
        """Decide on the threads that are entirely young or entirely old.

        Args:
            text: Keys for which `threads_of` returned a thread, one per line. It must have all such keys of its
                threads.
            with_other_keys: The ids, without braces, of threads that also have keys of other shapes.
            policy: The retention policy.
            now: Seconds since 1970.
            between: Called between the steps, so that the caller can send Redis the next deletions. Each step takes a
                fraction of a millisecond for a thousand keys.
        """
        columns = self._columns(text)
        between()
        layouts = layout_threads(self._layouts, columns)
        between()
        unsure = self._unsure(layouts, columns).union(with_other_keys)
        between()
        if self._bounds is None or not self._bounds.are_of(policy, now):
            self._bounds = _BoundsOfPolicies(policy, now)
        kept: Counter[str] = Counter({policy.by_rank(NO_POLICY).name: 0})
        decided: list[dict[bytes, str]] = []
        expired = []
        for threads in filter(attrgetter("names"), layouts):
            to_delete, to_keep = _decided(threads, unsure, policy, self._bounds)
            between()
            kept.update(to_keep.values())
            decided += to_delete, to_keep
            if to_delete:
                expired.append(threads.whole(to_delete))
                between()
        if not unsure and sum(map(len, decided)) == sum(len(threads.names) for threads in layouts):
            return QuickDecisions([], kept, expired)
        known = set(chain.from_iterable(decided))
        rest = [column.without(known) for column in columns.values()]
        return QuickDecisions(list(chain.from_iterable(rest)), kept, expired)

    def _columns(self, text: bytes) -> dict[bytes, Column]:
        """Return the keys of each kind, by their first part."""
        # Sorted, the keys of a kind are consecutive.
        lines = sorted(text.split(b"\n"))
        found = {}
        for head in self._heads:
            if keys := lines[bisect_left(lines, head + b":") : bisect_left(lines, head + b";")]:
                parts_after_id = 2 if head == self._write else 0
                found[head] = Column(head, keys, None if head in self._undated else parts_after_id)
        return found

    def _unsure(self, layouts: Sequence[LayoutThreads], columns: Mapping[bytes, Column]) -> set[bytes]:
        """Return the ids that two threads share, and those of threads with a repeated key or one of no layout."""
        unsure: set[bytes] = set()
        if sum(bool(threads.names) for threads in layouts) > 1:
            unsure = _repeated([name for threads in layouts for name in threads.names.values()])
        # A scan may return a key twice. Columns aligned with the documents have the same repetitions as these.
        aligned = {id(column) for threads in layouts for column in threads.aligned}
        unaligned = [column for column in columns.values() if id(column) not in aligned]
        unsure.update(*(column.names_of(column.repeated()) for column in unaligned))
        unsure.update(*(threads.names_without_document() for threads in layouts))
        for head in {self._document, VALKEY_DOCUMENT} & columns.keys():
            documents = columns[head]
            if repeated := _repeated(documents.threads):
                unsure.update(documents.names_of(documents.of(repeated)))
            known = ChainMap(*(each.names for each in layouts if each.documents is documents))
            if sum(map(len, known.maps)) < len(documents.threads):
                unsure.update(documents.names_of(documents.without(known)))
        return unsure


def _decided(
    threads: LayoutThreads, unsure: Container[bytes], policy: RetentionPolicy, bounds: _BoundsOfPolicies
) -> tuple[dict[bytes, str], dict[bytes, str]]:
    """Return the names of the policies of the threads to delete, and of those to keep, by stem."""
    names = threads.complete()
    if unsure:
        names = {stem: name for stem, name in names.items() if name not in unsure}
    documents = threads.documents
    policies, old, young, most = bounds.of_each(list(names.values()), names)
    to_delete = dict(compress(zip(names, policies, strict=True), map(lt, documents.newest(names), old)))
    if not policy.covers_all:
        to_delete = {stem: each for stem, each in to_delete.items() if policy.covers(_possible(names[stem], stem))}
    are_young = map(ge, documents.oldest(names), young)
    if any(each is not None for each in set(most)):
        counts = map(documents.counts.__getitem__, names)
        within = [limit is None or number <= limit for number, limit in zip(counts, most, strict=True)]
        are_young = map(and_, are_young, within)
    return to_delete, dict(compress(zip(names, policies, strict=True), are_young))


def _agreed(bounds: Sequence[Bounds]) -> Bounds:
    """Return the bounds beyond which all of these bounds agree."""
    names, olds, youngs, limits = zip(*bounds, strict=True)
    return names[0], min(olds), max(youngs), min((each for each in limits if each is not None), default=None)


def _possible(name: bytes, stem: bytes) -> tuple[bytes, ...]:
    """Return the possible ids of a thread. Braces may be part of its id: ValkeySaver before 1.0.4 added none."""
    return (name, stem[:-1]) if stem.endswith(b"}:") else (name,)


def _repeated(names: Sequence[bytes]) -> set[bytes]:
    if len(names) == len(set(names)):
        return set()
    seen: set[bytes] = set()
    return {name for name in names if name in seen or seen.add(name)}  # type: ignore[func-returns-value]


def _any(heads: Iterable[bytes]) -> bytes:
    """Return a pattern of any of `heads`; without heads it matches nothing."""
    return b"|".join(map(re.escape, sorted(heads, key=len, reverse=True))) or rb"(?!)"


def _is_ambiguous(heads: Sequence[bytes], distinct: int) -> bool:
    """Return whether a configured prefix makes one kind of keys look like another, or is not printable ASCII."""
    if len(set(heads)) != distinct or not all(head.isascii() and head.decode().isprintable() for head in heads):
        return True
    return any(one != other and other.startswith(one + b":") for one in heads for other in heads)


def _first_tick_at(time: float) -> int:
    """Return the first count of 100 ns intervals whose time, which is rounded, is `time` or later."""
    tick = max(0, int(time * 1e7) + UUID_EPOCH)
    while (tick - UUID_EPOCH) / 1e7 >= time:
        tick -= 1
    while (tick - UUID_EPOCH) / 1e7 < time:
        tick += 1
    return tick


def _id_at(time: float) -> bytes:
    """Return the lower bound of ids of version 6 made at `time` or later; empty for minus infinity."""
    if time == -inf:
        return b""
    text = f"{_first_tick_at(time):015x}"
    return f"{text[:8]}-{text[8:12]}-6{text[12:]}".encode()


def _below(bound: int) -> bytes:
    """Return a pattern of eight hexadecimal digits that are less than `bound`."""
    digits = f"{bound:08x}"
    branches = [f"{digits[:at]}[{_HEX[: int(digit, 16)]}]" for at, digit in enumerate(digits) if digit != "0"]
    return rb"(?:" + ("|".join(branches) or "(?!)").encode() + rb")"
