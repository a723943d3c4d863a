"""The shortest way from keys to decisions, for the threads of which nothing has to be asked or weighed.

Nearly every key of a large database has one of a few shapes, and nearly every thread is young in every part or
old in every part. One regular expression takes a thousand such keys apart at once, and ids of UUID version 6
are compared as they are: their bytes sort as their times do. Whatever is not plain to see (colons or braces in a
thread's id, subgraphs, other ids, mixed ages, missing pointers) is left to `KeyParser` and `make_plan`, which
would decide the same of what is decided here: a test holds both against each other.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from math import inf

from ai_ops.checkpoints.logic.deletion import Deletion, Guard, Reason
from ai_ops.checkpoints.logic.keys import VALKEY_DOCUMENT, Family, KeyParser
from ai_ops.checkpoints.logic.retention import RetentionPolicy
from ai_ops.checkpoints.logic.threads import Document
from ai_ops.checkpoints.logic.times import UUID_EPOCH
from ai_ops.logic.policies import NO_POLICY

# A key taken apart: the key, its head, its stem (all that the keys of one thread have in common) and its id.
Row = tuple[bytes, bytes, bytes, bytes]

_HEX = "0123456789abcdef"
# Printable ASCII but colons and braces: then nothing but the thread's id can be in its place.
_NAME = rb"[ -9;-z|~]{1,500}"
# Ids that begin with less are of before September 2020, near where times end to be believed (EARLIEST).
_LATE_ENOUGH = rb"(?!0|1[0-9a-d]|1e[0-9a])"
_REST_OF_ID = rb"[0-9a-f]{8}-[0-9a-f]{4}-6[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_TASK = rb":[ -9;-z|~]{1,500}:-?[0-9]{1,18}"
_MARK = b":__empty__"


@dataclass(frozen=True)
class QuickDecisions:
    """The result for a part of the keys.

    Attributes:
        rest: The keys of the threads that need more thought.
        kept_threads: How many threads are young in every part, and complete, by the name of their policy.
        deletions: The threads that are old in every part, and complete. Made one by one as they are asked for:
            meanwhile Redis can work on those before.
    """

    rest: list[bytes]
    kept_threads: Counter[str]
    deletions: Iterator[Deletion]


# The name of a policy; ids below the first go whole, and none of those from the second on goes; the number of
# checkpoints that surely are within the policy's limits, None where it has none.
Cut = tuple[str, bytes, bytes, int | None]


class _Cuts:
    """The ids at which policies cut, each worked out once."""

    def __init__(self, policy: RetentionPolicy, now: float) -> None:
        self._policy = policy
        self._now = now

    def of_each(self, names: Sequence[bytes], stems: Iterable[bytes]) -> Iterable[Cut]:
        """Return the cuts of threads, given by the beginnings of their keys too.

        Where the possible names of a thread are of several policies, it goes if all of them say so, and stays if all
        do. What is between is for values to tell. Nearly always the first name is the thread's.
        """
        classes = self._policy.classes
        if classes is None:
            return repeat(self._cut(NO_POLICY), len(names))
        ranks = classes.ranks_of_each(names)
        cuts = {rank: self._cut(rank) for rank in set(ranks)}
        found = [cuts[rank] for rank in ranks]
        braced = {place: stem[:-1] for place, stem in enumerate(stems) if stem.endswith(b"}:")}
        for (place, _), other in zip(braced.items(), classes.ranks_of_braced(tuple(braced.values())), strict=True):
            if other != ranks[place]:
                found[place] = _agreed([found[place], self._cut(other)])
        return found

    def _cut(self, rank: int) -> Cut:
        policy = self._policy.by_rank(rank)
        old = _id_at(self._now - max(policy.retention, policy.pending_retention))
        young = _id_at(self._now - policy.shortest)
        most = (policy.max_checkpoints or 0) if policy.max_bytes is None else 0
        return policy.name, old, young, most if policy.has_limits else None


class QuickKeys:
    """Takes keys of the usual shapes apart, many at a time.

    Args:
        parser: What takes the other keys apart: its prefixes and its idea of the future are taken over.
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
        latest = _first_tick_at(parser.latest) >> 28
        checkpoint_id = _LATE_ENOUGH + rb"(?=" + _below(latest) + rb")" + _REST_OF_ID
        # Of the first kind all keys carry a time, of the second kind none needs one: nothing has to be read.
        self._shapes = re.compile(
            rb"^(?:(?:" + _any(dated) + rb"):\{?(" + _NAME + rb")\}?:(?:__empty__:|:)?" + checkpoint_id
            + rb"|(?:" + _any(heads - dated) + rb"):\{?(" + _NAME + rb")\}?:(?:__empty__)?"
            + rb"(?::" + checkpoint_id + _TASK + rb")?"
            + rb"|.*)$",
            re.MULTILINE,
        )  # fmt: skip
        self._rows = re.compile(
            rb"^((?:(" + _any(heads) + rb"):(" + _NAME + rb"(?::__empty__)?|\{" + _NAME + rb"\}:)"
            # That it is an id `_shapes` has made sure of.
            rb"(?::([0-9a-f-]{36})(?:" + _TASK + rb")?)?)|.*)$",
            re.MULTILINE,
        )
        self._of_valkey = frozenset((VALKEY_DOCUMENT, b"thread", b"writes"))
        self._of_redis = frozenset((self._document, self._pointer, self._write, b"write_keys_zset"))
        self._satellites = {self._write: Family.WRITE, b"write_keys_zset": Family.REGISTRY, b"writes": Family.WRITE}

    def threads_of(self, keys: Sequence[bytes]) -> list[bytes]:
        """The thread's id, without braces, for each key of a usual shape; empty for each of the others.

        Of a key with an answer the value has nothing to add to what `KeyParser` makes of it.
        """
        if not keys:
            return []
        text = b"\n".join(keys)
        if text.count(b"\n") != len(keys) - 1:
            text = b"\n".join([b"" if b"\n" in key else key for key in keys])
        return [first or second for first, second in self._shapes.findall(text)]

    def decide(self, text: bytes, busy: Iterable[bytes], policy: RetentionPolicy, now: float) -> QuickDecisions:
        """Decide on the threads that are young or old in every part.

        Args:
            text: Keys of which `threads_of` gave the thread, each on a line; all there are of their threads but
                those that it did not recognise.
            busy: The ids, without braces, of threads that have such others.
            policy: What may go.
            now: Seconds since 1970.
        """
        groups, rest, unsure = self._grouped(text, busy)
        names = list(map(_name_of, groups))
        if len(set(names)) < len(names):
            unsure |= _repeated(names)
        cuts = _Cuts(policy, now).of_each(names, groups)
        covers_all = policy.covers_all
        kept: Counter[str] = Counter({policy.by_rank(NO_POLICY).name: 0})
        expired = []
        for name, (stem, rows), (held, old, young, most) in zip(names, groups.items(), cuts, strict=True):
            if name not in unsure:
                # All rows are as long; making sure of that takes a tenth of the time.
                _, heads, _, ids = zip(*rows)  # noqa: B905
                if self._is_whole(stem, heads, ids):
                    newest = max(ids)
                    if newest < old:
                        if covers_all or policy.covers(_possible(name, stem)):
                            expired.append((name, rows, newest, held))
                            continue
                    # A pointer has no id.
                    elif (min(ids) or min(filter(None, ids))) >= young and (most is None or _is_within(most, ids)):
                        kept[held] += 1
                        continue
            rest.extend([row[0] for row in rows])
        return QuickDecisions(rest, kept, (self._deletion(*each) for each in expired))

    def _grouped(self, text: bytes, busy: Iterable[bytes]) -> tuple[dict[bytes, list[Row]], list[bytes], set[bytes]]:
        """Return keys by their stems, the keys that have none, and the ids of threads that these may be of."""
        groups: defaultdict[bytes, list[Row]] = defaultdict(list)
        for row in self._rows.findall(text):
            groups[row[2]].append(row)
        rest = [row[0] for row in groups.pop(b"", ()) if row[0]]
        return groups, rest, set(busy).union(name for key in rest for name in self._names_in(key))

    def _names_in(self, key: bytes) -> list[bytes]:
        return [name for name in self.threads_of([key]) if name]

    def _is_whole(self, stem: bytes, heads: tuple[bytes, ...], ids: tuple[bytes, ...]) -> bool:
        """Return whether these are all the kinds of keys that a thread of this layout has, each with its checkpoint."""
        if stem.endswith(b"}:"):
            document, pointer, most = VALKEY_DOCUMENT, b"thread", self._of_valkey
        elif stem.endswith(_MARK):
            document, pointer, most = self._document, self._pointer, self._of_redis
        else:
            return heads.count(self._document) == len(heads)
        if not (document in heads and pointer in heads and most.issuperset(heads)):
            return False
        # A pointer has no id, everything else the id of a checkpoint that is there.
        owners, owned = set(), set()
        for head, each in zip(heads, ids, strict=True):
            if head == document:
                owners.add(each)
            elif head != pointer:
                owned.add(each)
            elif each:
                return False
        return owned <= owners

    def _deletion(self, name: bytes, rows: list[Row], newest: bytes, policy: str) -> Deletion:
        """Return the deletion of a whole thread, as `make_plan` would make it."""
        if rows[0][2] == name:
            # A plain thread: the scan may have brought a key twice.
            plain = {Family.DOCUMENT: tuple(dict.fromkeys([row[0] for row in rows]))}
            return Deletion(name, Reason.EXPIRED, (), (), (), plain, 1, _time_of(newest), policy)
        documents: dict[bytes, bytes] = {}
        pointers: list[bytes] = []
        others: dict[int, list[bytes]] = {Family.WRITE: [], Family.REGISTRY: []}
        for key, head, _, checkpoint_id in rows:
            if not checkpoint_id:
                pointers.append(key)
            elif head in self._satellites:
                others[self._satellites[head]].append(key)
            else:
                documents[checkpoint_id] = key
        guards: tuple[Guard, ...] = ()
        if pointers:
            ordered = sorted(documents, reverse=True)
            guards = (Guard(pointers[0], tuple([Document(documents[each], each, _time_of(each)) for each in ordered])),)
        keys = {Family.DOCUMENT: tuple(documents.values())}
        keys |= {family: tuple(dict.fromkeys(some)) for family, some in others.items() if some}
        return Deletion(name, Reason.EXPIRED, guards, (), (), keys, 1, _time_of(newest), policy)


