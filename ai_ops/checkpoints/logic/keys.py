"""All key layouts of LangGraph checkpoints in Redis, recognised from the key alone.

The layouts are those of langgraph-checkpoint-redis (RedisSaver, AsyncRedisSaver and the Shallow savers,
``langgraph/checkpoint/redis/base.py`` and ``key_registry.py``), of its 0.0.x releases and its JavaScript
version (blobs beside the document), of langgraph-checkpoint-aws (ValkeySaver; braces around the thread since 1.0.4),
and plain string keys that end in an id. Keys escape no character, so the parser reads them from the right end: the last
segment is an id, and the rest (the stem) is the thread and the namespace. If a stem has two readings, neither is
certain: the names in the document decide, or a pointer or a list of the saver (see `readings`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from ai_ops.checkpoints.logic.orphans import is_past_grace
from ai_ops.checkpoints.logic.times import UUID_EPOCH, as_number, id_time, number_time, value_time

# LangGraph's first release with checkpoints is of 2024. An id with an older time, or with a time in the future, is a
# random number.
EARLIEST = datetime(2020, 1, 1, tzinfo=UTC).timestamp()
FUTURE_TOLERANCE = 86_400.0  # seconds a writer's clock may be ahead of ours
# A plain number may have any meaning. The parser takes it for a time only if it is within the last ten years.
NUMBERS_REACH_BACK = 10 * 365.25 * 86_400

# Keys of savers are far shorter than this; Redis itself allows 512 MB. A scan holds several copies of a thousand keys
# in memory.
MAX_KEY_BYTES = 8_192

ROOT_NAMESPACE = b"__empty__"  # RedisSaver writes this for the empty namespace
SHALLOW_ID = b"shallow"
INTERRUPT_INDEX = b"-3"  # langgraph.checkpoint.base.WRITES_IDX_MAP["__interrupt__"]

VALKEY_DOCUMENT = b"checkpoint"  # ValkeySaver's prefix can't be changed
VALKEY_WRITES = b"writes:"
VALKEY_LIST = b"thread:"
# Savers before 0.5 give their pointers this name, with any prefix.
FIXED_POINTER = b"checkpoint_latest"


class Family:
    """The families of keys, in the order of deletion: pointers go first, because savers find a thread by them.

    They are plain numbers: an enumeration would slow down writing millions of keys to disk and reading them back.
    """

    POINTER = 0
    DOCUMENT = 1
    WRITE = 2
    REGISTRY = 3
    BLOB = 4
    # Blobs of a trimmed checkpoint. They go before it: without the checkpoint nothing shows that they are superfluous.
    SUPERSEDED_BLOB = 5


class CheckpointKey(NamedTuple):
    """The parts of a key that belongs to a checkpoint.

    Attributes:
        family: The kind of the key, one of `Family`.
        thread: The thread's id; where `certain` is False, the guess of `split_stem`.
        namespace: The namespace as written in the key: ``b"__empty__"`` or ``b""`` for the root.
        checkpoint_id: The id of the checkpoint that the key is or belongs to; empty if the key has none.
        time: The time of that checkpoint, seconds since 1970; None if the key has none.
        key: The whole key.
        certain: Whether the key alone shows the end of the thread and the start of the namespace.
    """

    family: int
    thread: bytes
    namespace: bytes
    checkpoint_id: bytes
    time: float | None
    key: bytes
    certain: bool


@dataclass(frozen=True)
class KeyPrefixes:
    """The prefixes of RedisSaver (its ``checkpoint_prefix`` and ``checkpoint_write_prefix``)."""

    checkpoint: str = "checkpoint"
    write: str = "checkpoint_write"

    def owners_of(self, satellite: bytes, checkpoint_id: bytes) -> set[bytes]:
        """Return the possible keys of the document that a write or a registry of writes belongs to.

        ``checkpoint_write:a:__empty__:<id>:<task>:0`` belongs to ``checkpoint:a:__empty__:<id>``, or to the
        shallow ``checkpoint:a:``. RedisSaver before 0.1.3 leaves ``__empty__`` out of its registries.
        """
        heads = (self.write.encode(), b"write_keys_zset", b"write_registry", b"writes")
        head = next(head for head in heads if satellite.startswith(head + b":"))
        stem = satellite[len(head) :].rpartition(b":" + checkpoint_id)[0]
        document = VALKEY_DOCUMENT if head == b"writes" else self.checkpoint.encode()
        stems = {stem}
        if stem.endswith(b":"):
            stems.add(stem + ROOT_NAMESPACE)
        elif stem.endswith(b":" + ROOT_NAMESPACE):
            stems.add(stem.removesuffix(ROOT_NAMESPACE))
        # A shallow saver's document has no id, or the id "shallow"; the document of its root ends in a colon.
        owners = {document + each + b":" + last for each in stems for last in (checkpoint_id, SHALLOW_ID)}
        return owners | {document + each for each in stems if not each.endswith(ROOT_NAMESPACE)}


_UUID = rb"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
_ISO = rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?"
_IS_UUID = re.compile(_UUID)
_ENDS_IN_UUID6 = re.compile(
    rb":[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-6[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}", re.ASCII
)
# JavaScript's LangGraph writes the step as the clock sequence. The first step is -1, which is no valid variant.
_IS_LANGGRAPH_ID = re.compile(
    rb"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-6[0-9a-fA-F]{3}-(?:[89abAB][0-9a-fA-F]{3}|ffff)-[0-9a-fA-F]{12}"
    rb"|00000000-0000-0000-0000-000000000000"
)
_ENDS_IN_ISO = re.compile(rb":(" + _ISO + rb")$")


class KeyParser:
    """Parses keys.

    Args:
        now: Seconds since 1970; later times by more than a day do not count as times.
        prefixes: The prefixes of RedisSaver.
    """

    def __init__(self, now: float, prefixes: KeyPrefixes | None = None) -> None:
        self.prefixes = prefixes = prefixes or KeyPrefixes()
        self.latest = now + FUTURE_TOLERANCE
        self._now = now
        self._earliest_number = now - NUMBERS_REACH_BACK
        checkpoint, write = prefixes.checkpoint.encode(), prefixes.write.encode()
        self._parsers: dict[bytes, Callable[[bytes, bytes], CheckpointKey | None]] = {
            VALKEY_DOCUMENT: self._valkey_document,
            FIXED_POINTER: self._fixed_pointer,
            checkpoint + b"_latest": self._pointer,
            checkpoint + b"_blob": self._blob,
            checkpoint: self._document,
            write: self._write,
            b"write_keys_zset": self._registry,
            b"write_registry": self._registry,
            b"writes": self._valkey_writes,
            b"thread": self._valkey_list,
        }
        longest_first = sorted(self._parsers, key=len, reverse=True)
        self._head = re.compile(b"(" + b"|".join(map(re.escape, longest_first)) + b"):")

    def parse(self, key: bytes) -> CheckpointKey | None:
        """Parse `key`; return None if it belongs to no checkpoint."""
        if (head := self._head.match(key)) is None:
            return None
        if not key.isascii() or len(key) > MAX_KEY_BYTES:
            return self._unusual(head, key)
        return self._parsers[head[1]](key, key[head.end() :])

    def _unusual(self, head: re.Match[bytes], key: bytes) -> CheckpointKey | None:
        if not _is_readable(key):
            # No saver writes such a key: thread ids are text. It stays, as a checkpoint of unknown age.
            return CheckpointKey(Family.DOCUMENT, key, b"", key, None, key, True)
        return self._parsers[head[1]](key, key[head.end() :])

    def time_of(self, checkpoint_id: bytes) -> float | None:
        """Return the time of the checkpoint with this id, seconds since 1970; None if the id has none."""
        return self._plausible(id_time(checkpoint_id))

    def time_of_value(self, value: object) -> float | None:
        """Return the time in a field of a value, seconds since 1970; None if it is not a usable time."""
        number = as_number(value)
        return self._plausible(value_time(value)) if number is None else self.time_of_number(number)

    def time_of_number(self, number: float) -> float | None:
        """Return the time of a number in seconds or milliseconds; None if it is not within the last ten years."""
        time = self._plausible(number_time(number))
        return time if time is not None and time >= self._earliest_number else None

    def _plausible(self, time: float | None) -> float | None:
        return time if time is not None and EARLIEST <= time <= self.latest else None

    def is_past_grace(self, time: float | None) -> bool:
        """Return whether an object of `time` without an owner is old enough to be a leftover."""
        return is_past_grace(time, self._now)

    def _document(self, key: bytes, rest: bytes) -> CheckpointKey:
        if _ENDS_IN_UUID6.match(rest, len(rest) - 37):
            # By far the most frequent case. These lines save a second per million keys.
            checkpoint_id, stem = rest[-36:], rest[:-37]
            digits = checkpoint_id[:8] + checkpoint_id[9:13] + checkpoint_id[15:18]
            time: float | None = (int(digits, 16) - UUID_EPOCH) / 1e7
            if not EARLIEST <= time <= self.latest:  # type: ignore[operator]
                time = None
            if b":" not in stem:
                return CheckpointKey(Family.DOCUMENT, stem, b"", checkpoint_id, time, key, True)
        else:
            stem, checkpoint_id = _split_id(rest)
            # A key of one part has its time in the value or nowhere, even if the thread's id looks like a time.
            time = self.time_of(checkpoint_id) if checkpoint_id != rest else None
        thread, namespace, certain = split_stem(stem)
        # The braces are ValkeySaver's, or part of the thread's id.
        certain = certain and not (stem.startswith(b"{") and stem.endswith(b"}:"))
        return CheckpointKey(Family.DOCUMENT, thread, namespace, checkpoint_id, time, key, certain)

    def _pointer(self, key: bytes, rest: bytes) -> CheckpointKey:
        thread, namespace, certain = split_stem(rest)
        return CheckpointKey(Family.POINTER, thread, namespace, b"", None, key, certain)

    def _fixed_pointer(self, key: bytes, rest: bytes) -> CheckpointKey:
        """Parse a pointer of savers before 0.5, which use it with any prefix: only its value shows the owner."""
        return self._pointer(key, rest)._replace(certain=False)

    def _write(self, key: bytes, rest: bytes) -> CheckpointKey:
        stem, checkpoint_id = rest, b""
        parts = rest.rsplit(b":", 3)
        if len(parts) == 4 and parts[3].lstrip(b"-").isdigit():
            stem, checkpoint_id = parts[0], parts[1]
        return self._satellite(Family.WRITE, key, stem, checkpoint_id)

    def _registry(self, key: bytes, rest: bytes) -> CheckpointKey | None:
        stem, _, checkpoint_id = rest.rpartition(b":")
        if b":" not in stem or not (checkpoint_id == SHALLOW_ID or is_langgraph_id(checkpoint_id)):
            # Other software has registries of writes too.
            return None
        return self._satellite(Family.REGISTRY, key, stem, checkpoint_id)

    def _satellite(self, family: int, key: bytes, stem: bytes, checkpoint_id: bytes) -> CheckpointKey:
        """Parse a key that belongs to a checkpoint; only LangGraph's ids give it a time."""
        thread, namespace, certain = split_stem(stem)
        time = self.time_of(checkpoint_id) if is_langgraph_id(checkpoint_id) else None
        return CheckpointKey(family, thread, namespace, checkpoint_id, time, key, certain)

    def _blob(self, key: bytes, rest: bytes) -> CheckpointKey:
        # A channel's name may contain colons (branch:to:node), so reading from the right does not work. The root
        # namespace has a mark. In other namespaces the version is last, and only the form of a
        # namespace shows its start.
        for mark, namespace in ((b":__empty__:", ROOT_NAMESPACE), (b"::", b"")):
            thread, found, _ = rest.partition(mark)
            if found and thread:
                return CheckpointKey(Family.BLOB, thread, namespace, b"", None, key, True)
        thread, namespace, _ = split_stem(rest.rsplit(b":", 2)[0])
        return CheckpointKey(Family.BLOB, thread, namespace, b"", None, key, False)

    def _valkey_document(self, key: bytes, rest: bytes) -> CheckpointKey | None:
        """Parse a document of ValkeySaver if RedisSaver has another prefix: the value must confirm it."""
        document = self._document(key, rest)
        return document._replace(certain=False) if _may_be_valkeys(stem_of(document)) else None

    def _valkey_writes(self, key: bytes, rest: bytes) -> CheckpointKey | None:
        stem, _, checkpoint_id = rest.rpartition(b":")
        if not is_langgraph_id(checkpoint_id) or not _may_be_valkeys(stem):
            return None
        written = self._satellite(Family.WRITE, key, stem, checkpoint_id)
        return written._replace(certain=written.certain and not stem.startswith(b"{"))

    def _valkey_list(self, key: bytes, rest: bytes) -> CheckpointKey | None:
        if not _may_be_valkeys(rest):
            return None
        pointer = self._pointer(key, rest)
        return pointer._replace(certain=pointer.certain and not rest.startswith(b"{"))


