"""What the values of checkpoint keys say, and by which command each is read.

The layouts are those of RedisSaver, its JavaScript sibling, ValkeySaver and plain documents; nothing here asks Redis.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from ai_ops.adapters.retrying_redis import Reading
from ai_ops.core.checkpoint_keys import (
    MAX_KEY_BYTES,
    ROOT_NAMESPACE,
    SHALLOW_ID,
    VALKEY_LIST,
    VALKEY_WRITES,
    CheckpointKey,
    Family,
    KeyParser,
)
from ai_ops.core.deletion import Guard
from ai_ops.core.facts import Lineage
from ai_ops.core.threads import Document

# A text of so many values takes some fifty megabytes when it is read; what has more is no checkpoint.
MAX_VALUES = 250_000
MAX_CHANNELS = 1_000
# What is read of a document where its key does not tell.
DETAILS = ("$.thread_id", "$.checkpoint_ns", "$.checkpoint_id", "$.checkpoint.ts", "$.ts")
LINEAGE = ("$.parent_checkpoint_id", "$.metadata")

INTERRUPT_CHANNEL = "__interrupt__"
UNKNOWN_LINEAGE = Lineage(b"", frozenset(), is_known=False)


def is_vague(key: CheckpointKey) -> bool:
    """Whether only the value tells what is needed of a key."""
    if key.family == Family.DOCUMENT:
        # A key that nobody can have meant has all of itself for its id, and its value is not looked at.
        return key.time is None and key.checkpoint_id != key.key
    if key.family == Family.BLOB:
        return not key.certain
    return key.family == Family.REGISTRY and key.checkpoint_id == SHALLOW_ID


def completed(key: CheckpointKey, reading: Reading, parser: KeyParser) -> CheckpointKey:
    """A key with what its value says: thread, namespace, id and time.

    A value of another shape than a saver gives it makes it one of unknown age.
    """
    if key.family == Family.REGISTRY:
        members = reading.value if isinstance(reading.value, list) else []
        times = [parsed.time for parsed in map(parser.parse, members) if parsed]
        return key._replace(time=max((time for time in times if time is not None), default=None))
    if reading.is_document:
        return _as_documented(key, json_in(reading.value), parser)
    if key.family != Family.DOCUMENT:
        return key
    return key._replace(time=_time_of(key.checkpoint_id, _own_time(json_in(reading.text)), parser))


def _as_documented(key: CheckpointKey, found: object, parser: KeyParser) -> CheckpointKey:
    """A key with what RedisJSON found in its document, by path: a list of values for each of `DETAILS`."""
    if not isinstance(found, dict):
        return key._replace(time=None)
    thread, namespace, checkpoint_id = (found.get(path) for path in DETAILS[:3])
    if not all(map(_is_name_or_nothing, (thread, namespace, checkpoint_id))):
        return key._replace(time=None)
    if (name := encoded(first_found(thread))) is not None:
        key = key._replace(thread=name, namespace=_namespace_of(key, encoded(first_found(namespace))), certain=True)
    if key.family != Family.DOCUMENT:
        return key
    own_id = encoded(first_found(checkpoint_id))
    said = first_found(found.get(DETAILS[3])) or first_found(found.get(DETAILS[4]))
    own_id = key.checkpoint_id if own_id is None else own_id
    return key._replace(checkpoint_id=own_id, time=_time_of(own_id, said, parser))


def _is_name_or_nothing(found: object) -> bool:
    """Whether RedisJSON found a text that can be a name, or nothing at all."""
    return found == [] or encoded(first_found(found)) is not None


def _own_time(value: object) -> object:
    """What a document that is a plain string says of its time."""
    if not isinstance(value, dict):
        return None
    inner = value.get("checkpoint")
    return value.get("ts") or (inner.get("ts") if isinstance(inner, dict) else None)


def _time_of(checkpoint_id: bytes, said: object, parser: KeyParser) -> float | None:
    time_of_id = parser.time_of(checkpoint_id)
    return parser.time_of_text(said) if time_of_id is None and isinstance(said, str) else time_of_id


def _namespace_of(key: CheckpointKey, named: bytes | None) -> bytes:
    """The namespace in a document, for the root in the spelling of its satellites' keys.

    The JavaScript saver writes ``__empty__`` into documents and nothing into keys, Python's shallow saver
    the other way round for its documents, and ``__empty__`` for everything else.
    """
    namespace = key.namespace if named is None else named
    if namespace in (b"", ROOT_NAMESPACE):
        return ROOT_NAMESPACE if key.key.endswith(b":") or ROOT_NAMESPACE in key.key else b""
    return namespace


def head_named(pointer: bytes, reading: Reading, parser: KeyParser) -> Document | None:
    """The document that a pointer or list names first; None where it is neither."""
    value, kind = reading.text, b"list" if is_valkey_list(pointer) else b"string"
    if value is None or reading.kind != kind or len(value) > MAX_KEY_BYTES:
        return None
    return document_named(pointer, value, parser)


def document_named(pointer: bytes, value: bytes, parser: KeyParser) -> Document:
    """The document that a pointer or list names, by the pointer's value or the list's first item."""
    key = b"checkpoint" + pointer[len(VALKEY_LIST) - 1 :] + b":" + value if is_valkey_list(pointer) else value
    parsed = parser.parse(key)
    return Document(key, parsed.checkpoint_id, parsed.time) if parsed else Document(key, b"", None)


def pointer_value(guard: Guard) -> bytes:
    """What the pointer says when it names the first of its documents."""
    if not guard.documents:
        return b""
    document = guard.documents[0]
    if document.key == guard.key:
        return json.dumps([document.checkpoint_id.decode()], ensure_ascii=False).encode()
    return document.checkpoint_id if is_valkey_list(guard.key) else document.key


def lineage_in(reading: Reading) -> Lineage:
    """Read the parent, and the DeltaChannels whose values lie with ancestors.

    ``metadata.counters_since_delta_snapshot`` maps a channel to (updates, supersteps) since its last snapshot, and
    leaves out those whose snapshot is here (langgraph.checkpoint.base.CheckpointMetadata). RedisSaver keeps metadata as
    JSON in a string, ValkeySaver as JSON in base64.
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
    """The versions of its channels that a document names; None where it names them in no known way."""
    named = first_found(json_in(reading.text)) if reading.is_document else None
    if not isinstance(named, dict):
        return None
    found = {encoded(channel): encoded(str(version)) for channel, version in named.items()}
    if None in found or None in found.values():
        return None
    return {channel: version for channel, version in found.items() if channel is not None and version is not None}


