"""The settings and caches of a saver that the logic works with."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from langgraph.checkpoint.serde.base import SerializerProtocol

from langgraph_checkpoint_compact.documents import Tail

# Below this size a value is kept whole: what points to a log takes about as much.
SHARED_BYTES = 512
# Enough for the threads that one process talks in at a time. An entry takes some hundred bytes.
REMEMBERED_CHECKPOINTS = 2048


@dataclass(frozen=True, slots=True)
class KnownValue:
    """The field of a value and its tail, from which a later value may go on."""

    field: bytes
    tail: Tail


Tails = Mapping[str, KnownValue]
CheckpointName = tuple[bytes, bytes]


@dataclass
class TailMemory:
    """The tails of the checkpoints that this process has read or written lately, by channel.

    A put without them reads them first. They are hints: the server compares them with what it has.
    """

    _tails: OrderedDict[CheckpointName, Tails] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, name: CheckpointName) -> Tails | None:
        """The tails of a checkpoint, or None where they are not known."""
        with self._lock:
            tails = self._tails.get(name)
            if tails is not None:
                self._tails.move_to_end(name)
            return tails

    def remember(self, name: CheckpointName, tails: Tails) -> None:
        """Keep the tails of a checkpoint, and forget those used longest ago."""
        with self._lock:
            self._tails[name] = tails
            self._tails.move_to_end(name)
            if len(self._tails) > REMEMBERED_CHECKPOINTS:
                self._tails.popitem(last=False)

    def forget(self, name: CheckpointName) -> None:
        """Drop what turned out to be wrong."""
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
