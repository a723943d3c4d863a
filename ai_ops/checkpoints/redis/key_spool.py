"""Keys sorted by thread, on disk once they are many: memory stays the same however large the database."""

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

# A partition is planned in memory, some 1,500 bytes a key all in all. Of small ones the processor has all in its cache,
# and Redis does not wait long for what is decided on the next.
KEYS_PER_PARTITION = 5_000
MAX_PARTITIONS = 256
# A partition with more keys, or longer ones, is divided once more. Packed, usual keys have 100 to 250 bytes.
MOST_KEYS = 40_000
MOST_BYTES = 8 * 1024 * 1024
# Divided twice, a thousand million keys are in small partitions. One thread alone can't be divided.
MAX_DEPTH = 2
MARSHAL_VERSION = 2  # the newer ones look for objects that occur twice, which takes longer than writing them
BUFFERED_KEYS = 200  # per partition, before they are packed together
BUFFERED_BYTES = 4 * 1024 * 1024  # of all partitions, before all are packed
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
        threads_of: The ids of the threads with which `add_text` is given keys: it remembers the keys alone.
        depth: How many larger spools this one is a part of.
    """

    def __init__(self, expected: int, threads_of: Callable[[Sequence[bytes]], Sequence[bytes]], depth: int = 0) -> None:
        self.partitions = max(1, min(MAX_PARTITIONS, -(-expected // KEYS_PER_PARTITION)))
        self._threads_of = threads_of
        self._depth = depth
        # Hashed with the threads' ids: those that one partition has in common are strewn over the parts of it.
        self._salt = b"%d" % depth if depth else b""
        self._text: list[list[bytes]] = [[] for _ in range(self.partitions)]
        self._keys: list[list[tuple[Any, ...]]] = [[] for _ in range(self.partitions)]
        self._texts = [_Pile() for _ in range(self.partitions)]
        self._rows = [_Pile() for _ in range(self.partitions)]
        self._buffered = 0
        # The larger spool has the memory there is.
        self._room = 0 if depth else MEMORY_BYTES
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            # Its unwritten rest is of no use any more.
            with suppress(OSError):
                self._file.close()

    def add_text(self, keys: Sequence[bytes], threads: Sequence[bytes]) -> None:
        """Remember keys as they are, each with its thread's id without braces; those without one are left out."""
        partitions, buffers = self.partitions, self._text
        # Without a loop of its own, and without new ids where there is no salt: this is done for each key there is.
        self._buffered += sum(map(len, compress(keys, threads)))
        if partitions == 1:
            buffers[0] += compress(keys, threads)
        else:
            if salt := self._salt:
                threads = [thread and thread + salt for thread in threads]
            for key, thread in zip(keys, threads, strict=True):
                if thread:
                    buffers[hash(thread) % partitions].append(key)
        self._pack_full()

    def add(self, keys: Iterable[CheckpointKey]) -> None:
        """Remember keys that were taken apart."""
        partitions, buffers, salt = self.partitions, self._keys, self._salt
        for key in keys:
            # "{a}" may be thread "{a}" or ValkeySaver's thread "a": they are told apart where all keys are at hand.
            buffers[hash(key[1].strip(b"{}") + salt) % partitions].append(tuple(key))
            # Its parts are as long together as the key.
            self._buffered += 2 * len(key[5])
            if self._buffered > BUFFERED_BYTES:
                self._pack_full()
        self._pack_full()

    def clear(self) -> None:
        """Forget all keys."""
        for number in range(self.partitions):
            self._text[number].clear()
            self._keys[number].clear()
            self._texts[number] = _Pile()
            self._rows[number] = _Pile()
        self._buffered = 0
        self._room = 0 if self._depth else MEMORY_BYTES
        if self._file is not None:
            with _told_in_a_sentence():
                self._file.seek(0)
                self._file.truncate()

    def __iter__(self) -> Iterator[Part]:
        """The keys, one partition at a time, each once: what was given is forgotten."""
        for number in range(self.partitions):
            if self._is_too_large(number):
                yield from self._divided(number)
                continue
            text = b"\n".join(self._texts_of(number))
            keys = [CheckpointKey._make(row) for rows in self._rows_of(number) for row in rows]
            if text or keys:
                yield Part(text, keys)

    def _is_too_large(self, number: int) -> bool:
        """Return whether a partition is to be divided; what is still buffered of it is little."""
        texts, rows = self._texts[number], self._rows[number]
        return self._depth < MAX_DEPTH and (texts.keys + rows.keys > MOST_KEYS or texts.bytes + rows.bytes > MOST_BYTES)

    def _divided(self, number: int) -> Iterator[Part]:
        """The keys of a partition in smaller ones."""
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
        """The keys of a partition that are as they were scanned, some on lines of each text."""
        yield from self._taken(self._texts[number])
        buffer, self._text[number] = self._text[number], []
        if buffer:
            yield b"\n".join(buffer)

    def _rows_of(self, number: int) -> Iterator[list[tuple[Any, ...]]]:
        """The keys of a partition that were taken apart."""
        for pack in self._taken(self._rows[number]):
            yield marshal.loads(pack)  # noqa: S302
        buffer, self._keys[number] = self._keys[number], []
        yield buffer

    def _pack_full(self) -> None:
        """Pack what is buffered of partitions that have many keys in a buffer; of all where it is much together."""
        least = BUFFERED_KEYS if self._buffered <= BUFFERED_BYTES else 1
        for number, text in enumerate(self._text):
            if len(text) >= least:
                self._buffered -= sum(map(len, text))
                self._pack(self._texts[number], b"\n".join(text), len(text))
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
        with _told_in_a_sentence():
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
    """The packs of one partition: the first in memory, the others in the file."""

    __slots__ = ("bytes", "keys", "packs", "places")

    def __init__(self) -> None:
        self.packs: list[bytes] = []
        self.places: list[tuple[int, int]] = []
        self.keys = 0
        self.bytes = 0