def split_stem(stem: bytes) -> tuple[bytes, bytes, bool]:
    """Split ``thread:namespace``; return both, and whether the split is certain.

    Savers mark a root namespace (``__empty__`` or an empty end). Without a mark, an end with the form of a namespace
    counts as one, and the caller must read the document.
    """
    if stem.endswith(b":__empty__"):
        return stem[:-10], ROOT_NAMESPACE, True
    if stem.endswith(b":"):
        return stem[:-1], b"", True
    if b":" not in stem:
        return stem, b"", True
    at = _namespace_in(stem)
    return (stem[: at - 1], stem[at:], False) if at else (stem, b"", False)


def _namespace_in(stem: bytes) -> int:
    """Return the start of the longest end of `stem` with a namespace's form, after a thread and a colon; 0 for none.

    LangGraph joins the levels of a namespace with "|", and a node and the id of its task with ":"; a node's name has
    neither character (langgraph.constants.NS_SEP and NS_END). This goes level by level from the right: a regular
    expression would start again at each colon, which is quadratic.
    """
    found, end = 0, len(stem)
    while True:
        begin = stem.rfind(b"|", 0, end) + 1
        last = stem.rfind(b":", begin, end)
        if last < 0:
            is_level = end > begin
        else:
            before = stem.rfind(b":", begin, last)
            has_task = last - before > 1 and _IS_UUID.fullmatch(stem, last + 1, end) is not None
            at = before if has_task and before >= begin and before > 0 else last
            if at > 0 and end - at > 1:
                found = at + 1
            is_level = before < begin and has_task and last > begin
        if not begin or not is_level:
            return found
        end = begin - 1


