"""Collection of the largest of many entries, without keeping the others in memory."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

# A type whose values can be compared.
T = TypeVar("T", bound=Any)


class Largest(Generic[T]):
    """The largest of the entries added, at most `size` of them; iterate for the largest first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[T] = []

    def add(self, entry: T) -> None:
        """Add an entry; it is kept if it is among the largest so far."""
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, entry)
        elif entry > self._heap[0]:
            heapq.heapreplace(self._heap, entry)

    @property
    def threshold(self) -> T | None:
        """Return the smallest kept entry; None while there is room."""
        return None if len(self._heap) < self._size else self._heap[0]

    def __iter__(self) -> Iterator[T]:
        return iter(sorted(self._heap, reverse=True))

    def __len__(self) -> int:
        return len(self._heap)
