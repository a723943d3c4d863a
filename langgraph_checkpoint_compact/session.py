"""The settings and caches of a saver that the logic works with."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from langgraph.checkpoint.serde.base import SerializerProtocol

from langgraph_checkpoint_compact.documents import Tail

# Values below this size are stored whole: a reference to a log takes about as much memory.
SHARED_BYTES = 512
# Enough for the threads that one process uses at a time. An entry takes some hundred bytes.
REMEMBERED_CHECKPOINTS = 2048


@dataclass(frozen=True, slots=True)
class KnownValue:
    """The field of a value, and its tail, which a later value may continue."""

    field: bytes
    tail: Tail


Tails = Mapping[str, KnownValue]
CheckpointName = tuple[bytes, bytes]


@dataclass
class TailMemory:
    """The tails of the checkpoints that this process has recently read or written, by channel.

    A put without them reads them first. They are hints: the server compares them with its data.
    """

    _tails: OrderedDict[CheckpointName, Tails] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, name: CheckpointName) -> Tails | None:
        """Return the tails of a checkpoint; None if they are unknown."""
        with self._lock:
            tails = self._tails.get(name)
            if tails is not None:
                self._tails.move_to_end(name)
            return tails

    def remember(self, name: CheckpointName, tails: Tails) -> None:
        """Store the tails of a checkpoint, and remove the least recently used ones."""
        with self._lock:
            self._tails[name] = tails
            self._tails.move_to_end(name)
            if len(self._tails) > REMEMBERED_CHECKPOINTS:
                self._tails.popitem(last=False)

    def forget(self, name: CheckpointName) -> None:
        """Remove the tails of a checkpoint after the server refused them."""
        with self._lock:
            self._tails.pop(name, None)


@dataclass(frozen=True, slots=True)
class Session:
    """The settings of a saver. Times to live are milliseconds, 0 for none."""

    serde: SerializerProtocol
    prefix: str
    ttl: int
    ttl_on_read: int
    tails: TailMemory
