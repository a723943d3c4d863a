"""The meaning of the values of checkpoint keys.

The layouts are those of RedisSaver, the JavaScript saver, ValkeySaver and plain documents. This module does not use
Redis.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from ai_ops.checkpoints.logic.deletion import Guard
from ai_ops.checkpoints.logic.keys import (
    MAX_KEY_BYTES,
    ROOT_NAMESPACE,
    SHALLOW_ID,
    VALKEY_LIST,
    VALKEY_WRITES,
    CheckpointKey,
    Family,
    KeyParser,
    is_langgraph_id,
    stem_of,
)
from ai_ops.checkpoints.logic.lookups import Lineage
from ai_ops.checkpoints.logic.threads import Document

# A text with this number of values takes about fifty megabytes when parsed. A text with more is not a checkpoint.
MAX_VALUES = 250_000
MAX_CHANNELS = 1_000
MAX_NUMBER = 10**18  # of a thread whose id is a number
# The fields to read in a document if its key does not have their values, and the fields in which programs write times.
NAMES = ("$.thread_id", "$.checkpoint_ns", "$.checkpoint_id")
TIMES = ("$.checkpoint.ts", "$.ts", "$.timestamp", "$.created_at", "$.metadata.timestamp")
DETAILS = (*NAMES, *TIMES)
LINEAGE = ("$.parent_checkpoint_id", "$.metadata")

INTERRUPT_CHANNEL = "__interrupt__"
UNKNOWN_LINEAGE = Lineage(b"", frozenset(), is_known=False)


class Reading(NamedTuple):
    """The value of a key, if it was read.

    Attributes:
        kind: Its type in Redis; ``b"none"`` if there is no such key.
        value: A string's text, the requested part of a JSON document, a list's first item, or a sorted set's first
            members. None for other types, and for a value that is too long or unreadable.
    """

    kind: bytes
    value: Any

    @property
    def text(self) -> bytes | None:
        """Return the value of a string, a JSON document or a list."""
        return self.value if isinstance(self.value, bytes) else None

    @property
    def is_document(self) -> bool:
        """Return whether it is a JSON document of RedisJSON, and not a string with JSON."""
        return self.kind == b"ReJSON-RL"

    @property
    def is_unread(self) -> bool:
        """Return whether the value was not read."""
        return self.kind != b"none" and self.value is None


def is_vague(key: CheckpointKey, parser: KeyParser) -> bool:
    """Return whether the value is needed for the facts about a key, or to know whether it belongs to a checkpoint."""
    if key.family == Family.DOCUMENT:
        # A key that no saver writes has its whole name as id, and its value is not read.
        return (key.time is None or not key.certain) and key.checkpoint_id != key.key
    if key.family == Family.BLOB:
        return not key.certain
    if key.family == Family.POINTER:
        return is_valkey_list(key.key) or not _has_our_prefix(key, parser)
    return key.family == Family.REGISTRY and key.checkpoint_id == SHALLOW_ID


def completed(key: CheckpointKey, reading: Reading, parser: KeyParser) -> CheckpointKey | None:
    """Complete a key from its value: thread, namespace, id and time.

    A value that no saver writes makes it a key of unknown age. None if the value does not belong to a checkpoint,
    because other software uses such names too.
    """
    if key.family == Family.REGISTRY:
        members = reading.value if isinstance(reading.value, list) else []
        times = [parsed.time for parsed in map(parser.parse, members) if parsed]
        return key._replace(time=max((time for time in times if time is not None), default=None))
    if key.family == Family.POINTER:
        return key if _is_pointer(key, reading, parser) else None
    found = json_in(reading.text)
    if reading.is_document:
        details = {path: first_found(found.get(path)) for path in DETAILS} if isinstance(found, dict) else None
    else:
        details = {path: _at(found, path) for path in DETAILS} if isinstance(found, dict) else None
    if not _has_our_prefix(key, parser) and not _is_valkeys(key, reading, details):
        return None
    if details is None:
        return key._replace(time=None) if reading.is_document else key
    return _completed_from(key, details, parser)


def _has_our_prefix(key: CheckpointKey, parser: KeyParser) -> bool:
    prefix = parser.prefixes.checkpoint.encode()
    return key.key.startswith((prefix + b":", prefix + b"_"))


def _is_valkeys(key: CheckpointKey, reading: Reading, details: Mapping[str, Any] | None) -> bool:
    """Return whether a document without our prefix is from ValkeySaver, not from a RedisSaver of another prefix."""
    if reading.is_document:
        return False
    return stem_of(key).startswith(b"{") or _name(details, "$.thread_id") is not None


def _is_pointer(key: CheckpointKey, reading: Reading, parser: KeyParser) -> bool:
    text = reading.text or b""
    if is_valkey_list(key.key):
        return reading.kind == b"list" and is_langgraph_id(text)
    return reading.kind == b"string" and text.startswith(parser.prefixes.checkpoint.encode() + b":")


def _completed_from(key: CheckpointKey, details: Mapping[str, Any], parser: KeyParser) -> CheckpointKey:
    """Complete a document or blob from the JSON object in its value."""
    if any(details[path] is not None and _name(details, path) is None for path in NAMES):
        return key._replace(time=None)
    thread = _name(details, "$.thread_id")
    named = None if thread is None else _named(key, thread, _name(details, "$.checkpoint_ns"))
    if named is not None:
        own_id = _name(details, "$.checkpoint_id")
        if own_id is None and key.key.endswith(b":" + named[0]):
            # One key per thread: the apparent id is the end of the thread's id.
            key = key._replace(checkpoint_id=named[0], time=None)
        elif own_id is not None and (key.time is None or key.key.endswith(b":" + named[1])):
            key = key._replace(checkpoint_id=own_id, time=parser.time_of(own_id))
        key = key._replace(thread=named[0], namespace=named[1], certain=True)
    if key.family != Family.DOCUMENT or key.time is not None:
        return key
    times = [parser.time_of_value(details[path]) for path in TIMES]
    if key.checkpoint_id.isdigit() and key.checkpoint_id != key.thread:
        # A number alone may have any meaning. As a field of a JSON object it is usually a time.
        times.append(parser.time_of_value(key.checkpoint_id.decode()))
    return key._replace(time=max((time for time in times if time is not None), default=None))


def _named(key: CheckpointKey, thread: bytes, namespace: bytes | None) -> tuple[bytes, bytes] | None:
    """Return the thread and namespace of a document with these names; None if its key can't belong to that thread.

    The root namespace has the spelling of its satellites' keys. The JavaScript saver writes ``__empty__`` in documents
    and an empty text in keys. Python's shallow saver does the reverse for its documents, and writes ``__empty__`` in
    all other keys.
    """
    stem = stem_of(key)
    if stem == thread or key.key.endswith(b":" + thread):
        written = b""
    elif stem.startswith((thread + b":", b"{" + thread + b"}:")):
        written = stem[len(thread) + (3 if stem.startswith(b"{" + thread + b"}:") else 1) :]
    elif b":" + thread + b":" in key.key:
        # There is text before the thread, such as a tenant. Two tenants must not become one thread.
        return (thread, namespace) if key.family == Family.BLOB and namespace else (thread, stem)
    else:
        return None
    namespace = written if namespace is None else namespace
    if namespace in (b"", ROOT_NAMESPACE):
        is_marked = key.key.endswith(b":") or written == ROOT_NAMESPACE or key.family == Family.BLOB
        return thread, ROOT_NAMESPACE if is_marked and ROOT_NAMESPACE + b":" in key.key + b"__empty__:" else b""
    return thread, namespace


def _name(details: Mapping[str, Any] | None, path: str) -> bytes | None:
    """Return a name in a value as bytes; None if no key can have it."""
    value = details.get(path) if details else None
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < MAX_NUMBER:
        value = str(value)
    return encoded(value)


def _at(value: object, path: str) -> Any:
    for name in path.removeprefix("$.").split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def head_named(pointer: bytes, reading: Reading, parser: KeyParser) -> Document | None:
    """Return the first document of a pointer or list; None for other keys."""
    value, kind = reading.text, b"list" if is_valkey_list(pointer) else b"string"
    if value is None or reading.kind != kind or len(value) > MAX_KEY_BYTES:
        return None
    return document_named(pointer, value, parser)


def document_named(pointer: bytes, value: bytes, parser: KeyParser) -> Document:
    """Return the document of a pointer's value or a list's first item."""
    key = b"checkpoint:" + pointer[len(VALKEY_LIST) :] + b":" + value if is_valkey_list(pointer) else value
    parsed = parser.parse(key)
    return Document(key, parsed.checkpoint_id, parsed.time) if parsed else Document(key, b"", None)


def pointer_value(guard: Guard) -> bytes:
    """Return the value of the pointer that names the first of its documents."""
    if not guard.documents:
        return b""
    document = guard.documents[0]
    if document.key == guard.key:
        return json.dumps([document.checkpoint_id.decode()], ensure_ascii=False).encode()
    return document.checkpoint_id if is_valkey_list(guard.key) else document.key


def lineage_in(reading: Reading) -> Lineage:
    """Return the parent, and the DeltaChannels whose values are in ancestors.

    ``metadata.counters_since_delta_snapshot`` maps a channel to (updates, supersteps) since its last snapshot, and
    omits those with a snapshot here (langgraph.checkpoint.base.CheckpointMetadata). RedisSaver keeps metadata as JSON
    in a string, ValkeySaver as JSON in base64.
    """
    document = json_in(reading.text)
    if not isinstance(document, dict):
        return UNKNOWN_LINEAGE
    if reading.is_document:
        parent, metadata = (first_found(document.get(path)) for path in LINEAGE)
    else:
        parent, metadata = document.get("parent_checkpoint_id"), document.get("metadata")
    if isinstance(metadata, str):
        packed = metadata.encode(errors="replace")
        metadata = json_in(packed) or json_in(_unpacked(packed))
    counters = metadata.get("counters_since_delta_snapshot") if isinstance(metadata, dict) else {}
    name = encoded(parent or "")
    if name is None or not isinstance(counters or {}, dict) or len(counters or {}) > MAX_CHANNELS:
        return UNKNOWN_LINEAGE
    channels = frozenset(counters or {})
    return Lineage(name, channels) if sum(map(len, channels)) <= MAX_KEY_BYTES else UNKNOWN_LINEAGE


def _unpacked(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""


def versions_in(reading: Reading) -> dict[bytes, bytes] | None:
    """Return the channel versions in a document; None if their format is unknown."""
    named = first_found(json_in(reading.text)) if reading.is_document else None
    if not isinstance(named, dict):
        return None
    found = {encoded(channel): encoded(str(version)) for channel, version in named.items()}
    if None in found or None in found.values():
        return None
    return {channel: version for channel, version in found.items() if channel is not None and version is not None}


def is_interrupt(reading: Reading) -> bool:
    """Return whether a write is or contains an interrupt; an unreadable write may be one."""
    if reading.is_unread:
        return True
    if reading.is_document:
        return bool(first_found(json_in(reading.text)) == INTERRUPT_CHANNEL)
    return f'"{INTERRUPT_CHANNEL}"'.encode() in (reading.text or b"")


def own_document(key: bytes, reading: Reading, parser: KeyParser) -> Document | None:
    """Return the document with the id of its value, if it differs from that of the key."""
    own = encoded(first_found(json_in(reading.text))) if reading.is_document else None
    if own is None or key.endswith(b":" + own):
        return None
    return Document(key, own, parser.time_of(own), bears_parents_id=True)


def is_valkey_write(write: bytes) -> bool:
    """Return whether a key has ValkeySaver's writes, which are all of a checkpoint's writes in one value."""
    return write.startswith(VALKEY_WRITES)


def is_valkey_list(pointer: bytes) -> bool:
    """Return whether a pointer is ValkeySaver's list of checkpoints."""
    return pointer.startswith(VALKEY_LIST)


def json_in(value: object) -> Any:
    """Parse JSON; return None if it is invalid or has too many values."""
    if not isinstance(value, bytes) or sum(map(value.count, (b",", b"[", b"{"))) > MAX_VALUES:
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def encoded(name: object) -> bytes | None:
    """Return a name from a value as in a key; None if no key can have it."""
    if not isinstance(name, str) or len(name) > MAX_KEY_BYTES:
        return None
    try:
        return name.encode()
    except UnicodeEncodeError:
        # An unpaired surrogate, which is valid in JSON but not in UTF-8.
        return None


def first_found(found: object) -> Any:
    """Return RedisJSON's first result at a path; None without one."""
    return found[0] if isinstance(found, list) and found else None
