"""The bytes of checkpoints, values and writes, each with the version of its format in the first byte.

All numbers are big-endian. The scripts parse the same bytes.

    checkpoint   format, length of the list of values, the list (names of values, a line each), then the lengths
                 of five parts and the parts: the parent's id, type and data of the checkpoint and of the metadata.
                 After them the length of a list and the list, the channels that are made from older checkpoints, a
                 line each; the first versions wrote none
    value        format, kind, length of the body, digest of the body, lengths of type and header, type, header, and
                 with kind i the body, with kind l the name of the log that contains it
    writes       format, then for each write: its length, its index, the task with its length, then the lengths of
                 path, channel and type, these three, and the data followed by d, or o where it has its own field
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Protocol

from langgraph_checkpoint_compact.errors import DamagedThreadError, UnsupportedFormatError
from langgraph_checkpoint_compact.scripts import FORMAT

DIGEST_BYTES = 16
# A format is one byte.
_SEALED_DIGITS = 3

_VALUE = struct.Struct(">BcI16sBB")
_DOCUMENT = struct.Struct(">BI")
_PARTS = struct.Struct(">5I")
_LENGTH = struct.Struct(">I")
_WRITE = struct.Struct(">IiI")
_WRITE_REST = struct.Struct(">III")

Typed = tuple[str, bytes]


class Digest(Protocol):
    """The used part of a hashlib object."""

    def update(self, data: bytes | memoryview, /) -> None: ...  # noqa: D102
    def digest(self) -> bytes: ...  # noqa: D102


def require_known_format(document: bytes, name: str) -> None:
    """Raise UnsupportedFormatError if `document` has a newer format than this package knows."""
    if not document:
        raise damaged(name)
    if document[0] > FORMAT:
        raise newer_format(document[0], name)


def require_known_seal(seal: bytes | None, name: str) -> None:
    """Raise UnsupportedFormatError if the seal of a thread names a newer format than this package knows."""
    version = (seal or b"").partition(b" ")[0]
    if len(version) <= _SEALED_DIGITS and version.isdigit() and int(version) > FORMAT:
        raise newer_format(int(version), name)


def damaged(name: str) -> DamagedThreadError:
    """Return the error for a field `name` with data that this package has not written."""
    return DamagedThreadError(
        f"{name} holds what langgraph-checkpoint-compact has not written there: something else has changed it. Delete "
        "the thread, or restore it from a backup."
    )


@contextmanager
def _read_from(name: str) -> Iterator[None]:
    """Raise DamagedThreadError if the data does not match its own lengths and types."""
    try:
        yield
    except (struct.error, IndexError, ValueError) as error:
        raise damaged(name) from error


def newer_format(version: int, name: str) -> UnsupportedFormatError:
    """Return the error for a field `name` of the newer format `version`."""
    return UnsupportedFormatError(
        f"{name} was written in format {version}; this version of langgraph-checkpoint-compact knows formats up to "
        f"{FORMAT}. Update langgraph-checkpoint-compact here to the version that wrote it."
    )


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A stored checkpoint, still serialized.

    `open_channels` are the DeltaChannels that count updates since their last snapshot, escaped. The metadata contains
    them too, but it may be encrypted, and a cleanup without the key needs them. None if only the metadata has them.
    """

    names: Sequence[str]
    parent_id: str
    checkpoint: Typed
    metadata: Typed
    open_channels: Sequence[str] | None = None

    def encode(self) -> bytes:
        """Return the bytes to store."""
        listed = "\n".join(self.names).encode()
        parts = (
            self.parent_id.encode("utf-8", "surrogatepass"),
            self.checkpoint[0].encode(),
            self.checkpoint[1],
            self.metadata[0].encode(),
            self.metadata[1],
        )
        lengths = _PARTS.pack(*map(len, parts))
        channels: tuple[bytes, ...] = ()
        if self.open_channels is not None:
            open_ = "\n".join(self.open_channels).encode()
            channels = _LENGTH.pack(len(open_)), open_
        return b"".join((_DOCUMENT.pack(FORMAT, len(listed)), listed, lengths, *parts, *channels))

    @classmethod
    def decode(cls, document: bytes, name: str) -> StoredCheckpoint:
        """Read the result of `encode`; `name` is for the error."""
        require_known_format(document, name)
        with _read_from(name):
            _, listed = _DOCUMENT.unpack_from(document)
            start = _DOCUMENT.size + listed
            names = document[_DOCUMENT.size : start].decode()
            parts = []
            position = start + _PARTS.size
            for length in _PARTS.unpack_from(document, start):
                parts.append(document[position : position + length])
                position += length
            parent_id, checkpoint_type, checkpoint, metadata_type, metadata = parts
            if not checkpoint_type or not metadata_type:
                raise ValueError("no type")
            return cls(
                names.split("\n") if names else [],
                parent_id.decode("utf-8", "surrogatepass"),
                (checkpoint_type.decode(), checkpoint),
                (metadata_type.decode(), metadata),
                _open_channels(document, position) if position != len(document) else None,
            )


