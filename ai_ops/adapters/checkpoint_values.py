"""What the values of checkpoint keys say, and by which command each is read.

The layouts are those of RedisSaver, its JavaScript sibling, ValkeySaver and plain documents; nothing here asks Redis.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from ai_ops.core.checkpoint_keys import (
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

MAX_VALUE_BYTES = 16 * 1024 * 1024  # a longer value is not read for its time
REGISTRY_MEMBERS = 100  # of a shallow saver's writes, so many are looked at for a time

UNKNOWN_LINEAGE = Lineage(b"", frozenset(), is_known=False)


def is_vague(key: CheckpointKey) -> bool:
    """Whether only the value tells what is needed of a key."""
    if key.family == Family.DOCUMENT:
        # A key that nobody can have meant has all of itself for its id, and its value is not looked at.
        return key.time is None and key.checkpoint_id != key.key
    if key.family == Family.BLOB:
        return not key.certain
    return key.family == Family.REGISTRY and key.checkpoint_id == SHALLOW_ID


def detail_command(key: CheckpointKey) -> tuple[Any, ...]:
    """The command that reads what only the value of a key tells."""
    if key.family == Family.REGISTRY:
        return ("ZRANGE", key.key, 0, REGISTRY_MEMBERS)
    return ("JSON.GET", key.key, "$.thread_id", "$.checkpoint_ns", "$.checkpoint_id", "$.checkpoint.ts", "$.ts")


def completed(key: CheckpointKey, reply: object, parser: KeyParser) -> CheckpointKey:
    """A key with what its value says, which is the reply to `detail_command`: thread, namespace, id and time."""
    if key.family == Family.REGISTRY:
        members = reply if isinstance(reply, list) else []
        times = [parsed.time for parsed in map(parser.parse, members) if parsed]
        return key._replace(time=max((time for time in times if time is not None), default=None))
    details = _details_in(json_in(reply))
    if isinstance(thread := details.get("thread_id"), str):
        key = key._replace(thread=thread.encode(), namespace=_namespace_of(key, details), certain=True)
    if key.family != Family.DOCUMENT:
        return key
    named, said = details.get("checkpoint_id"), details.get("ts")
    checkpoint_id = named.encode() if isinstance(named, str) else key.checkpoint_id
    time_of_id = parser.time_of(checkpoint_id)
    if time_of_id is None and isinstance(said, str):
        time_of_id = parser.time_of_text(said)
    return key._replace(checkpoint_id=checkpoint_id, time=time_of_id)


def _details_in(value: object) -> dict[str, Any]:
    """The fields of a document, whether RedisJSON gave them as paths or the value is the document itself."""
    if not isinstance(value, dict):
        return {}
    if "$.thread_id" in value:
        paths = {
            path.removeprefix("$.").removeprefix("checkpoint."): first_found(found) for path, found in value.items()
        }
        return {**paths, "ts": first_found(value.get("$.checkpoint.ts")) or first_found(value.get("$.ts"))}
    inner = value.get("checkpoint")
    said = value.get("ts") or (inner.get("ts") if isinstance(inner, dict) else None)
    return {"ts": said}


def _namespace_of(key: CheckpointKey, details: Mapping[str, Any]) -> bytes:
    """The namespace in a document, for the root in the spelling of its satellites' keys.

    The JavaScript saver writes ``__empty__`` into documents and nothing into keys, Python's shallow saver
    the other way round for its documents, and ``__empty__`` for everything else.
    """
    named = details.get("checkpoint_ns")
    namespace = named.encode() if isinstance(named, str) else key.namespace
    if namespace in (b"", ROOT_NAMESPACE):
        return ROOT_NAMESPACE if key.key.endswith(b":") or ROOT_NAMESPACE in key.key else b""
    return namespace


def head_command(pointer: bytes) -> tuple[Any, ...]:
    """The command that reads which document a pointer or list names first."""
    return ("LINDEX", pointer, 0) if is_valkey_list(pointer) else ("GET", pointer)


def document_named(pointer: bytes, value: bytes, parser: KeyParser) -> Document:
    """The document that a pointer or list names, by the value that `head_command` reads."""
    key = b"checkpoint" + pointer[len(VALKEY_LIST) - 1 :] + b":" + value if is_valkey_list(pointer) else value
    parsed = parser.parse(key)
    return Document(key, parsed.checkpoint_id, parsed.time) if parsed else Document(key, b"", None)


def pointer_value(guard: Guard) -> bytes:
    """What the pointer says when it names the first of its documents."""
    if not guard.documents:
        return b""
    document = guard.documents[0]
    if document.key == guard.key:
        return json.dumps([document.checkpoint_id.decode()]).encode()
    return document.checkpoint_id if is_valkey_list(guard.key) else document.key


def lineage_in(value: bytes) -> Lineage:
    """Read the parent, and the DeltaChannels whose values lie with ancestors.

    ``metadata.counters_since_delta_snapshot`` maps a channel to (updates, supersteps) since its last snapshot, and
    leaves out those whose snapshot is here (langgraph.checkpoint.base.CheckpointMetadata). RedisSaver keeps metadata as
    JSON in a string, ValkeySaver as JSON in base64.
    """
    document = json_in(value)
    if not isinstance(document, dict):
        return UNKNOWN_LINEAGE
    parent = document.get("parent_checkpoint_id") or first_found(document.get("$.parent_checkpoint_id"))
    metadata = document.get("metadata") or first_found(document.get("$.metadata"))
    if isinstance(metadata, str):
        metadata = json_in(metadata.encode()) or json_in(_unpacked(metadata))
    counters = metadata.get("counters_since_delta_snapshot") if isinstance(metadata, dict) else None
    channels = frozenset(counters) if isinstance(counters, dict) else frozenset()
    return Lineage(parent.encode() if isinstance(parent, str) else b"", channels)


def _unpacked(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""


def is_valkey_write(write: bytes) -> bool:
    """Whether a key is that of ValkeySaver's writes, all of a checkpoint's in one value."""
    return write.startswith(VALKEY_WRITES)


def is_valkey_list(pointer: bytes) -> bool:
    """Whether a pointer is ValkeySaver's list of checkpoints."""
    return pointer.startswith(VALKEY_LIST)


def json_in(value: object) -> Any:
    """A JSON value; None where it is none."""
    try:
        return json.loads(value) if isinstance(value, bytes) else None
    except (ValueError, RecursionError):
        return None


def first_found(found: object) -> Any:
    """The first of what RedisJSON found at a path; None where it found nothing."""
    return found[0] if isinstance(found, list) and found else None