def _agreed(cuts: Sequence[Cut]) -> Cut:
    """Return the cut on whose outside all of the cuts agree."""
    names, olds, youngs, limits = zip(*cuts, strict=True)
    return names[0], min(olds), max(youngs), min((each for each in limits if each is not None), default=None)


def _is_within(most: int, ids: Iterable[bytes]) -> bool:
    """Return whether the checkpoints of these keys are surely within a limit."""
    return len(set(filter(None, ids))) <= most


def _possible(name: bytes, stem: bytes) -> tuple[bytes, ...]:
    """The names that a thread may have: ValkeySaver's braces may be part of its id, as before 1.0.4 it wrote none."""
    return (name, stem[:-1]) if stem.endswith(b"}:") else (name,)


def _name_of(stem: bytes) -> bytes:
    if b":" not in stem:
        return stem
    return stem[1:-2] if stem.endswith(b"}:") else stem.removesuffix(_MARK)


def _repeated(names: Iterable[bytes]) -> set[bytes]:
    seen: set[bytes] = set()
    return {name for name in names if name in seen or seen.add(name)}  # type: ignore[func-returns-value]


def _any(heads: Iterable[bytes]) -> bytes:
    """A pattern of any of `heads`, which matches nothing when there are none."""
    return b"|".join(map(re.escape, sorted(heads, key=len, reverse=True))) or rb"(?!)"


