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

# All keys of one kind that a thread has, sorted: the keys, each on a line; their head; their stem, which all keys of
# the thread have in common; the id in the first, and that in the last of several.
Run = tuple[bytes, bytes, bytes, bytes, bytes]

_HEX = "0123456789abcdef"
# Printable ASCII but colons and braces: then nothing but the thread's id can be in its place.
_NAME = rb"[ -9;-z|~]{1,500}"
# Ids that begin with less are of before September 2020, near where times end to be believed (EARLIEST).
_LATE_ENOUGH = rb"(?!0|1[0-9a-d]|1e[0-9a])"
_REST_OF_ID = rb"[0-9a-f]{8}-[0-9a-f]{4}-6[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_TASK = rb":[ -9;-z|~]{1,500}:-?[0-9]{1,18}"
_MARK = b":__empty__"
_ID_BYTES = 36


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
        # That it is an id `_shapes` has made sure of.
        rest_of_key = rb"(?::([0-9a-f-]{36})(?:" + _TASK + rb")?)?"
        self._runs = re.compile(
            rb"^((" + _any(heads) + rb"):(" + _NAME + rb"(?::__empty__)?|\{" + _NAME + rb"\}:)" + rest_of_key
            + rb"(?:\n\2:\3" + rest_of_key + rb"$)*+|.*)$",
            re.MULTILINE,
        )  # fmt: skip
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
        threads, rest, unsure = self._threads_in(text, busy)
        names = list(map(_name_of, threads))
        if len(set(names)) < len(names):
            unsure |= _repeated(names)
        cuts = _Cuts(policy, now).of_each(names, threads)
        covers_all = policy.covers_all
        kept: Counter[str] = Counter({policy.by_rank(NO_POLICY).name: 0})
        expired = []
        for name, (stem, runs), (held, old, young, most) in zip(names, threads.items(), cuts, strict=True):
            if name not in unsure and (documents := self._documents_of_whole(stem, runs)) is not None:
                lines, _, _, oldest, newest = documents
                if (newest or oldest) < old:
                    if covers_all or policy.covers(_possible(name, stem)):
                        expired.append((name, runs, documents, held))
                        continue
                elif oldest >= young and (most is None or lines.count(b"\n") < most):
                    kept[held] += 1
                    continue
            for run in runs:
                rest += run[0].split(b"\n")
        return QuickDecisions(rest, kept, (self._deletion(*each) for each in expired))

    def _threads_in(self, text: bytes, busy: Iterable[bytes]) -> tuple[dict[bytes, list[Run]], list[bytes], set[bytes]]:
        """Return the runs by their stems, the keys that have none, and the ids of threads that these may be of."""
        lines = text.split(b"\n")
        # Then the keys of a kind that a thread has follow each other, the oldest first.
        lines.sort()
        threads: defaultdict[bytes, list[Run]] = defaultdict(list)
        for run in self._runs.findall(b"\n".join(lines)):
            threads[run[2]].append(run)
        rest = [run[0] for run in threads.pop(b"", ()) if run[0]]
        return threads, rest, set(busy).union(name for key in rest for name in self._names_in(key))

    def _names_in(self, key: bytes) -> list[bytes]:
        return [name for name in self.threads_of([key]) if name]

    def _documents_of_whole(self, stem: bytes, runs: Sequence[Run]) -> Run | None:
        """Return the documents of a thread that has all the kinds of keys of its layout, each with its checkpoint."""
        if stem.endswith(b"}:"):
            document, pointer, most = VALKEY_DOCUMENT, b"thread", self._of_valkey
        elif stem.endswith(_MARK):
            document, pointer, most = self._document, self._pointer, self._of_redis
        else:
            return runs[0] if len(runs) == 1 and runs[0][1] == self._document else None
        heads = {run[1]: run for run in runs}
        documents = heads.get(document)
        if documents is None or pointer not in heads or not most.issuperset(heads) or len(heads) < len(runs):
            return None
        # A pointer has no id, everything else the id of a checkpoint that is there.
        ends = documents[3:]
        owners: set[bytes] | None = None
        for run in runs:
            lines, head, _, first, last = run
            if head == pointer:
                if first or last:
                    return None
            elif head != document and not (
                first and first in ends and lines.count(b"\n") == bool(last) and (not last or last in ends)
            ):
                owners = owners or set(_ids_of(documents))
                if not owners.issuperset(_ids_of(run)):
                    return None
        return documents

    def _deletion(self, name: bytes, runs: Sequence[Run], documents: Run, policy: str) -> Deletion:
        """Return the deletion of a whole thread, as `make_plan` would make it."""
        newest = documents[4] or documents[3]
        # The scan may have brought a key twice.
        lines = {run[1]: tuple(dict.fromkeys(run[0].split(b"\n"))) for run in runs}
        keys = {Family.DOCUMENT: lines.pop(documents[1])}
        guards: tuple[Guard, ...] = ()
        for head, some in lines.items():
            if (family := self._satellites.get(head)) is not None:
                keys[family] = some
                continue
            ordered = [(key, key[-_ID_BYTES:]) for key in reversed(keys[Family.DOCUMENT])]
            guards = (Guard(some[0], tuple([Document(key, each, _time_of(each)) for key, each in ordered])),)
        return Deletion(name, Reason.EXPIRED, guards, (), (), keys, 1, _time_of(newest), policy)


def _agreed(cuts: Sequence[Cut]) -> Cut:
    """Return the cut on whose outside all of the cuts agree."""
    names, olds, youngs, limits = zip(*cuts, strict=True)
    return names[0], min(olds), max(youngs), min((each for each in limits if each is not None), default=None)


def _ids_of(run: Run) -> list[bytes]:
    """Return the id in each key of a run, empty for a key without one."""
    start = len(run[1]) + len(run[2]) + 2
    return [key[start : start + _ID_BYTES] for key in run[0].split(b"\n")]


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
