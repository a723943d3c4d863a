"""The Redis in which checkpoints lie: scanned, read and deleted in batches that leave room for others."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import redis
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ai_ops.core.checkpoint_keys import Family, KeyParser
from ai_ops.core.retention import Deletion, Document, Guard, Lineage, Namespace
from ai_ops.exceptions import CheckpointStoreError

SCAN_COUNT = 1000
PIPELINE_COMMANDS = 500
KEYS_PER_COMMAND = 100  # one command is one pause for every other client: about a millisecond of JSON documents
BREATH = 0.0005  # seconds between batches, in which Redis serves others
# Together some ten seconds: a restart or a failover takes about as long.
RETRY_DELAYS = (0.1, 0.3, 1.0, 3.0, 6.0)
MAX_VALUE_BYTES = 16 * 1024 * 1024  # a longer value is not read for its time

# A pointer (or ValkeySaver's list) is deleted only if it still names the document it named when the plan was
# made, and all pointers of a thread or none: a conversation that went on meanwhile keeps everything.
# KEYS: pointers, thread by thread. ARGV: "1" for a dry run; number of threads; pointers of each thread;
# expected values in the order of KEYS. Returns per thread 1 (deleted) or 0 (changed).
DROP_POINTERS = """
local dry, threads, at, replies = ARGV[1] == '1', tonumber(ARGV[2]), 0, {}
for thread = 1, threads do
  local count, same = tonumber(ARGV[2 + thread]), 1
  for index = at + 1, at + count do
    local kind, value = redis.call('TYPE', KEYS[index]).ok, nil
    if kind == 'string' then value = redis.call('GET', KEYS[index])
    elseif kind == 'list' then value = redis.call('LINDEX', KEYS[index], 0) end
    if kind ~= 'none' and value ~= ARGV[2 + threads + index] then same = 0 end
  end
  if same == 1 and not dry then
    for index = at + 1, at + count do redis.call('UNLINK', KEYS[index]) end
  end
  at = at + count
  replies[thread] = same
