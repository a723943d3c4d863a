"""The pins of a run, and the threads that they match."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from ai_ops.logic.globs import matches_any


class Pins(NamedTuple):
    """The pinned threads.

    Attributes:
        ids: Ids of threads.
        globs: Globs for thread ids.
    """

    ids: frozenset[str] = frozenset()
    globs: frozenset[str] = frozenset()

    def match(self, names: Collection[str]) -> bool:
        """Return whether a thread with any of these names is pinned: by its id, or by a glob."""
        return not self.ids.isdisjoint(names) or matches_any(tuple(self.globs), names)
