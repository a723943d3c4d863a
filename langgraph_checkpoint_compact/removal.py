"""Deletes checkpoints from a thread, with the values that only they have, and copies threads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, repeat
from math import ceil
from typing import Any

from langgraph.checkpoint.serde.types import INTERRUPT

from langgraph_checkpoint_compact import names
from langgraph_checkpoint_compact.documents import (
    StoredCheckpoint,
    StoredValue,
    damaged,
    decode_writes,
    require_known_format,
    require_known_seal,
)
from langgraph_checkpoint_compact.errors import ThreadBusyError
from langgraph_checkpoint_compact.reading import PORTION_DOCUMENTS, PORTION_NAMES, all_members, pairs, thread_ids
from langgraph_checkpoint_compact.requests import Argument, Command, Found, Request, Run, Steps
from langgraph_checkpoint_compact.scripts import CHUNK_BYTES, HEADS, REMOVE, RESTORE
from langgraph_checkpoint_compact.session import Session

# One script deletes this many checkpoints: about a millisecond.
PORTION_REMOVED = 50
# If a thread changes during an examination, the saver examines it again and reads only the changes.
ATTEMPTS = 50
# Fields of a thread are copied in portions of about this many bytes.
PORTION_COPIED = 512 * 1024
COPIED_FIELDS = 50
UNFINISHED_COPY_MS = 3_600_000

Keys = tuple[bytes, bytes]


# --------------------------------------------------------------------------------------------
# Content of a thread


@dataclass(slots=True)
class LogHead:
    """A log without its bytes."""

    base: str
    base_length: int
    length: int

    def fields(self, name: str) -> Iterator[bytes]:
        """Yield the fields of the log."""
        yield f"l|{name}".encode()
        for number in range(ceil((self.length - self.base_length) / CHUNK_BYTES)):
            yield f"k|{name}|{number}".encode()


@dataclass(slots=True)
class Thread:
    """A thread at the write numbered `writings`: its documents by name, and the logs of its values."""

    session: Session
    keys: Keys
    writings: bytes = b""
    documents: dict[bytes, StoredCheckpoint] = field(default_factory=dict)
    logs_of_values: dict[bytes, str] = field(default_factory=dict)
    logs: dict[str, LogHead] = field(default_factory=dict)

    def look(self) -> Steps[None]:
        """Read the changes since the last look, and forget deleted checkpoints."""
        # This is read first: a write after it changes the number, and the server then refuses the deletion.
        writings, seal = yield Command(["HMGET", self.keys[0], "p", "s"])
        require_known_seal(seal, self.keys[0].decode())
        self.writings = writings or b""
        members = yield from all_members(self.keys[1])
        self.documents = {name: self.documents[name] for name in members if name in self.documents}
        unknown = [name for name in members if name not in self.documents]
        for start in range(0, len(unknown), PORTION_DOCUMENTS):
            portion = unknown[start : start + PORTION_DOCUMENTS]
            documents = yield Command(["HMGET", self.keys[0], *(b"c|" + name for name in portion)])
            for name, document in zip(portion, documents, strict=True):
                if document is not None:
                    self.documents[name] = StoredCheckpoint.decode(document, names.split_member(name)[1])

    def look_at_values(self) -> Steps[None]:
        """Read the logs of the values. A put may have moved some values into a log."""
        self.logs_of_values, self.logs = {}, {}
        fields = list(dict.fromkeys(name for member in self.documents for name in self.values(member)))
        for start in range(0, len(fields), PORTION_NAMES // 4):
            portion = fields[start : start + PORTION_NAMES // 4]
            heads, logs = yield Run(HEADS, self.keys, [b"", *portion])
            for name, record in pairs(heads):
                value = StoredValue.decode(record) if record else None
                self.logs_of_values[name] = value.rest.decode() if value and value.in_log else ""
            for log, base, base_length, length in logs:
                self.logs[log.decode()] = LogHead(base.decode(), base_length, length)

    def values(self, member: bytes) -> Iterator[bytes]:
        """Return the fields of a checkpoint's values, existing or not."""
        stem = names.value_field(names.split_member(member)[0], "")
        return (stem + name.encode() for name in self.documents[member].names)

    def metadata(self, member: bytes) -> Mapping[str, Any]:
        """Return the metadata of a checkpoint."""
        metadata = self.session.serde.loads_typed(self.documents[member].metadata)
        if not isinstance(metadata, Mapping):
            raise damaged(f"The checkpoint {member!r}")
        return metadata

    def open_channels(self, member: bytes) -> set[str]:
        """Return the DeltaChannels of a checkpoint that count updates since their last snapshot."""
        listed = self.documents[member].open_channels
        if listed is None:
            counters = self.metadata(member).get("counters_since_delta_snapshot") or {}
            if not isinstance(counters, Mapping):
                raise damaged(f"The checkpoint {member!r}")
            return set(counters)
        return set(map(names.unescape, listed))

    def newest(self) -> dict[str, bytes]:
        """Return the newest checkpoint of each namespace."""
        found: dict[str, bytes] = {}
        for member in self.documents:
            namespace, checkpoint_id = names.split_member(member)
            if namespace not in found or checkpoint_id > names.split_member(found[namespace])[1]:
                found[namespace] = member
        return found


