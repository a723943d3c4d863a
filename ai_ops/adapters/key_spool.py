"""Keys sorted by thread, on disk once they are many: memory stays the same however large the database."""

from __future__ import annotations

import marshal
import tempfile
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import IO, Any, Self

from ai_ops.core.checkpoint_keys import CheckpointKey

# A partition is planned in memory, some 1,500 bytes a key all in all.
KEYS_PER_PARTITION = 20_000
MAX_PARTITIONS = 256  # open files; well below the usual limit of 1,024
MARSHAL_VERSION = 2  # the newer ones look for objects that occur twice, which takes longer than writing them
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
        self._buffers: list[list[tuple[Any, ...]]] = [[] for _ in range(self.partitions)]
        self._sizes: list[list[int]] = [[] for _ in range(self.partitions)]
        self._files: list[IO[bytes]] = []
        if self.partitions > 1:
            self._files = [tempfile.TemporaryFile(prefix="ai-ops-keys-") for _ in range(self.partitions)]  # noqa: SIM115

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for file in self._files:
            file.close()

    def add(self, keys: Iterable[CheckpointKey]) -> None:
        """Remember keys."""
        partitions, buffers = self.partitions, self._buffers
        for key in keys:
            # "{a}" may be thread "{a}" or ValkeySaver's thread "a": they are told apart where all keys are at hand.
            thread = key[1]
            buffers[hash(thread.strip(b"{}") if b"{" in thread else thread) % partitions].append(tuple(key))
        for number, buffer in enumerate(buffers if self._files else ()):
            if len(buffer) >= BUFFERED_KEYS:
                # marshal is several times faster than pickle, and nobody else reads the file.
                self._sizes[number].append(self._files[number].write(marshal.dumps(buffer, MARSHAL_VERSION)))
                buffer.clear()

    def clear(self) -> None:
        """Forget all keys."""
        for buffer in self._buffers:
            buffer.clear()
        for sizes in self._sizes:
            sizes.clear()
        for file in self._files:
            file.seek(0)
            file.truncate()

    def __iter__(self) -> Iterator[list[CheckpointKey]]:
        """The keys, one partition at a time."""
        for number in range(self.partitions):
            if keys := list(map(CheckpointKey._make, self._rows(number))):
                yield keys

    def _rows(self, number: int) -> Iterator[tuple[Any, ...]]:
        if self._files:
            file = self._files[number]
            file.seek(0)
            # In one piece: from a file marshal reads byte by byte, which takes longer than all else.
            data, start = memoryview(file.read()), 0
            for size in self._sizes[number]:
                yield from marshal.loads(data[start : start + size])  # noqa: S302
                start += size
        yield from self._buffers[number]