def _is_ambiguous(heads: Sequence[bytes], distinct: int) -> bool:
    """Return whether a prefix that was chosen makes one kind of keys look like another, or is no printable ASCII."""
    if len(set(heads)) != distinct or not all(head.isascii() and head.decode().isprintable() for head in heads):
        return True
    return any(one != other and other.startswith(one + b":") for one in heads for other in heads)


def _first_tick_at(time: float) -> int:
    """The first count of 100 ns intervals that reads as `time` or later; times are rounded, counts are not."""
    tick = max(0, int(time * 1e7) + UUID_EPOCH)
    while (tick - UUID_EPOCH) / 1e7 >= time:
        tick -= 1
    while (tick - UUID_EPOCH) / 1e7 < time:
        tick += 1
    return tick


def _id_at(time: float) -> bytes:
    """Return the lower bound of ids of version 6 made at `time` or later; of a time without beginning an empty one."""
    if time == -inf:
        return b""
    text = f"{_first_tick_at(time):015x}"
    return f"{text[:8]}-{text[8:12]}-6{text[12:]}".encode()


def _time_of(checkpoint_id: bytes) -> float:
    """The time of an id of version 6, as `KeyParser` reads it."""
    return (int(checkpoint_id[:8] + checkpoint_id[9:13] + checkpoint_id[15:18], 16) - UUID_EPOCH) / 1e7


def _below(bound: int) -> bytes:
    """A pattern of eight hexadecimal digits that are less than `bound`."""
    digits = f"{min(bound, 0xFFFFFFFF):08x}"
    branches = [f"{digits[:at]}[{_HEX[: int(digit, 16)]}]" for at, digit in enumerate(digits) if digit != "0"]
    return rb"(?:" + ("|".join(branches) or "(?!)").encode() + rb")"