def is_interrupt(reading: Reading) -> bool:
    """Whether a write is an interrupt, or has one among it; one that can't be read may be."""
    if reading.is_unread:
        return True
    if reading.is_document:
        return bool(first_found(json_in(reading.text)) == INTERRUPT_CHANNEL)
    return f'"{INTERRUPT_CHANNEL}"'.encode() in (reading.text or b"")


def names_another(reading: Reading, names: Sequence[bytes]) -> bool:
    """Whether a document says that it is of a thread with none of these names, or in no known way of which."""
    if not reading.is_document:
        return False
    found = json_in(reading.text)
    return found != [] and encoded(first_found(found)) not in names


def own_document(key: bytes, reading: Reading, parser: KeyParser) -> Document | None:
    """The document with the id in its value, where that is another than its key's."""
    own = encoded(first_found(json_in(reading.text))) if reading.is_document else None
    if own is None or key.endswith(b":" + own):
        return None
    return Document(key, own, parser.time_of(own), bears_parents_id=True)


def is_valkey_write(write: bytes) -> bool:
    """Whether a key is that of ValkeySaver's writes, all of a checkpoint's in one value."""
    return write.startswith(VALKEY_WRITES)


def is_valkey_list(pointer: bytes) -> bool:
    """Whether a pointer is ValkeySaver's list of checkpoints."""
    return pointer.startswith(VALKEY_LIST)


def json_in(value: object) -> Any:
    """A JSON value; None where it is none, or one of more values than memory should be spent on."""
    if not isinstance(value, bytes) or sum(map(value.count, (b",", b"[", b"{"))) > MAX_VALUES:
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def encoded(name: object) -> bytes | None:
    """A name from a value as it would be in a key; None where it can't be in one."""
    if not isinstance(name, str) or len(name) > MAX_KEY_BYTES:
        return None
    try:
        return name.encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair: JSON has it, text has not.
        return None


def first_found(found: object) -> Any:
    """The first of what RedisJSON found at a path; None where it found nothing."""
    return found[0] if isinstance(found, list) and found else None
