"""Every layout in which LangGraph's checkpoints lie in Redis, told from the key alone.

The layouts are those of langgraph-checkpoint-redis (RedisSaver, AsyncRedisSaver and the Shallow savers,
``langgraph/checkpoint/redis/base.py`` and ``key_registry.py``), of its 0.0.x releases and its JavaScript
sister (blobs beside the document), of langgraph-checkpoint-aws (ValkeySaver), and plain string keys that
end in an id. Nothing in a key is escaped, so it is read from its right end: the last segment is an id,
what is left is the thread and the namespace.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

# LangGraph's first release with checkpoints is of 2024. An id that claims to be older, or of the future,
# is a random number that looks like a time.
EARLIEST = datetime(2020, 1, 1, tzinfo=UTC).timestamp()
FUTURE_TOLERANCE = 86_400.0  # seconds a writer's clock may be ahead of ours

# No saver's thread, namespace and ids come near; Redis itself allows 512 MB. A thousand keys are in memory several
# times while they are scanned.
MAX_KEY_BYTES = 8_192

ROOT_NAMESPACE = b"__empty__"  # what RedisSaver writes for the empty namespace
SHALLOW_ID = b"shallow"
# A write can reach Redis before its checkpoint does, and a run may be going on: an hour is longer than any.
ORPHAN_GRACE = 3600.0
INTERRUPT_INDEX = b"-3"  # langgraph.checkpoint.base.WRITES_IDX_MAP["__interrupt__"]

VALKEY_DOCUMENT = b"checkpoint"  # ValkeySaver's prefix can't be changed
VALKEY_WRITES = b"writes:{"
VALKEY_LIST = b"thread:{"

# 100 ns intervals between the UUID epoch, 1582-10-15, and the Unix epoch (RFC 9562, section 5.1).
UUID_EPOCH = 0x01B21DD213814000


class Family:
    """What a key holds. The order is the order of deletion: what makes a thread findable goes first.

    Plain numbers: keys are written to disk and back by the million, which an enumeration would slow down.
    """

    POINTER = 0
    DOCUMENT = 1
    WRITE = 2
    REGISTRY = 3
    BLOB = 4
    # Of a checkpoint that is trimmed: before it, since afterwards nothing would tell that they are superfluous.
    SUPERSEDED_BLOB = 5


class CheckpointKey(NamedTuple):
    """A key that belongs to a checkpoint, taken apart.

    Attributes:
        family: What it holds, one of `Family`.
        thread: The thread's id; where `certain` is False, the most likely one.
        namespace: The namespace as written in the key: ``b"__empty__"`` or ``b""`` for the root.
        checkpoint_id: The id of the checkpoint that it is or belongs to; empty where the key has none.
        time: When that checkpoint was made, seconds since 1970; None where the key does not say.
        key: The whole key.
        certain: Whether the key alone tells where the thread ends and the namespace begins.
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
    """The prefixes that RedisSaver was given (its ``checkpoint_prefix`` and ``checkpoint_write_prefix``)."""

    checkpoint: str = "checkpoint"
    write: str = "checkpoint_write"

    def owners_of(self, satellite: bytes, checkpoint_id: bytes) -> set[bytes]:
        """The keys of the documents, of which one may exist, that a write or a registry of writes belongs to.

        ``checkpoint_write:a:__empty__:<id>:<task>:0`` belongs to ``checkpoint:a:__empty__:<id>``, or to the
        shallow ``checkpoint:a:``.
        """
        heads = (self.write.encode(), b"write_keys_zset", b"write_registry", b"writes")
        head = next(head for head in heads if satellite.startswith(head + b":"))
        stem = satellite[len(head) :].rpartition(b":" + checkpoint_id)[0]
        document = VALKEY_DOCUMENT if head == b"writes" else self.checkpoint.encode()
        shallow = stem.removesuffix(b":" + ROOT_NAMESPACE)
        shallow += b":" if shallow != stem else b""
        return {
            document + stem + b":" + checkpoint_id,
            document + shallow,
            document + stem + b":" + SHALLOW_ID,
        }


