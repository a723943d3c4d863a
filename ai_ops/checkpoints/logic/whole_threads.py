"""Whole threads to delete, in columns: an object for each of them would take longer than all other work."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, overload

from ai_ops.checkpoints.logic.deletion import Deletion, Guard, Outcome, Reason
from ai_ops.checkpoints.logic.keys import Family
from ai_ops.checkpoints.logic.threads import Document
from ai_ops.checkpoints.logic.times import UUID_EPOCH

ID_BYTES = 36


class Share(NamedTuple):
    """The keys of one family, thread by thread.

    Attributes:
        family: The family, one of `Family`.
        keys: The keys, those of a thread in the order of their ids.
        ends: A 0, followed by the end of each thread's keys in `keys`.
    """

    family: int
    keys: list[bytes]
    ends: list[int]

    def of(self, threads: range) -> list[bytes]:
        """Return the keys of consecutive threads."""
        return self.keys[self.ends[threads.start] : self.ends[threads.stop]]

    def part(self, threads: range) -> Share:
        """Return the share of consecutive threads."""
        begin = self.ends[threads.start]
        return Share(
            self.family, self.of(threads), [end - begin for end in self.ends[threads.start : threads.stop + 1]]
        )


@dataclass(frozen=True)
class WholeThreads(Sequence[Deletion]):
    """Threads of one layout to delete with all their keys; the checkpoints' ids are UUIDs of version 6.

    As a sequence, it contains the deletion of each thread as `make_plan` would return it.

    Attributes:
        names: Their ids.
        policies: The names of their policies.
        pointers: The pointer of each thread; empty if the layout has none.
        shares: Their other keys, the documents first.
    """

    names: list[bytes]
    policies: list[str]
    pointers: list[bytes]
    shares: tuple[Share, ...]

    @cached_property
    def ends(self) -> list[int]:
        """Return a 0, followed for each thread by the number of keys up to its last one, without pointers."""
        return list(map(sum, zip(*(share.ends for share in self.shares), strict=True)))

    @cached_property
    def sizes(self) -> list[int]:
        """Return the number of keys of each thread."""
        pointers = 1 if self.pointers else 0
        return [end - begin + pointers for begin, end in zip(self.ends, self.ends[1:], strict=False)]

    @property
    def newest(self) -> list[bytes]:
        """Return the newest document of each thread."""
        documents = self.shares[0]
        return [documents.keys[end - 1] for end in documents.ends[1:]]

    def groups(self, most: int) -> Iterator[range]:
        """Yield all threads in groups of at most `most` keys without pointers; a single thread may have more."""
        begin, ends = 0, self.ends
        while begin < len(self):
            end = max(begin + 1, bisect_right(ends, ends[begin] + most) - 1)
            yield range(begin, end)
            begin = end

    def parts(self, size: int) -> Iterator[WholeThreads]:
        """Yield all threads, `size` at a time."""
        for begin in range(0, len(self), size):
            threads = range(begin, min(begin + size, len(self)))
            some = slice(threads.start, threads.stop)
            shares = tuple([share.part(threads) for share in self.shares])
            yield WholeThreads(self.names[some], self.policies[some], self.pointers[some], shares)

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Deletion: ...

    @overload
    def __getitem__(self, index: slice) -> list[Deletion]: ...

    def __getitem__(self, index: int | slice) -> Deletion | list[Deletion]:
        if isinstance(index, slice):
            return [self._deletion(number) for number in range(len(self))[index]]
        return self._deletion(range(len(self))[index])

    def _deletion(self, number: int) -> Deletion:
        own = range(number, number + 1)
        keys = {share.family: tuple(some) for share in self.shares if (some := share.of(own))}
        documents = [Document(key, key[-ID_BYTES:], time_of(key[-ID_BYTES:])) for key in keys[Family.DOCUMENT][::-1]]
        guards = (Guard(self.pointers[number], tuple(documents)),) if self.pointers else ()
        return Deletion(
            self.names[number], Reason.EXPIRED, guards, (), (), keys, 1, documents[0].time, self.policies[number]
        )


@dataclass(frozen=True)
class WholeOutcomes(Sequence[Outcome]):
    """The outcomes of the deletions of whole threads.

    Attributes:
        threads: The threads.
        exceptions: The outcomes of threads with keys that were not deleted, by index.
    """

    threads: WholeThreads
    exceptions: Mapping[int, Outcome]

    def __len__(self) -> int:
        return len(self.threads)

    @overload
    def __getitem__(self, index: int) -> Outcome: ...

    @overload
    def __getitem__(self, index: slice) -> list[Outcome]: ...

    def __getitem__(self, index: int | slice) -> Outcome | list[Outcome]:
        if isinstance(index, slice):
            return [self._outcome(number) for number in range(len(self))[index]]
        return self._outcome(range(len(self))[index])

    def _outcome(self, number: int) -> Outcome:
        return self.exceptions.get(number) or Outcome(self.threads.sizes[number])


def time_of(checkpoint_id: bytes) -> float:
    """Return the time of an id of version 6, as `KeyParser` reads it."""
    return (int(checkpoint_id[:8] + checkpoint_id[9:13] + checkpoint_id[15:18], 16) - UUID_EPOCH) / 1e7