Choice = Callable[[Thread], Generator[Request, Any, Collection[bytes]]]


# --------------------------------------------------------------------------------------------
# Deleting


def delete_thread(session: Session, thread_id: Any) -> Steps[None]:
    """Delete all data of a thread."""
    keys = names.thread_keys(session.prefix, thread_id)
    yield Command(["UNLINK", *keys])


def prune(session: Session, threads: Sequence[Any], strategy: str) -> Steps[None]:
    """Delete all checkpoints of some threads, or those that the newest ones do not need."""
    if strategy not in ("keep_latest", "delete"):
        raise ValueError(f"The strategy {strategy!r} is not known: take 'keep_latest' or 'delete'.")
    for thread_id in threads:
        if strategy == "delete":
            yield from delete_thread(session, thread_id)
        else:
            yield from _delete(Thread(session, names.thread_keys(session.prefix, thread_id)), not_needed)


def delete_for_runs(session: Session, run_ids: Collection[str]) -> Steps[None]:
    """Delete the checkpoints of some runs, in all threads."""
    wanted = set(run_ids)
    if not wanted:
        return

    def written_by_them(thread: Thread) -> Generator[Request, Any, Collection[bytes]]:
        yield from ()
        return [member for member in thread.documents if thread.metadata(member).get("run_id") in wanted]

    # Finish the scan first: with deletions in between it would return some threads twice.
    threads = yield from _all_threads(session)
    for thread_id in threads:
        yield from _delete(Thread(session, names.thread_keys(session.prefix, thread_id)), written_by_them)


def _all_threads(session: Session) -> Steps[set[str]]:
    found: set[str] = set()
    steps = thread_ids(session)
    answer = None
    while True:
        try:
            request = steps.send(answer)
        except StopIteration:
            return found
        answer = None
        if isinstance(request, Found):
            found.add(request.item)
        else:
            answer = yield request


def _delete(thread: Thread, choose: Choice) -> Steps[None]:
    """Delete the checkpoints that `choose` names; start again if the thread changes in the meantime."""
    for _ in range(ATTEMPTS):
        yield from thread.look()
        to_delete = yield from choose(thread)
        if not to_delete:
            return
        yield from thread.look_at_values()
        if (yield from remove(thread, to_delete)):
            return
    raise ThreadBusyError(
        f"Deleting checkpoints of {thread.keys[0].decode()} was tried {ATTEMPTS} times, and each time the thread was "
        "written to meanwhile. It is whole. Try again when it is quieter."
    )


@dataclass(slots=True)
class References:
    """The number of references to each value and each log; values and branching logs refer to logs."""

    thread: Thread
    _values: Counter[bytes] = field(default_factory=Counter)
    _logs: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        for member in self.thread.documents:
            self._values.update(self.thread.values(member))
        self._logs.update(filter(None, self.thread.logs_of_values.values()))
        self._logs.update(filter(None, (head.base for head in self.thread.logs.values())))

    def drop(self, member: bytes) -> Iterator[bytes]:
        """Remove a checkpoint's references; yield the fields that are no longer needed."""
        for value in self.thread.values(member):
            self._values[value] -= 1
            if not self._values[value] and value in self.thread.logs_of_values:
                yield value
                yield from self._drop_log(self.thread.logs_of_values[value])

    def _drop_log(self, name: str) -> Iterator[bytes]:
        while name:
            self._logs[name] -= 1
            head = self.thread.logs.get(name)
            if self._logs[name] or head is None:
                return
            yield from head.fields(name)
            name = head.base


