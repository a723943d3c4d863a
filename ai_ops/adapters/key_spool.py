"""Keys sorted by thread, on disk once they are many: memory stays the same however large the database."""

from __future__ import annotations

import marshal
import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import IO, Self

from ai_ops.core.checkpoint_keys import CheckpointKey, Family

# A partition is planned in memory, some 500 bytes a key.
KEYS_PER_PARTITION = 40_000
MAX_PARTITIONS = 256  # open files; well below the usual limit of 1,024
BUFFERED_KEYS = 200  # per partition, before they are written out


class KeySpool:
    """Takes keys as they are scanned, gives them back thread by thread.

    All keys of a thread come back in the same partition. The files have no name and vanish with the process,
    however it ends.

    Args:
        expected: About how many keys will come.
    """

    def __init__(self, expected: int) -> None:
        self.partitions = max(1, min(MAX_PARTITIONS, -(-expected // KEYS_PER_PARTITION)))
        self._buffers: list[list[tuple[object, ...]]] = [[] for _ in range(self.partitions)]
        self._files: list[IO[bytes]] = []
        if self.partitions > 1:
            self._files = [tempfile.TemporaryFile(prefix="ai-ops-keys-") for _ in range(self.partitions)]  # noqa: SIM115

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for file in self._files:
            file.close()

    def add(self, key: CheckpointKey) -> None:
        """Remember a key."""
        # "{a}" may be thread "{a}" or ValkeySaver's thread "a": they are told apart where all keys are at hand.
        number = hash(key.thread.strip(b"{}")) % self.partitions
        buffer = self._buffers[number]
        # marshal knows no enumerations; it is several times faster than pickle, and nobody else reads it.
        buffer.append((int(key.family), *key[1:]))
        if self._files and len(buffer) >= BUFFERED_KEYS:
            marshal.dump(buffer, self._files[number])
            buffer.clear()

    def clear(self) -> None:
        """Forget all keys."""
        for buffer in self._buffers:
            buffer.clear()
        for file in self._files:
            file.seek(0)
            file.truncate()

    def __iter__(self) -> Iterator[list[CheckpointKey]]:
        """The keys, one partition at a time."""
        for number in range(self.partitions):
            keys = [CheckpointKey(Family(row[0]), *row[1:]) for row in self._rows(number)]  # type: ignore[arg-type]
            if keys:
                yield keys

    def _rows(self, number: int) -> Iterator[tuple[object, ...]]:
        if self._files:
            file = self._files[number]
            file.seek(0)
            while True:
                try:
                    yield from marshal.load(file)  # noqa: S302
                except EOFError:
                    break
        yield from self._buffers[number]