end
return replies
"""

# Deletes keys of the expected types. KEYS: the keys. ARGV: "1" for a dry run; the types, comma-separated.
# Returns the numbers, from 0, of the keys that have another type, and the number deleted (or to delete).
DROP_KEYS = """
local deleted, wrong = 0, {}
for index, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  if string.find(ARGV[2], ',' .. kind .. ',', 1, true) then
    if ARGV[1] ~= '1' then redis.call('UNLINK', key) end
    deleted = deleted + 1
  elseif kind ~= 'none' then
    wrong[#wrong + 1] = index - 1
  end
end
return {deleted, wrong}
"""

TYPES = {
    Family.DOCUMENT: b",ReJSON-RL,string,",
    Family.WRITE: b",ReJSON-RL,",
    Family.REGISTRY: b",zset,set,",
    Family.BLOB: b",ReJSON-RL,",
}
VALKEY_WRITES_TYPE = b",string,"

VALKEY_WRITES = b"writes:{"
VALKEY_LIST = b"thread:{"

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Outcome:
    """What became of a deletion.

    Attributes:
        deleted: Keys deleted, or that would be in a dry run.
        changed: Whether the thread went on meanwhile and was left alone.
        wrong_type: Keys that hold something no saver writes there, and stay.
    """

    deleted: int
    changed: bool = False
    wrong_type: tuple[bytes, ...] = ()


class CheckpointStore:
    """Checkpoints in one Redis database.

    Every method retries a lost connection for some ten seconds.

    Args:
        client: A client of the database, with ``decode_responses=False``.
        parser: Takes the keys apart.
        sleep: How to wait; seconds.

    Raises:
        CheckpointStoreError: From every method: what Redis refused or why it could not be reached.
    """

    def __init__(self, client: redis.Redis, parser: KeyParser, sleep: Callable[[float], object] = time.sleep) -> None:
        self._client = client
        self._parser = parser
        self._sleep = sleep

    def size(self) -> int:
        """How many keys the database has."""
        return int(self._retry(lambda: self._client.dbsize()))

    def scan(self) -> Iterator[list[bytes]]:
        """All keys, in batches; a key may come twice."""
        cursor: int = 0
        while True:
            cursor, keys = self._scan_at(cursor)
            yield keys
            if cursor == 0:
                return

    def _scan_at(self, cursor: int) -> tuple[int, list[bytes]]:
        reply: Any = self._retry(lambda: self._client.scan(cursor, count=SCAN_COUNT))
        return int(reply[0]), list(reply[1])

    def times(self, documents: Sequence[Document]) -> dict[bytes, float | None]:
        """The times that documents carry in their values, seconds since 1970, by key."""
        found: dict[bytes, float | None] = {}
        for batch in batches(documents, PIPELINE_COMMANDS):
            kinds = self._ask([("TYPE", document.key) for document in batch])
            commands = [_time_command(document.key, kind) for document, kind in zip(batch, kinds, strict=True)]
            values = self._ask([command for command in commands if command])
            answers = iter(values)
            for document, command in zip(batch, commands, strict=True):
                found[document.key] = self._time_in(next(answers)) if command else None
        return found

    def stubs(self, documents: Sequence[Document]) -> frozenset[bytes]:
        """The keys among `documents` that hold a JSON document without a thread: no saver put it there."""
        found: set[bytes] = set()
        for batch in batches(documents, PIPELINE_COMMANDS):
            values = self._ask([("JSON.GET", document.key, "$.thread_id") for document in batch])
            found |= {document.key for document, value in zip(batch, values, strict=True) if value == b"[]"}
        return frozenset(found)

    def heads(self, pointers: Sequence[bytes]) -> dict[bytes, Document]:
        """The documents that pointers and lists name as their namespace's newest, by the pointer's key."""
        found: dict[bytes, Document] = {}
        for batch in batches(pointers, PIPELINE_COMMANDS):
            for pointer, value in zip(batch, self._ask([_head_command(each) for each in batch]), strict=True):
                if isinstance(value, bytes):
                    found[pointer] = self._named(pointer, value)
        return found

    def lineage(self, namespaces: Sequence[Namespace]) -> dict[bytes, Lineage]:
        """What the documents of these namespaces say of their ancestors, by the document's key."""
        documents = [document for namespace in namespaces for document in namespace.documents.values()]
        found: dict[bytes, Lineage] = {}
        for batch in batches(documents, PIPELINE_COMMANDS):
            commands = [("JSON.GET", each.key, "$.parent_checkpoint_id", "$.metadata") for each in batch]
            for document, value in zip(batch, self._ask(commands), strict=True):
                if isinstance(value, bytes):
                    found[document.key] = _lineage_in(value)
        return found

    def apply(self, deletions: Sequence[Deletion], *, dryrun: bool) -> list[Outcome]:
        """Carry out deletions: pointers first, then documents, writes, registries and blobs of all of them.

        With `dryrun` nothing is deleted, and the outcomes are those that deleting would have had.
        """
        go = self._drop_pointers(deletions, dryrun) & self._still_without_owner(deletions)
        deleted = {number: len(deletions[number].guards) for number in go}
        wrong: dict[int, list[bytes]] = {number: [] for number in go}
        for kind, keys in _in_order(deletions, go):
            for batch in batches(keys, KEYS_PER_COMMAND):
                count, misfits = self._script(DROP_KEYS, [key for _, key in batch], [_flag(dryrun), kind])
                # Which keys were gone already is of no interest: the number is right in sum.
                deleted[batch[0][0]] += count
                for misfit in misfits:
                    number, key = batch[misfit]
                    wrong[number].append(key)
                self._sleep(BREATH)
        return [
            Outcome(deleted[number], False, tuple(wrong[number])) if number in go else Outcome(0, changed=True)
            for number in range(len(deletions))
        ]

    def _drop_pointers(self, deletions: Sequence[Deletion], dryrun: bool) -> set[int]:
        """Delete the pointers that still say what they said; the numbers of the deletions that may go on."""
        go = {number for number, deletion in enumerate(deletions) if not deletion.guards}
        guarded = [number for number, deletion in enumerate(deletions) if deletion.guards]
        for batch in batches(guarded, KEYS_PER_COMMAND):
            asked = [[_value_of(guard, guard.documents[:1]) for guard in deletions[number].guards] for number in batch]
            replies = self._compare_and_drop([deletions[number].guards for number in batch], asked, dryrun)
            for number, same in zip(batch, replies, strict=True):
                if same or self._drop_pointers_as_they_are(deletions[number].guards, dryrun):
                    go.add(number)
        return go

    def _drop_pointers_as_they_are(self, guards: Sequence[Guard], dryrun: bool) -> bool:
        """Try again with what the pointers say now, if that is nothing a conversation could go on from."""
        now_named = self.heads([guard.key for guard in guards])
        expected = []
        for guard in guards:
            named = now_named.get(guard.key)
            if named is not None and named not in guard.documents and not self._is_dead_end(named):
                return False
            expected.append(_value_of(guard, (named,) if named else ()))
        return bool(self._compare_and_drop([guards], [expected], dryrun)[0])

    def _is_dead_end(self, document: Document) -> bool:
        """Whether a pointer's document is missing, and not because it is still being written."""
        stale = self._parser.is_past_grace(document.time)
        return stale and not self._ask([("EXISTS", document.key)])[0]

    def _compare_and_drop(
        self, threads: Sequence[Sequence[Guard]], expected: Sequence[Sequence[bytes]], dryrun: bool
    ) -> list[int]:
        keys = [guard.key for guards in threads for guard in guards]
        sizes: list[bytes | int] = [len(guards) for guards in threads]
        values = [value for thread in expected for value in thread]
        reply: list[int] = self._script(DROP_POINTERS, keys, [_flag(dryrun), len(threads), *sizes, *values])
        return reply

    def _still_without_owner(self, deletions: Sequence[Deletion]) -> set[int]:
        """The numbers of the deletions whose owners are still missing."""
        questions = [(number, owner) for number, deletion in enumerate(deletions) for owner in deletion.owners]
        owned: set[int] = set()
        for batch in batches(questions, PIPELINE_COMMANDS):
            replies = self._ask([("EXISTS", owner) for _, owner in batch])
            owned |= {number for (number, _), exists in zip(batch, replies, strict=True) if exists}
        return set(range(len(deletions))) - owned

    def _named(self, pointer: bytes, value: bytes) -> Document:
        key = b"checkpoint" + pointer[len(VALKEY_LIST) - 1 :] + b":" + value if _is_list(pointer) else value
        parsed = self._parser.parse(key)
        return Document(key, parsed.checkpoint_id, parsed.time) if parsed else Document(key, b"", None)

    def _time_in(self, value: object) -> float | None:
        """The time in a document: ``checkpoint.ts`` as savers write it, or ``ts`` at the top."""
        if not isinstance(value, bytes):
            return None
        try:
            document = json.loads(value)
        except (ValueError, RecursionError):
            return None
        while isinstance(document, list) and document:
            document = document[0]
        if isinstance(document, dict):
            inner = document.get("checkpoint")
            document = document.get("ts") or (inner.get("ts") if isinstance(inner, dict) else None)
        return self._parser.time_of_text(document) if isinstance(document, str) else None

    def _ask(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send commands together; an answer that is an error of its key's type comes back as None."""
        if not commands:
            return []

        def send() -> list[Any]:
            with self._client.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
                return pipeline.execute(raise_on_error=False)

        def checked() -> list[Any]:
            replies = send()
            for reply in replies:
                if isinstance(reply, RedisError) and not _is_about_the_value(reply):
                    raise reply
            return replies

        return [None if isinstance(reply, RedisError) else reply for reply in self._retry(checked)]

    def _script(self, source: str, keys: Sequence[bytes], arguments: Sequence[Any]) -> Any:
        return self._retry(lambda: self._client.eval(source, len(keys), *keys, *arguments))

    def _retry(self, action: Callable[[], Result]) -> Result:
        for delay in (*RETRY_DELAYS, None):
            try:
                return action()
            except (RedisConnectionError, RedisTimeoutError) as error:
                if delay is None or isinstance(error, AuthenticationError):
                    raise CheckpointStoreError(explain(error)) from error
                self._sleep(delay)
            except RedisError as error:
                raise CheckpointStoreError(explain(error)) from error
        raise AssertionError("unreachable: the last delay is None")


def explain(error: RedisError) -> str:
    """What to do about an error of Redis, in a sentence."""
    said = str(error).rstrip(".")
    if isinstance(error, AuthenticationError):
        return (
            f"The checkpoint Redis refused the user name or password ({said}): "
            "check LANGGRAPH_REDIS_URL, or NAUTOBOT_REDIS_USERNAME and NAUTOBOT_REDIS_PASSWORD."
        )
    if isinstance(error, NoPermissionError) or "ACL failure" in said:
        return (
            f"The checkpoint Redis user lacks a permission ({said}): grant it with ACL SETUSER; the cleanup needs "
            "SCAN, DBSIZE, TYPE, GET, LINDEX, LREM, EXISTS, JSON.GET, EVAL and UNLINK."
        )
    if isinstance(error, ReadOnlyError) or "READONLY" in said:
        return (
            f"The checkpoint Redis is a read-only replica ({said}): "
            "point LANGGRAPH_REDIS_URL at the primary, or at Sentinel."
        )
    if isinstance(error, BusyLoadingError):
        return f"The checkpoint Redis is still loading its data ({said}): run the cleanup again when it has finished."
    if isinstance(error, RedisConnectionError | RedisTimeoutError):
        return (
            f"The checkpoint Redis can't be reached ({said}): check that it runs and that LANGGRAPH_REDIS_URL, "
            "or NAUTOBOT_REDIS_HOST and NAUTOBOT_REDIS_PORT, name it. The next run goes on from here."
        )
    return f"The checkpoint Redis refused a command ({said}): see its log; the next run goes on from here."


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of `size`, the last one shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _in_order(deletions: Sequence[Deletion], go: set[int]) -> Iterator[tuple[bytes, list[tuple[int, bytes]]]]:
    """The keys of the deletions that may go on, family by family, with the types they must have."""
    for family, kind in TYPES.items():
        keys = [(number, key) for number in sorted(go) for key in deletions[number].keys.get(family, ())]
        yield kind, [(number, key) for number, key in keys if not key.startswith(VALKEY_WRITES)]
        yield VALKEY_WRITES_TYPE, [(number, key) for number, key in keys if key.startswith(VALKEY_WRITES)]


def _is_list(pointer: bytes) -> bool:
    return pointer.startswith(VALKEY_LIST)


def _head_command(pointer: bytes) -> tuple[Any, ...]:
    return ("LINDEX", pointer, 0) if _is_list(pointer) else ("GET", pointer)


def _value_of(guard: Guard, documents: Sequence[Document]) -> bytes:
    """What the pointer holds when it names the first of `documents`."""
    if not documents:
        return b""
    return documents[0].checkpoint_id if _is_list(guard.key) else documents[0].key


def _time_command(key: bytes, kind: object) -> tuple[Any, ...] | None:
    if kind == b"ReJSON-RL":
        return ("JSON.GET", key, "$.checkpoint.ts")
    if kind == b"string":
        return ("GETRANGE", key, 0, MAX_VALUE_BYTES)
    return None


def _lineage_in(value: bytes) -> Lineage:
    """Read the parent and the depth of the DeltaChannels.

    ``metadata.counters_since_delta_snapshot`` maps a channel to (updates, supersteps) since its last
    snapshot (langgraph.checkpoint.base.CheckpointMetadata); RedisSaver keeps metadata as JSON in a string.
    """
    try:
        document = json.loads(value)
        parents, metadata = document.get("$.parent_checkpoint_id"), document.get("$.metadata")
        details = metadata[0] if metadata else {}
        if isinstance(details, str):
            details = json.loads(details)
        counters = details.get("counters_since_delta_snapshot") or {}
        depth = max((int(counter[1]) for counter in counters.values()), default=0)
        return Lineage(str(parents[0]).encode() if parents else b"", depth)
    except (ValueError, RecursionError, AttributeError, TypeError, LookupError):
        return Lineage(b"", 0)


def _is_about_the_value(error: RedisError) -> bool:
    """Whether the error says something of one key's value rather than of the server or the user."""
    if isinstance(error, NoPermissionError | ReadOnlyError | BusyLoadingError) or not isinstance(error, ResponseError):
        return False
    text = str(error)
    return "WRONGTYPE" in text or "wrong kind of value" in text or "wrong Redis type" in text or "Path" in text


def _flag(value: bool) -> bytes:
    return b"1" if value else b"0"