_UUID = rb"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
_ISO = rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?"
_IS_UUID = re.compile(_UUID)
_ENDS_IN_UUID6 = re.compile(
    rb":[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-6[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}", re.ASCII
)
_IS_ULID = re.compile(rb"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_ENDS_IN_ISO = re.compile(rb":(" + _ISO + rb")$")
_CROCKFORD = {digit: value for value, digit in enumerate(b"0123456789ABCDEFGHJKMNPQRSTVWXYZ")}


class KeyParser:
    """Takes keys apart.

    Args:
        now: Seconds since 1970; times later than a day after it are no times.
        prefixes: The prefixes RedisSaver was given.
    """

    def __init__(self, now: float, prefixes: KeyPrefixes | None = None) -> None:
        self.prefixes = prefixes = prefixes or KeyPrefixes()
        self.latest = now + FUTURE_TOLERANCE
        self._grace_over = now - ORPHAN_GRACE
        checkpoint, write = prefixes.checkpoint.encode(), prefixes.write.encode()
        self._parsers: dict[bytes, Callable[[bytes, bytes], CheckpointKey | None]] = {
            VALKEY_DOCUMENT: self._valkey_document,
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
        """Take `key` apart; None when it is not a checkpoint's."""
        if (head := self._head.match(key)) is None:
            return None
        if not key.isascii() or len(key) > MAX_KEY_BYTES:
            return self._unusual(head, key)
        return self._parsers[head[1]](key, key[head.end() :])

    def _unusual(self, head: re.Match[bytes], key: bytes) -> CheckpointKey | None:
        if not _is_readable(key):
            # No saver writes such a key: the thread ids it gets are text. Kept as one of unknown age.
            return CheckpointKey(Family.DOCUMENT, key, b"", key, None, key, True)
        return self._parsers[head[1]](key, key[head.end() :])

    def time_of(self, checkpoint_id: bytes) -> float | None:
        """When the checkpoint with this id was made, seconds since 1970; None when the id does not say."""
        time = _id_time(checkpoint_id)
        return time if time is not None and EARLIEST <= time <= self.latest else None

    def time_of_text(self, text: str) -> float | None:
        """The ISO time that a document carries, seconds since 1970; None when it is no usable time."""
        if not text.isascii() or _ENDS_IN_ISO.match(b":" + text.encode()) is None:
            return None
        time = _iso_time(text.encode())
        return time if time is not None and EARLIEST <= time <= self.latest else None

    def is_past_grace(self, time: float | None) -> bool:
        """Whether what was made at `time` and has no owner was left behind rather than being written."""
        return time is not None and time < self._grace_over

    def _document(self, key: bytes, rest: bytes) -> CheckpointKey:
        if _ENDS_IN_UUID6.match(rest, len(rest) - 37):
            # By far the most frequent case, and worth its own lines: a million of them make a second.
            checkpoint_id, stem = rest[-36:], rest[:-37]
            digits = checkpoint_id[:8] + checkpoint_id[9:13] + checkpoint_id[15:18]
            time: float | None = (int(digits, 16) - UUID_EPOCH) / 1e7
            if not EARLIEST <= time <= self.latest:  # type: ignore[operator]
                time = None
            if b":" not in stem:
                return CheckpointKey(Family.DOCUMENT, stem, b"", checkpoint_id, time, key, True)
        else:
            stem, checkpoint_id = _split_id(rest)
            time = self.time_of(checkpoint_id)
        # Braces may be ValkeySaver's, or part of the thread's id.
        thread, namespace, certain = split_braces(stem) or split_stem(stem)
        return CheckpointKey(Family.DOCUMENT, thread, namespace, checkpoint_id, time, key, certain)

    def _pointer(self, key: bytes, rest: bytes) -> CheckpointKey:
        thread, namespace, certain = split_stem(rest)
        return CheckpointKey(Family.POINTER, thread, namespace, b"", None, key, certain)

    def _write(self, key: bytes, rest: bytes) -> CheckpointKey:
        stem, checkpoint_id = rest, b""
        parts = rest.rsplit(b":", 3)
        if len(parts) == 4 and parts[3].lstrip(b"-").isdigit():
            stem, checkpoint_id = parts[0], parts[1]
        thread, namespace, certain = split_stem(stem)
        return CheckpointKey(Family.WRITE, thread, namespace, checkpoint_id, self.time_of(checkpoint_id), key, certain)

    def _registry(self, key: bytes, rest: bytes) -> CheckpointKey:
        stem, _, checkpoint_id = rest.rpartition(b":")
        thread, namespace, certain = split_stem(stem)
        return CheckpointKey(
            Family.REGISTRY, thread, namespace, checkpoint_id, self.time_of(checkpoint_id), key, certain
        )

    def _blob(self, key: bytes, rest: bytes) -> CheckpointKey:
        # A channel's name may hold colons (branch:to:node), so the right end says nothing. The root
        # namespace is marked; in another the version is last, and the grammar of namespaces must do.
        for mark, namespace in ((b":__empty__:", ROOT_NAMESPACE), (b"::", b"")):
            thread, found, _ = rest.partition(mark)
            if found and thread:
                return CheckpointKey(Family.BLOB, thread, namespace, b"", None, key, True)
        thread, namespace, _ = split_stem(rest.rsplit(b":", 2)[0])
        return CheckpointKey(Family.BLOB, thread, namespace, b"", None, key, False)

    def _valkey_document(self, key: bytes, rest: bytes) -> CheckpointKey | None:
        """Take ValkeySaver's document apart where RedisSaver has another prefix: no other key has this one."""
        return self._document(key, rest) if split_braces(_split_id(rest)[0]) else None

    def _valkey_writes(self, key: bytes, rest: bytes) -> CheckpointKey | None:
        stem, _, checkpoint_id = rest.rpartition(b":")
        if (split := split_braces(stem)) is None:
            return None
        return CheckpointKey(Family.WRITE, *split[:2], checkpoint_id, self.time_of(checkpoint_id), key, True)

    def _valkey_list(self, key: bytes, rest: bytes) -> CheckpointKey | None:
        if (split := split_braces(rest)) is None:
            return None
        return CheckpointKey(Family.POINTER, *split[:2], b"", None, key, True)


def split_stem(stem: bytes) -> tuple[bytes, bytes, bool]:
    """Split ``thread:namespace`` and say whether the split is certain.

    A root namespace is marked by a saver (``__empty__`` or an empty end). Without a mark the end that has a
    namespace's shape is taken for one, and the caller must ask the document.
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
    """Where the longest end of `stem` begins that has a namespace's shape, after a thread and a colon; 0 if none has.

    LangGraph joins the levels of a namespace with "|" and a node with its task's id by ":"; neither character may
    occur in a node's name (langgraph.constants.NS_SEP and NS_END). From the right, level by level: a regular
    expression would begin anew at each colon, which is quadratic.
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


def split_braces(stem: bytes) -> tuple[bytes, bytes, bool] | None:
    """Split ValkeySaver's ``{thread}:namespace``; None where there are no braces. Never certain."""
    end = stem.rfind(b"}:")
    if not stem.startswith(b"{") or end < 1 or stem.endswith(b":__empty__"):
        return None
    return stem[1:end], stem[end + 2 :], False


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
    # A plain key without an id has all there is for one.
    return (stem, last) if stem else (rest, rest)


def _id_time(checkpoint_id: bytes) -> float | None:
    """The time inside a UUID of version 1, 6 or 7 (RFC 9562), a ULID or an ISO time; None if there is none."""
    if len(checkpoint_id) == 36:
        return _uuid_time(checkpoint_id) if _IS_UUID.fullmatch(checkpoint_id) else _iso_time(checkpoint_id)
    if len(checkpoint_id) == 26 and _IS_ULID.fullmatch(checkpoint_id):
        milliseconds = 0
        for digit in checkpoint_id[:10]:
            milliseconds = milliseconds * 32 + _CROCKFORD[digit]
        return milliseconds / 1e3
    return _iso_time(checkpoint_id)


def _uuid_time(text: bytes) -> float | None:
    version = text[14:15]
    # JavaScript's LangGraph gives the step for a clock sequence, also the first one, -1, which is no variant at all.
    if text[19:20] not in b"89abAB" and (version, text[19:23]) != (b"6", b"ffff"):
        return None
    if version == b"6":
        return (int(text[:8] + text[9:13] + text[15:18], 16) - UUID_EPOCH) / 1e7
    if version == b"7":
        return int(text[:8] + text[9:13], 16) / 1e3
    if version == b"1":
        return (int(text[15:18] + text[9:13] + text[:8], 16) - UUID_EPOCH) / 1e7
    return None


def _iso_time(text: bytes) -> float | None:
    if not 16 <= len(text) <= 35 or text[4:5] != b"-":
        return None
    try:
        time = datetime.fromisoformat(text.decode("ascii"))
    except ValueError:
        return None
    if time.year < 2:
        # With a zone it can lie before the first representable moment.
        return None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