def split_braces(stem: bytes) -> tuple[bytes, bytes] | None:
    """Split ValkeySaver's ``{thread}:namespace``; return None for other stems. The split is never certain."""
    end = stem.rfind(b"}:")
    if end < 1 or not stem.startswith(b"{"):
        return None
    namespace = stem[end + 2 :]
    if namespace == ROOT_NAMESPACE or (namespace and _namespace_in(b"x:" + namespace) != 2):
        return None
    return stem[1:end], namespace


def readings(stem: bytes) -> list[tuple[bytes, bytes]]:
    """Return every (thread, namespace) that the stem of a document of any saver can mean; likeliest first.

    ``{a}:b`` is a thread of that name, namespace b of thread ``{a}``, or ValkeySaver's namespace b of thread ``a``.
    """
    thread, namespace, certain = split_stem(stem)
    found = [(thread, namespace)] if certain else [(stem, b""), (thread, namespace)]
    if (split := split_braces(stem)) is not None:
        # For the root, other savers write another mark, and only ValkeySaver puts braces around all of its threads.
        found.insert(0 if not split[1] else len(found), split)
    return found


def stem_of(key: CheckpointKey) -> bytes:
    """Return the stem of a key; for a blob, the thread alone."""
    stem = key.thread + b":" + key.namespace
    if key.checkpoint_id:
        return stem if stem + b":" + key.checkpoint_id in key.key else key.thread
    return stem if key.key.endswith(b":" + stem) else key.thread


def is_langgraph_id(checkpoint_id: bytes) -> bool:
    """Return whether LangGraph makes such ids: UUIDs of version 6, and the UUID of zeros, which means no id."""
    return _IS_LANGGRAPH_ID.fullmatch(checkpoint_id) is not None


def _may_be_valkeys(stem: bytes) -> bool:
    """Return whether ValkeySaver may have written this: a thread, a colon, perhaps a namespace of LangGraph's form."""
    return b":" in stem and not stem.endswith(b":" + ROOT_NAMESPACE)


def _is_readable(key: bytes) -> bool:
    if len(key) > MAX_KEY_BYTES:
        return False
    if key.isascii():
        return True
    try:
        key.decode()
    except UnicodeDecodeError:
        return False
    return True


def _split_id(rest: bytes) -> tuple[bytes, bytes]:
    """Split a document's key, without its prefix, into ``thread:namespace`` and the id."""
    stem, _, last = rest.rpartition(b":")
    if len(last) != 36 and (match := _ENDS_IN_ISO.search(rest[-48:])):
        return rest[: -len(match[0])], match[1]
    if not last:
        # A shallow saver's root document: its key ends in the empty namespace.
        return rest, b""
    # For a key of one part, this part is the id too.
    return (stem, last) if stem else (rest, rest)