def remove(thread: Thread, to_delete: Collection[bytes]) -> Steps[bool]:
    """Delete checkpoints of an examined thread; return False if the thread was written to in the meantime.

    It deletes them in portions, the oldest first. After each portion the thread is complete.
    """
    references = References(thread)
    oldest_first = iter(sorted(to_delete, key=lambda member: names.split_member(member)[1]))
    while portion := list(islice(oldest_first, PORTION_REMOVED)):
        unneeded = [name for member in portion for name in references.drop(member)]
        for member in portion:
            del thread.documents[member]
        newest = max((names.split_member(name)[1] for name in thread.documents), default="")
        head: list[Argument] = [thread.writings, newest.encode("utf-8", "surrogatepass"), len(portion)]
        writings = yield Run(REMOVE, thread.keys, [*head, *portion, *unneeded])
        if not writings:
            return False
        thread.writings = writings
    return True


# --------------------------------------------------------------------------------------------
# Needs of the newest checkpoints


def not_needed(thread: Thread) -> Generator[Request, Any, Collection[bytes]]:
    """Return all checkpoints except the newest of each namespace and their needs; none if the thread waits."""
    return (yield from all_except(thread, lambda newest: newest.values()))


def all_except(
    thread: Thread, keep: Callable[[Mapping[str, bytes]], Iterable[bytes]]
) -> Generator[Request, Any, Collection[bytes]]:
    """Return all checkpoints except some and the ancestors from which their DeltaChannels are built.

    The result is empty if the thread waits for an answer to an interrupt. Otherwise the thread's values are read too.

    Args:
        thread: An examined thread.
        keep: Takes the newest checkpoint of each namespace, and returns those that must stay.
    """
    newest = thread.newest()
    kept = set(keep(newest))
    if len(kept) >= len(thread.documents) or (yield from waits(thread, newest)):
        return []
    yield from thread.look_at_values()
    for member in list(kept):
        kept.update(_delta_ancestors(thread, member))
    return [member for member in thread.documents if member not in kept]


def waits(thread: Thread, newest: Mapping[str, bytes]) -> Steps[bool]:
    """Return whether a thread waits for an answer to an interrupt; it may need older checkpoints.

    An interrupt of a subgraph is also an interrupt of the graph that called it.
    """
    asked = [newest[""]] if "" in newest else list(newest.values())
    for member in asked:
        field_ = yield Command(["HGET", thread.keys[0], b"w|" + member])
        if field_:
            require_known_format(field_, f"The writes of {member!r}")
            if any(write.channel == INTERRUPT for write in decode_writes(field_, repeat(b""))):
                return True
    return False


def _delta_ancestors(thread: Thread, member: bytes) -> Iterator[bytes]:
    """Yield the checkpoints with the writes or the snapshot from which a checkpoint's DeltaChannels are built.

    For each channel with updates since its last snapshot, these are the ancestors up to the nearest with a value.
    """
    namespace = names.split_member(member)[0]
    channels = thread.open_channels(member)
    channels -= set(_stored_channels(thread, member))
    while channels and (parent_id := thread.documents[member].parent_id):
        member = names.member(namespace, parent_id)
        if member not in thread.documents:
            return
        yield member
        channels -= set(_stored_channels(thread, member))


def _stored_channels(thread: Thread, member: bytes) -> Iterable[str]:
    """Yield the channels with a stored value at this checkpoint."""
    for name, value in zip(thread.documents[member].names, thread.values(member), strict=True):
        if value in thread.logs_of_values:
            yield names.split_value_name(name)[0]


# --------------------------------------------------------------------------------------------
# Copying


def copy_thread(session: Session, source_thread_id: Any, target_thread_id: Any) -> Steps[None]:
    """Copy all data of a thread to another, which keeps its own data. The copy becomes visible when it is complete."""
    source = names.thread_keys(session.prefix, source_thread_id)
    target = names.thread_keys(session.prefix, target_thread_id)
    if source == target:
        return
    members = yield from all_members(source[1])
    newest = yield Command(["HGET", source[0], "n"])
    if not members or newest is None:
        return
    is_new = not (yield Command(["EXISTS", *target]))
    # An interrupted copy stays invisible, and expires.
    expire = UNFINISHED_COPY_MS if is_new else 0
    cursor: Any = None
    while cursor != 0:
        cursor, fields = yield Command(["HSCAN", source[0], cursor or 0, "COUNT", COPIED_FIELDS])
        for portion in _portions(fields.items() if isinstance(fields, dict) else pairs(fields)):
            yield Run(RESTORE, target, [0, b"", expire, len(portion) // 2, *portion])
        cursor = int(cursor)
    yield Run(RESTORE, target, [session.ttl, newest, expire, 0, *members])


def _portions(fields: Iterable[tuple[bytes, bytes]]) -> Iterator[list[bytes]]:
    portion: list[bytes] = []
    size = 0
    for name, value in fields:
        if name in (b"n", b"p", b"s"):
            continue
        portion += (name, value)
        size += len(value)
        if size > PORTION_COPIED:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion
