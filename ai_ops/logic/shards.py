"""Shards: the parts of a fleet that is too large for one run."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from ai_ops.logic.foreign_text import shown


@dataclass(frozen=True)
class Shard:
    """A part of a fleet: the servers between two primary keys that have not been checked since `as_of`.

    Ranges do not overlap, so that a server is in one shard even if servers are added or deleted meanwhile. Primary keys
    are random, so each shard is a random sample of the fleet.

    Attributes:
        first: The smallest primary key of the shard.
        last: The largest primary key of the shard.
        as_of: Time of the division, with a time zone; servers checked later are omitted.
    """

    first: UUID
    last: UUID
    as_of: datetime

    def __str__(self) -> str:
        return f"{self.first}/{self.last}/{self.as_of.isoformat()}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parse the text that ``str()`` returns.

        Raises:
            ValueError: The text is not a shard.
        """
        try:
            first, last, moment = text.split("/")
            shard = cls(UUID(first), UUID(last), datetime.fromisoformat(moment))
        except ValueError:
            raise ValueError(f"{shown(text)} is not a shard") from None
        if shard.first > shard.last or shard.as_of.tzinfo is None:
            raise ValueError(f"{shown(text)} is not a shard: its range is empty, or its time has no zone")
        return shard


def divided(keys: Collection[UUID], size: int, as_of: datetime) -> list[tuple[Shard, int]]:
    """Divide servers into the smallest number of shards of at most `size` servers, with equal sizes up to one server.

    Args:
        keys: Primary keys of the servers, each once, in any order.
        size: Maximum number of servers of a shard, from 1.
        as_of: The time `as_of` of the shards.

    Returns:
        Each shard with the number of its servers.
    """
    ordered = sorted(keys)
    count = -(-len(ordered) // size)
    edges = [number * len(ordered) // count for number in range(count + 1)] if count else [0]
    return [(Shard(ordered[begin], ordered[end - 1], as_of), end - begin) for begin, end in itertools.pairwise(edges)]