def _open_channels(document: bytes, position: int) -> list[str]:
    """Return the list at this position. A later version may have written more data after it."""
    (length,) = _LENGTH.unpack_from(document, position)
    start = position + _LENGTH.size
    if start + length > len(document):
        raise ValueError("a length that does not fit")
    listed = document[start : start + length].decode()
    return listed.split("\n") if listed else []


@dataclass(frozen=True, slots=True)
class Tail:
    """The length and the digest of a value's body: they show whether a later value continues it."""

    length: int
    digest: bytes

    def encode(self) -> bytes:
        """Return the bytes for a value."""
        return self.length.to_bytes(4, "big") + self.digest


@dataclass(frozen=True, slots=True)
class StoredValue:
    """A stored value. `rest` is its body, or the name of the log with the body."""

    in_log: bool
    tail: Tail
    type: str
    header: bytes
    rest: bytes

    def encode(self) -> bytes:
        """Return the bytes to store."""
        kind, encoded = b"l" if self.in_log else b"i", self.type.encode()
        fixed = _VALUE.pack(FORMAT, kind, self.tail.length, self.tail.digest, len(encoded), len(self.header))
        return b"".join((fixed, encoded, self.header, self.rest))

    @classmethod
    def decode(cls, record: bytes) -> StoredValue:
        """Read the result of `encode`, or its beginning; the scripts have checked the format."""
        with _read_from("A value"):
            _, kind, length, digest, type_length, header_length = _VALUE.unpack_from(record)
            header = _VALUE.size + type_length
            body = header + header_length
            return cls(
                kind == b"l",
                Tail(length, digest),
                record[_VALUE.size : header].decode(),
                record[header:body],
                record[body:],
            )


@dataclass(frozen=True, slots=True)
class StoredWrite:
    """A stored pending write."""

    task_id: str
    index: int
    path: str
    channel: str
    value: Typed


def encode_write(path: str, channel: str, type_: str) -> bytes:
    """Encode the fields between a write's task and its data."""
    parts = (path.encode("utf-8", "surrogatepass"), channel.encode("utf-8", "surrogatepass"), type_.encode())
    return b"".join((_WRITE_REST.pack(*map(len, parts)), *parts))


def decode_writes(field: bytes, own: Iterable[bytes]) -> Iterator[StoredWrite]:
    """Yield the writes of a checkpoint in their order; `own` is the data that has fields of its own."""
    large = iter(own)
    position = 1
    while position < len(field):
        with _read_from("A list of writes"):
            size, write, is_own = _decode_write(field, position)
        position += size
        if is_own:
            write = replace(write, value=(write.value[0], next(large, b"")))
        yield write


def _decode_write(field: bytes, position: int) -> tuple[int, StoredWrite, bool]:
    """Return the length of one write, the write, and whether its data has a field of its own."""
    size, index, task_length = _WRITE.unpack_from(field, position)
    start, end = position + _WRITE.size, position + size
    texts = []
    lengths = (task_length, *_WRITE_REST.unpack_from(field, start + task_length))
    for number, length in enumerate(lengths):
        texts.append(field[start : start + length].decode("utf-8", "surrogatepass"))
        start += length + (_WRITE_REST.size if number == 0 else 0)
    task_id, path, channel, type_ = texts
    if not start < end <= len(field) or not type_:
        raise ValueError("lengths that do not fit, or no type")
    is_own = field[end - 1 : end] == b"o"
    return size, StoredWrite(task_id, index, path, channel, (type_, field[start : end - 1])), is_own


def header_length(type_: str, data: bytes) -> int:
    """Return the number of bytes before the content of a MessagePack array, map, text or DeltaChannel snapshot.

    Appended elements only add bytes at the end of the content. The number only affects how well values share storage:
    a value cut at any place is put together unchanged.
    """
    if type_ != "msgpack" or not data:
        return 0
    first = data[0]
    if first < 0xC0:
        return 1 if first >= 0x80 else 0
    length = _HEADER_LENGTHS.get(first, 0)
    if first in _EXTENSIONS and len(data) > length:
        return length + header_length(type_, data[length : length + 6])
    return length if len(data) >= length else 0


# https://github.com/msgpack/msgpack/blob/master/spec.md#formats
_EXTENSIONS = {0xC7: 3, 0xC8: 4, 0xC9: 6, 0xD4: 2, 0xD5: 2, 0xD6: 2, 0xD7: 2, 0xD8: 2}
_TEXTS = {0xC4: 2, 0xC5: 3, 0xC6: 5, 0xD9: 2, 0xDA: 3, 0xDB: 5}
_ARRAYS_AND_MAPS = {0xDC: 3, 0xDD: 5, 0xDE: 3, 0xDF: 5}
_HEADER_LENGTHS = _EXTENSIONS | _TEXTS | _ARRAYS_AND_MAPS


def measure(body: memoryview, before: Tail | None) -> tuple[Tail, bool]:
    """Return the tail of `body`, and whether `body` begins with the whole body of the tail `before`."""
    digest = blake2b(digest_size=DIGEST_BYTES)
    goes_on = False
    start = 0
    if before is not None and before.length <= len(body):
        start = before.length
        digest.update(body[:start])
        goes_on = digest.digest() == before.digest
    digest.update(body[start:])
    return Tail(len(body), digest.digest()), goes_on
