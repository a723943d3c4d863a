"""Keys sorted by thread, on disk once they are many: memory stays the same however large the database."""

from __future__ import annotations

import marshal
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

from ai_ops.core.checkpoint_keys import CheckpointKey
from ai_ops.exceptions import SpoolError

# A partition is planned in memory, some 1,500 bytes a key all in all.
KEYS_PER_PARTITION = 20_000
MAX_PARTITIONS = 256
MARSHAL_VERSION = 2  # the newer ones look for objects that occur twice, which takes longer than writing them
BUFFERED_KEYS = 200  # per partition, before they are packed together
MEMORY_BYTES = 24 * 1024 * 1024  # of packed keys, before they go to disk


class Part(NamedTuple):
    """All keys of some of the threads.

    Attributes:
        text: Keys as they were scanned, one on a line.
        keys: Those that were taken apart before they came here.
    """

    text: bytes
    keys: list[CheckpointKey]


class KeySpool:
    """Takes keys as they are scanned, gives them back thread by thread.

    All keys of a thread come back in the same partition. The file has no name and vanishes with the process,
    however it ends.

    Args:
        expected: About how many keys will come.
    """

    def __init__(self, expected: int) -> None:
        self.partitions = max(1, min(MAX_PARTITIONS, -(-expected // KEYS_PER_PARTITION)))
        self._text: list[list[bytes]] = [[] for _ in range(self.partitions)]
        self._keys: list[list[tuple[Any, ...]]] = [[] for _ in range(self.partitions)]
        self._texts = [_Pile() for _ in range(self.partitions)]
        self._rows = [_Pile() for _ in range(self.partitions)]
        self._packed = 0
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            # What it still had to write is of no use any more.
            with suppress(OSError):
                self._file.close()

    def add_text(self, keys: Sequence[bytes], threads: Sequence[bytes]) -> None:
        """Remember keys as they are, each with its thread's id without braces; those without one are left out."""
        partitions, buffers = self.partitions, self._text
        for key, thread in zip(keys, threads, strict=True):
            if thread:
                buffers[hash(thread) % partitions].append(key)
        for number, buffer in enumerate(buffers):
            if len(buffer) >= BUFFERED_KEYS:
                self._pack(self._texts[number], b"\n".join(buffer))
                buffer.clear()

    def add(self, keys: Iterable[CheckpointKey]) -> None:
        """Remember keys that were taken apart."""
        partitions, buffers = self.partitions, self._keys
        touched = set()
        for key in keys:
            # "{a}" may be thread "{a}" or ValkeySaver's thread "a": they are told apart where all keys are at hand.
            number = hash(key[1].strip(b"{}")) % partitions
            touched.add(number)
            buffers[number].append(tuple(key))
        for number in touched:
            if len(buffer := buffers[number]) >= BUFFERED_KEYS:
                # marshal is several times faster than pickle, and nobody else reads the file.
                self._pack(self._rows[number], marshal.dumps(buffer, MARSHAL_VERSION))
                buffer.clear()

    def clear(self) -> None:
        """Forget all keys."""
        for number in range(self.partitions):
            self._text[number].clear()
            self._keys[number].clear()
        for pile in (*self._texts, *self._rows):
            pile.packs.clear()
            pile.places.clear()
        self._packed = 0
        if self._file is not None:
            with _told_in_a_sentence():
                self._file.seek(0)
                self._file.truncate()

    def __iter__(self) -> Iterator[Part]:
        """The keys, one partition at a time, each once: what was given is forgotten."""
        for number in range(self.partitions):
            text = b"\n".join(
                [*self._taken(self._texts[number]), *([b"\n".join(self._text[number])] if self._text[number] else ())]
            )
            rows = [row for pack in self._taken(self._rows[number]) for row in marshal.loads(pack)]  # noqa: S302
            keys = list(map(CheckpointKey._make, (*rows, *self._keys[number])))
            self._text[number].clear()
            self._keys[number].clear()
            if text or keys:
                yield Part(text, keys)

    def _pack(self, pile: _Pile, pack: bytes) -> None:
        self._packed += len(pack)
        if self._packed <= MEMORY_BYTES:
            pile.packs.append(pack)
            return
        with _told_in_a_sentence():
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="ai-ops-keys-")  # noqa: SIM115
            pile.places.append((self._file.tell(), len(pack)))
            self._file.write(pack)

    def _taken(self, pile: _Pile) -> Iterator[bytes]:
        packs, pile.packs = pile.packs, []
        yield from packs
        for place, size in pile.places:
            assert self._file is not None  # noqa: S101
            with _told_in_a_sentence():
                self._file.seek(place)
                pack = self._file.read(size)
            yield pack


@contextmanager
def _told_in_a_sentence() -> Iterator[None]:
    """Raise SpoolError for what the disk refuses."""
    try:
        yield
    except OSError as error:
        raise SpoolError(
            f"The keys of the checkpoint Redis could not be kept in the worker's folder for temporary files "
            f"({error.strerror or 'it is not there'}): free some space there, or set TMPDIR to a folder with more. "
            "About 100 bytes a key are enough. The next run begins anew."
        ) from error


class _Pile:
    """What was packed of one partition: in memory the first packs, in the file the others."""

    __slots__ = ("packs", "places")

    def __init__(self) -> None:
        self.packs: list[bytes] = []
        self.places: list[tuple[int, int]] = []
