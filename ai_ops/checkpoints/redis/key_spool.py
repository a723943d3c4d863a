"""Keys sorted by thread, on disk if there are many, so that memory does not depend on the size of the database."""

from __future__ import annotations

import marshal
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import compress
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

from ai_ops.checkpoints.logic.keys import CheckpointKey
from ai_ops.exceptions import SpoolError

# Planning a partition takes about 1,500 bytes of memory per key. A small partition fits into the processor's cache, and
# Redis does not wait long for the decisions on the next one.
KEYS_PER_PARTITION = 1_500
MAX_PARTITIONS = 256
# A partition with more keys, or longer keys, is divided again. Packed, usual keys have 100 to 250 bytes.
MOST_KEYS = 40_000
MOST_BYTES = 8 * 1024 * 1024
# Two divisions are sufficient for a thousand million keys. The keys of a single thread can't be divided.
MAX_DEPTH = 2
MARSHAL_VERSION = 2  # newer versions search for repeated objects, which takes longer than writing them
BUFFERED_KEYS = 200  # per partition, before they are packed together
# Number of new keys after which the buffers are checked.
UNSEEN_KEYS = 4_000
BUFFERED_BYTES = 4 * 1024 * 1024  # of all partitions, before all are packed
MEMORY_BYTES = 24 * 1024 * 1024  # of packed keys, before they go to disk


class Part(NamedTuple):
    """All keys of a part of the threads.

    Attributes:
        text: Unparsed keys, one per line.
        keys: Parsed keys.
    """

    text: bytes
    keys: list[CheckpointKey]


