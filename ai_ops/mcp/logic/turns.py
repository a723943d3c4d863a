"""Turns: distribution of targets in order, with a limit of simultaneous targets at each place."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Hashable, Sequence


class Turns:
    """Hands out numbers in order, skipping those whose place is full. Thread-safe.

    A taker that gets None is done, although other numbers may wait for a full place. Each number given back there frees
    a turn for one of them, which the taker that gave it back then takes.

    Args:
        places: The place of each target, in the order of their numbers.
        at_once: Maximum number of taken targets at one place.
    """

    def __init__(self, places: Sequence[Hashable], at_once: int) -> None:
        self._places = places
        self._lock = threading.Lock()
        self._ready: deque[int] = deque()
        self._waiting: dict[Hashable, deque[int]] = defaultdict(deque)
        begun: Counter[Hashable] = Counter()
        for number, place in enumerate(places):
            begun[place] += 1
            (self._ready if begun[place] <= at_once else self._waiting[place]).append(number)

    def take(self) -> int | None:
        """Return the next number, or None if no place has room now."""
        with self._lock:
            return self._ready.popleft() if self._ready else None

    def give_back(self, number: int) -> None:
        """Free the place of a number."""
        with self._lock:
            if waiting := self._waiting.get(self._places[number]):
                self._ready.append(waiting.popleft())

    def stop(self) -> None:
        """Stop handing out numbers."""
        with self._lock:
            self._ready.clear()
            self._waiting.clear()
