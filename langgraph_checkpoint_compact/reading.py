"""Reads one checkpoint, or all that match."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import ceil
from typing import TYPE_CHECKING, Any, cast

from langgraph.checkpoint.base import Checkpoint, CheckpointMetadata, CheckpointTuple

from langgraph_checkpoint_compact import names
from langgraph_checkpoint_compact.documents import (
    StoredCheckpoint,
    StoredValue,
    StoredWrite,
    decode_writes,
    require_known_format,
)
from langgraph_checkpoint_compact.errors import ThreadBusyError
from langgraph_checkpoint_compact.requests import Argument, Command, Found, Pieces, Request, Run, ScanPage, Steps
from langgraph_checkpoint_compact.scripts import CHUNK_BYTES, READ
from langgraph_checkpoint_compact.session import SHARED_BYTES, KnownValue, Session

if TYPE_CHECKING:
    # A dependency of langgraph-checkpoint; only annotations need it here.
    from langchain_core.runnables import RunnableConfig

# A script returns at least one checkpoint, and more until it has this many bytes: about a millisecond.
PORTION_BYTES = 1024 * 1024
PORTION_CHECKPOINTS = 100
PORTION_CHUNKS = 32
# A read starts again, up to this number of times, if checkpoints are deleted during it.
ATTEMPTS = 10
# Size of the portions in which ids, and documents without values, are read.
PORTION_NAMES = 1000
PORTION_DOCUMENTS = 200


@dataclass(slots=True)
class Log:
    """The read part of a log: its own bytes, which follow `base_length` bytes of its base."""

    base: str
    base_length: int
    length: int
    data: bytes


@dataclass(slots=True)
class ThreadReader:
    """Reads checkpoints of one thread; it reads data that several of them share only once."""

    session: Session
    thread_id: Any
    keys: tuple[bytes, bytes] = field(init=False)
    _logs: dict[str, Log] = field(default_factory=dict)
    _values: dict[bytes, StoredValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keys = names.thread_keys(self.session.prefix, self.thread_id)

    def read(self, members: Sequence[bytes], namespace: str = "") -> Steps[tuple[int, list[CheckpointTuple]]]:
        """Read some of `members`, or without any the newest of `namespace`; return the number of searched members."""
        have: list[Argument] = [part for log, read in self._logs.items() for part in (log, read.length)]
        arguments: list[Argument] = [
            self.session.ttl_on_read,
            PORTION_BYTES,
            names.escape_often(namespace),
            len(members),
        ]
        for _ in range(ATTEMPTS):
            answer = yield Run(READ, self.keys, [*arguments, *members, *have])
            done, documents, records, logs, writes = answer
            # Separate commands read large values, which may have been deleted in the meantime.
            if (yield from self._take_values(records)) and (yield from self._take_logs(logs)):
                pending = yield from self._take_writes(writes)
                if pending is not None:
                    return done, [
                        self._tuple(member, document, *pending.get(member, (None, ())))
                        for member, document in pairs(documents)
                    ]
        raise ThreadBusyError(
            f"Reading {self.keys[0].decode()} was tried {ATTEMPTS} times, and each time checkpoints were deleted from "
            "it meanwhile. Try again when it is quieter."
        )

    def _take_values(self, records: Sequence[bytes]) -> Steps[bool]:
        """Store the values that a script has found; return whether all were there."""
        self._values = {}
        for name, record in pairs(records):
            if not record:
                record = yield Command(["HGET", self.keys[0], name])
                if record is None:
                    return False
                require_known_format(record, name.decode())
            self._values[name] = StoredValue.decode(record)
        return True

    def _take_writes(self, writes: Sequence[Any]) -> Steps[dict[bytes, tuple[bytes, list[bytes]]] | None]:
        """Return the writes that a script has found, by checkpoint; None if one of them is gone."""
        pending = {}
        for member, main, own in zip(*[iter(writes)] * 3, strict=True):
            large = []
            for name, data in pairs(own):
                large.append(data or (yield Command(["HGET", self.keys[0], name])))
            if None in large:
                return None
            pending[member] = main, large
        return pending

    def _take_logs(self, logs: Iterable[Sequence[Any]]) -> Steps[bool]:
        """Store the logs that a script has found, and read their missing portions; return whether all were there."""
        for name, base, base_length, length, chunks in logs:
            had = self._logs.get(name.decode())
            if had is not None and had.length >= length:
                continue
            stem = f"k|{name.decode()}|"
            missing = range(len(chunks), ceil((length - base_length) / CHUNK_BYTES))
            for start in range(0, len(missing), PORTION_CHUNKS):
                portion = missing[start : start + PORTION_CHUNKS]
                more = yield Command(["HMGET", self.keys[0], *(f"{stem}{number}" for number in portion)])
                if None in more:
                    return False
                chunks += more
            data = b"".join(chunks)[: length - base_length]
            self._logs[name.decode()] = Log(base.decode(), base_length, length, data)
        return True

    def _body(self, log: str, length: int) -> list[bytes]:
        """Return the first `length` bytes of a log, in pieces."""
        pieces: list[bytes] = []
        while log:
            read = self._logs[log]
            own = length - read.base_length
            pieces.append(read.data if own == len(read.data) else read.data[:own])
            log, length = read.base, read.base_length
        return pieces[::-1]

    def _value(self, value: StoredValue) -> Any:
        body = self._body(value.rest.decode(), value.tail.length) if value.in_log else [value.rest]
        return self.session.serde.loads_typed((value.type, b"".join((value.header, *body))))

    def _tuple(self, member: bytes, document: bytes, main: bytes | None, own: Sequence[bytes]) -> CheckpointTuple:
        namespace, checkpoint_id = names.split_member(member)
        stored = StoredCheckpoint.decode(document, checkpoint_id)
        versions, values = {}, {}
        for name in stored.names:
            channel, version = names.split_value_name(name)
            versions[channel] = version
            if value := self._values.get(names.value_field(namespace, name)):
                values[channel] = self._value(value)
        checkpoint = {
            **self.session.serde.loads_typed(stored.checkpoint),
            "channel_versions": versions,
            "channel_values": values,
        }
        return CheckpointTuple(
            config=config_of(self.thread_id, namespace, checkpoint_id),
            checkpoint=cast("Checkpoint", checkpoint),
            metadata=cast("CheckpointMetadata", self.session.serde.loads_typed(stored.metadata)),
            parent_config=config_of(self.thread_id, namespace, stored.parent_id) if stored.parent_id else None,
            pending_writes=[
                (write.task_id, write.channel, self.session.serde.loads_typed(write.value))
                for write in in_order(decode_writes(main, own) if main else ())
            ],
        )

    def remember_tails(self, found: CheckpointTuple) -> None:
        """Keep the tails of the values of the checkpoint that was read last, for the put that follows."""
        configurable = found.config["configurable"]
        namespace = configurable["checkpoint_ns"]
        tails = {}
        for channel, version in found.checkpoint["channel_versions"].items():
            name = names.value_field(namespace, names.value_name(channel, version))
            value = self._values.get(name)
            if value and value.tail.length >= SHARED_BYTES:
                tails[channel] = KnownValue(name, value.tail)
        self.session.tails.remember((self.keys[0], names.member(namespace, configurable["checkpoint_id"])), tails)


def config_of(thread_id: Any, namespace: str, checkpoint_id: str) -> RunnableConfig:
    """Return the configuration that names one checkpoint."""
    return {
        "configurable": {"thread_id": thread_id, "checkpoint_ns": namespace, "checkpoint_id": checkpoint_id},
    }


def in_order(writes: Iterable[StoredWrite]) -> list[StoredWrite]:
    """Sort writes as a live run applies them: langgraph.checkpoint.base.writes_sort_key."""
    return sorted(writes, key=lambda write: (write.path, write.task_id, write.index))


def pairs(flat: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """Split a flat answer into pairs."""
    return zip(flat[::2], flat[1::2], strict=True)


def get_tuple(session: Session, config: RunnableConfig) -> Steps[CheckpointTuple | None]:
    """Read the checkpoint that `config` names, or the newest of its namespace."""
    configurable = config["configurable"]
    reader = ThreadReader(session, configurable["thread_id"])
    namespace = configurable.get("checkpoint_ns", "")
    checkpoint_id = configurable.get("checkpoint_id")
    members = [names.member(namespace, checkpoint_id)] if checkpoint_id else []
    _, found = yield from reader.read(members, namespace)
    if not found:
        return None
    reader.remember_tails(found[0])
    return found[0]


# --------------------------------------------------------------------------------------------
# Listings


@dataclass(frozen=True, slots=True)
class Query:
    """The conditions of a listing: None for any. `filter` compares keys of the metadata."""

    namespace: str | None = None
    checkpoint_id: str | None = None
    before_id: str | None = None
    filter: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None

    @classmethod
    def of(
        cls,
        config: RunnableConfig | None,
        filter: Mapping[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> Query:
        """Read the arguments of `list`."""
        configurable = config["configurable"] if config else {}
        return cls(
            configurable.get("checkpoint_ns"),
            configurable.get("checkpoint_id"),
            before["configurable"].get("checkpoint_id") if before else None,
            filter or {},
            limit,
        )

    def matches(self, member: bytes) -> bool:
        """Return whether the name of a checkpoint matches."""
        namespace, checkpoint_id = names.split_member(member)
        return (
            (self.namespace is None or namespace == self.namespace)
            and (self.checkpoint_id is None or checkpoint_id == self.checkpoint_id)
            and (self.before_id is None or checkpoint_id < self.before_id)
        )


def list_tuples(session: Session, config: RunnableConfig | None, query: Query) -> Pieces:
    """Yield the matching checkpoints of a thread, or of all threads: the newest of each thread first."""
    left = query.limit
    if left is not None and left <= 0:
        return
    if config and "thread_id" in config["configurable"]:
        yield from _list_thread(session, config["configurable"]["thread_id"], query, left)
        return
    seen: set[str] = set()
    steps = thread_ids(session)
    answer = None
    while True:
        try:
            request = steps.send(answer)
        except StopIteration:
            return
        if not isinstance(request, Found):
            answer = yield request
            continue
        answer = None
        if request.item in seen:
            continue
        # A scan may return a key twice.
        seen.add(request.item)
        given = yield from _list_thread(session, request.item, query, left)
        if left is not None:
            left -= given
            if left <= 0:
                return


def thread_ids(session: Session) -> Pieces:
    """Yield the id of every thread, some of them perhaps twice."""
    page = ScanPage(names.ids_pattern(session.prefix))
    while True:
        keys, position = yield page
        for key in keys:
            yield Found(names.thread_of(session.prefix, key))
        if position is None:
            return
        page = ScanPage(page.pattern, position)


def _list_thread(
    session: Session, thread_id: Any, query: Query, limit: int | None
) -> Generator[Request | Found, Any, int]:
    """Yield the matching checkpoints of one thread, the newest first, and return their number."""
    reader = ThreadReader(session, thread_id)
    given = 0
    pages = _members(reader.keys[1], query, limit if not query.filter else None)
    answer = None
    while True:
        try:
            request = pages.send(answer)
        except StopIteration:
            return given
        if not isinstance(request, Found):
            answer = yield request
            continue
        answer = None
        members = request.item
        if query.filter:
            members = yield from _matching(session, reader.keys[0], members, query)
        if limit is not None:
            members = members[: limit - given]
        while members:
            done, found = yield from reader.read(members[:PORTION_CHECKPOINTS])
            members = members[done:]
            given += len(found)
            for each in found:
                yield Found(each)
        if limit is not None and given >= limit:
            return given


def _members(ids_key: bytes, query: Query, limit: int | None) -> Pieces:
    """Yield the names of the matching checkpoints, in portions, the newest first."""
    if query.namespace is not None and query.checkpoint_id is not None:
        name = names.member(query.namespace, query.checkpoint_id)
        yield Found([name] if query.matches(name) else [])
    elif query.namespace is not None:
        yield from _namespace_members(ids_key, query, limit)
    else:
        members = yield from all_members(ids_key)
        fitting = [name for name in members if query.matches(name)]
        fitting.sort(key=lambda name: names.split_member(name)[::-1], reverse=True)
        portions = iter(fitting)
        while portion := list(islice(portions, PORTION_NAMES)):
            yield Found(portion)


def _namespace_members(ids_key: bytes, query: Query, limit: int | None) -> Pieces:
    namespace = names.escape_often(query.namespace or "")
    newest = b"(" + namespace.encode() + b"}"
    if query.before_id is not None:
        newest = b"(" + names.member(query.namespace or "", query.before_id)
    count = PORTION_NAMES if limit is None else min(limit, PORTION_NAMES)
    while True:
        members = yield Command(["ZREVRANGEBYLEX", ids_key, newest, f"[{namespace}|", "LIMIT", 0, count])
        if members:
            yield Found(members)
            newest = b"(" + members[-1]
        if len(members) < count:
            return


def all_members(ids_key: bytes) -> Steps[list[bytes]]:
    """Read the names of all checkpoints of a thread, in the order of their bytes."""
    found: list[bytes] = []
    start = b"-"
    while True:
        members = yield Command(["ZRANGEBYLEX", ids_key, start, "+", "LIMIT", 0, PORTION_NAMES])
        found += members
        if len(members) < PORTION_NAMES:
            return found
        start = b"(" + members[-1]


def _matching(session: Session, key: bytes, members: Sequence[bytes], query: Query) -> Steps[list[bytes]]:
    """Keep the checkpoints whose metadata fit; their values are not read for that."""
    fitting = []
    for start in range(0, len(members), PORTION_DOCUMENTS):
        portion = members[start : start + PORTION_DOCUMENTS]
        documents = yield Command(["HMGET", key, *(b"c|" + name for name in portion)])
        for name, document in zip(portion, documents, strict=True):
            if document is None:
                continue
            stored = StoredCheckpoint.decode(document, names.split_member(name)[1])
            metadata = session.serde.loads_typed(stored.metadata)
            if all(metadata.get(key_) == value for key_, value in query.filter.items()):
                fitting.append(name)
    return fitting