class KeySpool:
    """Collects keys during the scan, and yields them grouped by thread.

    All keys of a thread are in the same partition. The file has no name and disappears with the process in any case.

    Args:
        expected: Approximate number of keys.
        threads_of: Returns the thread ids of keys from `add_text`, which stores only the keys.
        depth: Number of larger spools that contain this one.
    """

    def __init__(self, expected: int, threads_of: Callable[[Sequence[bytes]], Sequence[bytes]], depth: int = 0) -> None:
        self.partitions = max(1, min(MAX_PARTITIONS, -(-expected // KEYS_PER_PARTITION)))
        self._threads_of = threads_of
        self._depth = depth
        # Salt of the hash of thread ids, so that the threads of a partition are distributed over its parts.
        self._salt = b"%d" % depth if depth else b""
        self._text: list[list[bytes]] = [[] for _ in range(self.partitions)]
        self._keys: list[list[tuple[Any, ...]]] = [[] for _ in range(self.partitions)]
        self._texts = [_Pile() for _ in range(self.partitions)]
        self._rows = [_Pile() for _ in range(self.partitions)]
        self._buffered = 0
        self._unseen = 0
        # The larger spool already uses the memory.
        self._room = 0 if depth else MEMORY_BYTES
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            # Its unwritten rest is no longer needed.
            with suppress(OSError):
                self._file.close()

    def add_text(self, keys: Sequence[bytes], threads: Sequence[bytes]) -> None:
        """Store unparsed keys, each with its thread's id without braces; keys without an id are skipped."""
        partitions, buffers = self.partitions, self._text
        # Without a loop, and without new ids if there is no salt, because this runs for every key.
        self._buffered += sum(map(len, keys if all(threads) else compress(keys, threads)))
        if partitions == 1:
            buffers[0] += compress(keys, threads)
        else:
            if salt := self._salt:
                threads = [thread and thread + salt for thread in threads]
            for key, thread in zip(keys, threads, strict=True):
                if thread:
                    buffers[hash(thread) % partitions].append(key)
        self._unseen += len(keys)
        if self._unseen >= UNSEEN_KEYS or self._buffered > BUFFERED_BYTES:
            self._pack_full()

    def add(self, keys: Iterable[CheckpointKey]) -> None:
        """Store parsed keys."""
        partitions, buffers, salt = self.partitions, self._keys, self._salt
        for key in keys:
            # "{a}" may be thread "{a}" or ValkeySaver's thread "a". This is decided when all keys are known.
            buffers[hash(key[1].strip(b"{}") + salt) % partitions].append(tuple(key))
            # The parts together are as long as the key.
            self._buffered += 2 * len(key[5])
            if self._buffered > BUFFERED_BYTES:
                self._pack_full()
        self._pack_full()

    def clear(self) -> None:
        """Drop all keys."""
        for number in range(self.partitions):
            self._text[number].clear()
            self._keys[number].clear()
            self._texts[number] = _Pile()
            self._rows[number] = _Pile()
        self._buffered = 0
        self._room = 0 if self._depth else MEMORY_BYTES
        if self._file is not None:
            with _spool_errors():
                self._file.seek(0)
                self._file.truncate()

    def __iter__(self) -> Iterator[Part]:
        """Yield the keys, one partition at a time, and drop each partition afterwards."""
        for number in range(self.partitions):
            if self._is_too_large(number):
                yield from self._divided(number)
                continue
            text = b"\n".join(self._texts_of(number))
            keys = [CheckpointKey._make(row) for rows in self._rows_of(number) for row in rows]
            if text or keys:
                yield Part(text, keys)

    def _is_too_large(self, number: int) -> bool:
        """Return whether a partition must be divided; its buffered rest is small."""
        texts, rows = self._texts[number], self._rows[number]
        return self._depth < MAX_DEPTH and (texts.keys + rows.keys > MOST_KEYS or texts.bytes + rows.bytes > MOST_BYTES)

    def _divided(self, number: int) -> Iterator[Part]:
        """Yield the keys of a partition in smaller partitions."""
        texts, rows = self._texts[number], self._rows[number]
        parts = 2 * max(1, (texts.bytes + rows.bytes) // MOST_BYTES)
        expected = max(texts.keys + rows.keys, parts * KEYS_PER_PARTITION)
        with KeySpool(expected, self._threads_of, self._depth + 1) as inner:
            for text in self._texts_of(number):
                keys = text.split(b"\n")
                inner.add_text(keys, self._threads_of(keys))
            for some in self._rows_of(number):
                inner.add(map(CheckpointKey._make, some))
            yield from inner

    def _texts_of(self, number: int) -> Iterator[bytes]:
        """Yield the unparsed keys of a partition, in texts with a key per line."""
        yield from self._taken(self._texts[number])
        buffer, self._text[number] = self._text[number], []
        if buffer:
            yield b"\n".join(buffer)

    def _rows_of(self, number: int) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the parsed keys of a partition."""
        for pack in self._taken(self._rows[number]):
            yield marshal.loads(pack)  # noqa: S302
        buffer, self._keys[number] = self._keys[number], []
        yield buffer

    def _pack_full(self) -> None:
        """Pack the buffers of partitions with many keys, or all buffers if they are large together."""
        self._unseen = 0
        least = BUFFERED_KEYS if self._buffered <= BUFFERED_BYTES else 1
        for number, text in enumerate(self._text):
            if len(text) >= least:
                pack = b"\n".join(text)
                self._buffered -= len(pack) - len(text) + 1
                self._pack(self._texts[number], pack, len(text))
                text.clear()
        for number, rows in enumerate(self._keys):
            if len(rows) >= least:
                self._buffered -= sum(2 * len(row[5]) for row in rows)
                # marshal is several times faster than pickle, and nothing else reads the file.
                self._pack(self._rows[number], marshal.dumps(rows, MARSHAL_VERSION), len(rows))
                rows.clear()

    def _pack(self, pile: _Pile, pack: bytes, keys: int) -> None:
        pile.keys += keys
        pile.bytes += len(pack)
        self._room -= len(pack)
        if self._room >= 0:
            pile.packs.append(pack)
            return
        with _spool_errors():
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="ai-ops-keys-")  # noqa: SIM115
            pile.places.append((self._file.tell(), len(pack)))
            self._file.write(pack)

    def _taken(self, pile: _Pile) -> Iterator[bytes]:
        packs, pile.packs = pile.packs, []
        packs.reverse()
        while packs:
            yield packs.pop()
        for place, size in pile.places:
            assert self._file is not None  # noqa: S101
            with _spool_errors():
                self._file.seek(place)
                pack = self._file.read(size)
            yield pack


@contextmanager
def _spool_errors() -> Iterator[None]:
    """Raise SpoolError for an error of the disk."""
    try:
        yield
    except OSError as error:
        raise SpoolError(
            f"The keys of the checkpoint Redis could not be stored in the worker's folder for temporary files "
            f"({error.strerror or 'it is not there'}): free some space there, or set TMPDIR to a folder with more. "
            "About 100 bytes per key are sufficient. The next run starts again."
        ) from error


class _Pile:
    """The packs of a partition: the first in memory, the others in the file."""

    __slots__ = ("bytes", "keys", "packs", "places")

    def __init__(self) -> None:
        self.packs: list[bytes] = []
        self.places: list[tuple[int, int]] = []
        self.keys = 0
        self.bytes = 0
