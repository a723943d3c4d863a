"""Writing checkpoints and pending writes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    get_checkpoint_metadata,
)

from langgraph_checkpoint_compact import names
from langgraph_checkpoint_compact.documents import (
    StoredCheckpoint,
    StoredValue,
    Tail,
    encode_write,
    header_length,
    measure,
)
from langgraph_checkpoint_compact.reading import config_of, pairs
from langgraph_checkpoint_compact.requests import Argument, Run, Steps
from langgraph_checkpoint_compact.scripts import HEADS, PUT, PUT_WRITES
from langgraph_checkpoint_compact.session import SHARED_BYTES, KnownValue, Session, Tails

if TYPE_CHECKING:
    # A dependency of langgraph-checkpoint; only annotations need it here.
    from langchain_core.runnables import RunnableConfig

# Not part of the serialized checkpoint: values have their own fields, and these fields' names contain the versions.
KEPT_APART = frozenset({"channel_values", "channel_versions"})


@dataclass(slots=True)
class NewValue:
    """A value to store. If it continues the value `before`, the saver sends only the part after that."""

    field: bytes
    type: str
    data: memoryview
    header_length: int
    tail: Tail
    before: KnownValue | None

    @classmethod
    def of(cls, field: bytes, type_: str, data: bytes, before: KnownValue | None) -> NewValue:
        """Return the value, and find out whether it continues `before`."""
        length = header_length(type_, data)
        view = memoryview(data)
        shared = before if before is not None and len(data) - length >= SHARED_BYTES else None
        tail, goes_on = measure(view[length:], shared.tail if shared else None)
        return cls(field, type_, view, length, tail, shared if goes_on else None)

    def arguments(self) -> list[Argument]:
        """Return the six arguments of the script for this value."""
        header, body = bytes(self.data[: self.header_length]), self.data[self.header_length :]
        before = self.before
        rest = b"" if before else bytes(body)
        record = StoredValue(before is not None, self.tail, self.type, header, rest).encode()
        if before is None:
            return [self.field, record, b"", b"", b"", b""]
        return [
            *(self.field, record, before.field, before.tail.encode()),
            # The name of the log, if the script must create one. Another branch or process must not choose the same.
            *(os.urandom(8).hex(), bytes(body[before.tail.length :])),
        ]


def put(
    session: Session,
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
) -> Steps[RunnableConfig]:
    """Store a checkpoint and its new values."""
    configurable = config["configurable"]
    thread_id, namespace = configurable["thread_id"], configurable.get("checkpoint_ns", "")
    parent_id = configurable.get("checkpoint_id") or ""
    keys = names.thread_keys(session.prefix, thread_id)
    member = names.member(namespace, checkpoint["id"])

    given = checkpoint["channel_values"]
    serialized = {channel: session.serde.dumps_typed(given[channel]) for channel in new_versions if channel in given}
    large = any(len(data) >= SHARED_BYTES for _, data in serialized.values())
    parent = (keys[0], names.member(namespace, parent_id))
    remembered = session.tails.get(parent) if parent_id else {}
    if remembered is None and large:
        remembered = yield from _read_tails(keys, namespace, parent[1])
    known = remembered or {}
    fields = {
        channel: names.value_field(namespace, names.value_name(channel, version))
        for channel, version in new_versions.items()
    }
    values = [
        NewValue.of(fields[channel], type_, bytes(data), known.get(channel))
        for channel, (type_, data) in serialized.items()
    ]
    empty = [field for channel, field in fields.items() if channel not in serialized]
    full_metadata = get_checkpoint_metadata(config, metadata)
    document = StoredCheckpoint(
        [names.value_name(channel, version) for channel, version in checkpoint["channel_versions"].items()],
        parent_id,
        session.serde.dumps_typed({key: value for key, value in checkpoint.items() if key not in KEPT_APART}),
        session.serde.dumps_typed(full_metadata),
        [names.escape_often(channel) for channel in full_metadata.get("counters_since_delta_snapshot") or ()],
    ).encode()
    head: list[Argument] = [session.ttl, member, checkpoint["id"].encode("utf-8", "surrogatepass"), document]
    # An earlier checkpoint stored the values that are not new, unless it was deleted in the meantime.
    carried = {
        names.value_field(namespace, names.value_name(channel, version)): channel
        for channel, version in checkpoint["channel_versions"].items()
        if parent_id and channel in given and channel not in new_versions
    }
    lost = yield from _send(keys, [*head, len(empty), len(carried), *empty], values, list(carried))
    if lost:
        for field in lost:
            type_, data = session.serde.dumps_typed(given[carried[field]])
            values.append(NewValue.of(field, type_, bytes(data), None))
        yield from _send(keys, [*head, len(empty), 0, *empty], values, [])
    if remembered is not None:
        session.tails.remember((keys[0], member), _tails_after(known, new_versions, serialized, values))
    return config_of(thread_id, namespace, checkpoint["id"])


def _tails_after(
    known: Tails, new_versions: ChannelVersions, written: Iterable[str], values: Sequence[NewValue]
) -> Tails:
    """Return the tails of a new checkpoint: those of its parent, and of the values written with it."""
    tails = {channel: value for channel, value in known.items() if channel not in new_versions}
    for channel, new in zip(written, values, strict=False):
        if new.tail.length >= SHARED_BYTES:
            tails[channel] = KnownValue(new.field, new.tail)
    return tails


def _send(
    keys: tuple[bytes, bytes], head: Sequence[Argument], values: Sequence[NewValue], carried: Sequence[bytes]
) -> Steps[list[bytes]]:
    """Send the values; send values again, whole, if their predecessor was deleted or replaced in the meantime.

    Return the missing fields of `carried`. If there are any, nothing was stored.
    """
    while True:
        arguments = [part for value in values for part in value.arguments()]
        stale = yield Run(PUT, keys, [*head, *carried, *arguments])
        if lost := [carried[-number - 1] for number in stale if number < 0]:
            return lost
        if not stale:
            return []
        for number in stale:
            values[number - 1].before = None


def _read_tails(keys: tuple[bytes, bytes], namespace: str, parent: bytes) -> Steps[Tails]:
    """Read the tails of a checkpoint that this process has not read or written yet."""
    heads, _ = yield Run(HEADS, keys, [parent])
    tails = {}
    stem = names.value_field(namespace, "")
    for field, record in pairs(heads):
        value = StoredValue.decode(record)
        if value.tail.length >= SHARED_BYTES:
            channel, _ = names.split_value_name(field[len(stem) :].decode())
            tails[channel] = KnownValue(field, value.tail)
    return tails


def put_writes(
    session: Session, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
) -> Steps[None]:
    """Store the writes of a task. They may arrive before their checkpoint: LangGraph sends both at once."""
    if not writes:
        return
    configurable = config["configurable"]
    keys = names.thread_keys(session.prefix, configurable["thread_id"])
    member = names.member(configurable.get("checkpoint_ns", ""), configurable["checkpoint_id"])
    arguments: list[Argument] = [session.ttl, member, task_id.encode("utf-8", "surrogatepass")]
    for index, (channel, value) in enumerate(writes):
        type_, data = session.serde.dumps_typed(value)
        arguments += [WRITES_IDX_MAP.get(channel, index), encode_write(task_path, channel, type_), bytes(data)]
    yield Run(PUT_WRITES, keys, arguments)


def next_version(current: object) -> str:
    """Return the version after `current`, in the form of LangGraph's own savers.

    Its random part keeps the branches of a conversation apart. It does not come from the `random` module, which a graph
    may seed.
    """
    number = 0 if current is None else int(str(current).split(".")[0])
    return f"{number + 1:032}.{os.urandom(6).hex()}"
