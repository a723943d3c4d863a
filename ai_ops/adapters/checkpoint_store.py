"""The Redis in which checkpoints lie: scanned, read and deleted in batches that leave room for others."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import redis
from redis.cluster import RedisCluster
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

from ai_ops.core.checkpoint_keys import (
    ROOT_NAMESPACE,
    SHALLOW_ID,
    VALKEY_LIST,
    VALKEY_WRITES,
    CheckpointKey,
    Family,
    KeyParser,
)
from ai_ops.core.retention import Deletion, Document, Guard, Lineage
from ai_ops.exceptions import CheckpointStoreError

SCAN_COUNT = 1000
PIPELINE_COMMANDS = 500
KEYS_PER_COMMAND = 100  # one command is one pause for every other client: about a millisecond of JSON documents
BREATH = 0.0005  # seconds between batches, in which Redis serves others
# Together some ten seconds: a restart or a failover takes about as long.
RETRY_DELAYS = (0.1, 0.3, 1.0, 3.0, 6.0)
MAX_VALUE_BYTES = 16 * 1024 * 1024  # a longer value is not read for its time
REGISTRY_MEMBERS = 100  # of a shallow saver's writes, so many are looked at for a time
# What an ACL must allow; the documentation of the installation has the same list, with INFO, which is optional.
COMMANDS = (
    "SCAN", "DBSIZE", "TYPE", "GET", "GETRANGE", "LINDEX", "LREM", "EXISTS", "ZRANGE", "JSON.GET", "EVAL", "UNLINK",
    "SELECT",
)  # fmt: skip
INTERRUPT_CHANNEL = b'"__interrupt__"'

# One step of a SCAN, its keys joined: a client in Python takes a microsecond for each string of a reply, as long as
# all else that is done with most keys. ARGV: the cursor; COUNT; how long the text may become, for a few huge keys
# would be copied once more. Returns the cursor, and the number of keys and their text, or the keys.
SCAN_JOINED = """
local reply, size = redis.call('SCAN', ARGV[1], 'COUNT', ARGV[2]), 0
local keys = reply[2]
for index = 1, #keys do size = size + #keys[index] end
if size > tonumber(ARGV[3]) then return {reply[1], keys} end
return {reply[1], #keys, table.concat(keys, string.char(10))}
"""
JOINED_BYTES = 1024 * 1024

# A pointer (or ValkeySaver's list, or a shallow saver's only document) is deleted only if it still says what it
# said when the plan was made, and all pointers of a thread or none: a conversation that went on keeps everything.
# KEYS: pointers, thread by thread. ARGV: "1" for a dry run; number of threads; pointers of each thread;
# expected values in the order of KEYS. Returns per thread 1 (deleted) or 0 (changed).
DROP_POINTERS = """
local dry, threads, at, replies = ARGV[1] == '1', tonumber(ARGV[2]), 0, {}
for thread = 1, threads do
  local count, same = tonumber(ARGV[2 + thread]), 1
  for index = at + 1, at + count do
    local kind, value = redis.call('TYPE', KEYS[index]).ok, nil
    if kind == 'string' then value = redis.call('GET', KEYS[index])
    elseif kind == 'list' then value = redis.call('LINDEX', KEYS[index], 0)
    elseif kind == 'ReJSON-RL' then value = redis.call('JSON.GET', KEYS[index], '$.checkpoint_id') end
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

# Deletes keys of the expected types. KEYS: the keys. ARGV: "1" for a dry run; the types between commas.
# Returns, of each key that was not deleted, its place from 0 and one of the two numbers below.
DROP_KEYS = """
local call, dry, kinds, replies = redis.call, ARGV[1] == '1', {}, {}
for kind in string.gmatch(ARGV[2], '[^,]+') do kinds[kind] = true end
for index = 1, #KEYS do
  local key = KEYS[index]
  local kind = call('TYPE', key).ok
  if kinds[kind] then
    if not dry then call('UNLINK', key) end
  else
    replies[#replies + 1] = index - 1
    replies[#replies + 1] = kind == 'none' and 0 or 1
  end
end
return replies
"""
GONE, OF_ANOTHER_TYPE = range(2)

TYPES = {
    Family.DOCUMENT: b",ReJSON-RL,string,",
    Family.WRITE: b",ReJSON-RL,",
    Family.REGISTRY: b",zset,set,",
    Family.BLOB: b",ReJSON-RL,",
}
VALKEY_WRITES_TYPE = b",string,"

Item = TypeVar("Item")
Result = TypeVar("Result")


class Outcome(NamedTuple):
    """What became of a deletion.

    Attributes:
        deleted: Keys deleted, or that would be in a dry run.
        changed: Whether the thread went on meanwhile and was left alone.
        wrong_type: Keys that hold something no saver writes there, and stay.
    """

    deleted: int
    changed: bool = False
    wrong_type: tuple[bytes, ...] = ()


LEFT_ALONE = Outcome(0, changed=True)


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
        # Both answer the same commands; only their types have nothing in common.
        self._client: Any = client
        self._is_cluster = isinstance(client, RedisCluster)
        self._parser = parser
        self._sleep = sleep

    def size(self) -> int:
        """How many keys the database has, on all primaries together."""
        targets = [{"target_nodes": node} if node else {} for node in self._primaries()]
        return sum(self._retry(lambda at=target: int(self._client.dbsize(**at))) for target in targets)  # type: ignore[misc]

    def memory(self) -> int | None:
        """Bytes of memory the server uses, all primaries together; None if the user may not ask."""
        try:
            infos = [self._retry(lambda at=node: self._info(at)) for node in self._primaries()]  # type: ignore[misc]
        except CheckpointStoreError as error:
            if isinstance(error.__cause__, NoPermissionError):
                return None
            raise
        return sum(int(info["used_memory"]) for info in infos)

    def sizes(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        """Bytes of memory that keys take, by key; without those that are gone, empty if the user may not ask."""
        found: dict[bytes, int] = {}
        try:
            for batch in batches(keys, PIPELINE_COMMANDS):
                replies = self._ask([("MEMORY USAGE", key) for key in batch])
                found |= {key: int(size) for key, size in zip(batch, replies, strict=True) if size is not None}
                self._sleep(BREATH)
        except CheckpointStoreError as error:
            if not isinstance(error.__cause__, NoPermissionError):
                raise
        return found

    def scan(self, restarted: Callable[[], object]) -> Iterator[list[bytes]]:
        """All keys of all primaries, in batches; a key may come twice.

        When the connection was lost, the server behind it may be another one, or one that was started anew:
        its cursor means nothing to the old scan. Then `restarted` is called and all keys come again.
        """
        for delay in (*RETRY_DELAYS, None):
            try:
                for node in self._primaries():
                    # One connection for the whole scan: a pool would replace a lost one without a word.
                    with (node.redis_connection if node else self._client).client() as connection:
                        cursor = 0
                        while True:
                            cursor, keys = self._scan_at(cursor, connection)
                            yield keys
                            if cursor == 0:
                                break
                return
            except (RedisConnectionError, RedisTimeoutError) as error:
                self._wait_or_give_up(error, delay)
                restarted()
            except RedisError as error:
                raise CheckpointStoreError(explain(error)) from error

    def complete(self, keys: Iterable[CheckpointKey]) -> Iterator[CheckpointKey]:
        """The keys with what only their values say: thread, namespace and time of an undated document or blob."""
        vague: list[CheckpointKey] = []
        for key in keys:
            # Most have a time, and need no question asked.
            if (key[4] is None or not key[6]) and _is_vague(key):
                vague.append(key)
            else:
                yield key
        for batch in batches(vague, PIPELINE_COMMANDS):
            replies = self._ask([_detail_command(key) for key in batch])
            strings = [key for key, reply in zip(batch, replies, strict=True) if reply is None]
            texts = self._ask([("GETRANGE", key.key, 0, MAX_VALUE_BYTES) for key in strings])
            text_of = dict(zip([key.key for key in strings], texts, strict=True))
            for key, reply in zip(batch, replies, strict=True):
                yield self._completed(key, reply if reply is not None else text_of.get(key.key))

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

    def lineage(self, documents: Iterable[bytes]) -> dict[bytes, Lineage]:
        """What documents say of their ancestors, by key."""
        found: dict[bytes, Lineage] = {}
        for batch in batches(documents, PIPELINE_COMMANDS):
            commands = [("JSON.GET", key, "$.parent_checkpoint_id", "$.metadata") for key in batch]
            for key, reply in zip(batch, self._ask_either(commands), strict=True):
                if isinstance(reply, bytes):
                    found[key] = _lineage_in(reply)
        return found

    def interrupts(self, writes: Sequence[bytes]) -> frozenset[bytes]:
        """The keys of the writes that are interrupts, or have one among them."""
        found: set[bytes] = set()
        for batch in batches(writes, PIPELINE_COMMANDS):
            replies = self._ask([("GET", key) if _is_valkey(key) else ("JSON.GET", key, "$.channel") for key in batch])
            found |= {key for key, reply in zip(batch, replies, strict=True) if reply and INTERRUPT_CHANNEL in reply}
        return frozenset(found)

    def foreign(self, documents: Mapping[bytes, tuple[bytes, ...]]) -> frozenset[bytes]:
        """The keys among `documents` whose documents name none of the threads they are thought to be of."""
        found: set[bytes] = set()
        for batch in batches(documents, PIPELINE_COMMANDS):
            replies = self._ask([("JSON.GET", key, "$.thread_id") for key in batch])
            for key, reply in zip(batch, replies, strict=True):
                named = _first(_parsed(reply))
                if isinstance(named, str) and named.encode() not in documents[key]:
                    found.add(key)
        return frozenset(found)

    def versions(self, documents: Iterable[bytes]) -> dict[bytes, dict[bytes, bytes]]:
        """The versions of their channels that documents name, by key."""
        found: dict[bytes, dict[bytes, bytes]] = {}
        for batch in batches(documents, PIPELINE_COMMANDS):
            replies = self._ask([("JSON.GET", key, "$.checkpoint.channel_versions") for key in batch])
            for key, reply in zip(batch, replies, strict=True):
                named = _first(_parsed(reply))
                if isinstance(named, dict):
                    found[key] = {channel.encode(): str(version).encode() for channel, version in named.items()}
        return found

    def apply(self, deletions: Sequence[Deletion], *, dryrun: bool) -> list[Outcome]:
        """Carry out deletions: pointers first, then documents, writes, registries and blobs of all of them.

        With `dryrun` nothing is deleted, and the outcomes are those that deleting would have had.
        """
        go = self._drop_pointers(deletions, dryrun, self._still_without_owner(deletions))
        entries = [entry for number in sorted(go) for entry in deletions[number].list_entries]
        for some in batches(() if dryrun else entries, PIPELINE_COMMANDS):
            # From the end: the old ones are there.
            self._ask([("LREM", key, -1, checkpoint_id) for key, checkpoint_id in some])
        deleted = {number: deletions[number].size for number in go}
        wrong: dict[int, list[bytes]] = {}
        for kind, numbers, keys in _in_order(deletions, sorted(go)):
            for start in range(0, len(keys), KEYS_PER_COMMAND):
                for place, result in self._drop(keys[start : start + KEYS_PER_COMMAND], kind, dryrun):
                    number = numbers[start + place]
                    deleted[number] -= 1
                    if result == OF_ANOTHER_TYPE:
                        wrong.setdefault(number, []).append(keys[start + place])
        self._sleep(BREATH)
        return [
            Outcome(deleted[number], False, tuple(wrong.get(number, ()))) if number in go else LEFT_ALONE
            for number in range(len(deletions))
        ]

    def _drop_pointers(self, deletions: Sequence[Deletion], dryrun: bool, free: set[int]) -> set[int]:
        """Delete the pointers that still say what they said; the numbers of those `free` that may go on."""
        go = {number for number in free if not deletions[number].guards}
        guarded = sorted(free - go)
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
        if self._is_cluster:
            return [self._compare_and_drop_apart(*thread, dryrun) for thread in zip(threads, expected, strict=True)]
        keys = [guard.key for guards in threads for guard in guards]
        sizes: list[bytes | int] = [len(guards) for guards in threads]
        values = [value for thread in expected for value in thread]
        reply: list[int] = self._script(DROP_POINTERS, keys, [_flag(dryrun), len(threads), *sizes, *values])
        return reply

    def _compare_and_drop_apart(self, guards: Sequence[Guard], expected: Sequence[bytes], dryrun: bool) -> int:
        """The same where one script can't reach all keys: look at all first, then delete root first, one by one."""
        for dry in (True, dryrun):
            for guard, value in zip(guards, expected, strict=True):
                if not self._script(DROP_POINTERS, [guard.key], [_flag(dry), 1, 1, value])[0]:
                    return 0
        return 1

    def _drop(self, keys: Sequence[bytes], kind: bytes, dryrun: bool) -> list[tuple[int, int]]:
        """Delete keys of the types in `kind`; of each other key its place, and GONE or OF_ANOTHER_TYPE."""
        if not self._is_cluster:
            reply: list[int] = self._script(DROP_KEYS, keys, [_flag(dryrun), kind])
            return list(zip(reply[::2], reply[1::2], strict=True))
        kinds = self._ask([("TYPE", key) for key in keys])
        stay = {
            place: GONE if each == b"none" else OF_ANOTHER_TYPE
            for place, each in enumerate(kinds)
            if b"," + each + b"," not in kind
        }
        chosen = [] if dryrun else [key for place, key in enumerate(keys) if place not in stay]
        self._ask([("UNLINK", key) for key in chosen])
        return list(stay.items())

    def _still_without_owner(self, deletions: Sequence[Deletion]) -> set[int]:
        """The numbers of the deletions whose owners are still missing."""
        owned: set[int] = set()
        questions = [(number, owner) for number, deletion in enumerate(deletions) for owner in deletion.owners]
        for batch in batches(questions, PIPELINE_COMMANDS):
            replies = self._ask([("EXISTS", owner) for _, owner in batch])
            owned |= {number for (number, _), exists in zip(batch, replies, strict=True) if exists}
        if not questions:
            return set(range(len(deletions)))
        # Registries have no prefix of their own: one may be of a saver with another prefix, as its writes are.
        registries = [
            (number, key)
            for number, deletion in enumerate(deletions)
            if deletion.owners
            for key in deletion.keys.get(Family.REGISTRY, ())
        ]
        for batches_of in batches(registries, PIPELINE_COMMANDS):
            replies = self._ask([("ZRANGE", key, 0, 0) for _, key in batches_of])
            for (number, _), members in zip(batches_of, replies, strict=True):
                if members and b":" in members[0] and self._parser.parse(members[0]) is None:
                    owned.add(number)
        return set(range(len(deletions))) - owned

    def _named(self, pointer: bytes, value: bytes) -> Document:
        key = b"checkpoint" + pointer[len(VALKEY_LIST) - 1 :] + b":" + value if _is_list(pointer) else value
        parsed = self._parser.parse(key)
        return Document(key, parsed.checkpoint_id, parsed.time) if parsed else Document(key, b"", None)

    def _completed(self, key: CheckpointKey, reply: object) -> CheckpointKey:
        if key.family == Family.REGISTRY:
            members = reply if isinstance(reply, list) else []
            times = [parsed.time for parsed in map(self._parser.parse, members) if parsed]
            return key._replace(time=max((time for time in times if time is not None), default=None))
        details = _details_in(_parsed(reply))
        if isinstance(thread := details.get("thread_id"), str):
            key = key._replace(thread=thread.encode(), namespace=_namespace_of(key, details), certain=True)
        if key.family != Family.DOCUMENT:
            return key
        named, said = details.get("checkpoint_id"), details.get("ts")
        checkpoint_id = named.encode() if isinstance(named, str) else key.checkpoint_id
        time_of_id = self._parser.time_of(checkpoint_id)
        if time_of_id is None and isinstance(said, str):
            time_of_id = self._parser.time_of_text(said)
        return key._replace(checkpoint_id=checkpoint_id, time=time_of_id)

    def _ask(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send commands together; an answer that is an error of its key's type comes back as None."""
        if not commands:
            return []

        def send() -> list[Any]:
            with self._client.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                replies: list[Any] = pipeline.execute(raise_on_error=False)
                return replies

        def checked() -> list[Any]:
            replies = send()
            for reply in replies:
                if isinstance(reply, RedisError) and not _is_about_the_value(reply):
                    raise reply
            return replies

        return [None if isinstance(reply, RedisError) else reply for reply in self._retry(checked)]

    def _ask_either(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send JSON commands, and GET where the key turns out to be a string."""
        replies = self._ask(commands)
        strings = [number for number, reply in enumerate(replies) if reply is None]
        for number, text in zip(strings, self._ask([("GET", commands[each][1]) for each in strings]), strict=True):
            replies[number] = text
        return replies

    def _script(self, source: str, keys: Sequence[bytes], arguments: Sequence[Any]) -> Any:
        if self._is_cluster:
            return self._retry(lambda: self._client.eval(source, len(keys), *keys, *arguments))
        command = _packed(["EVAL", source, len(keys), *keys, *arguments])
        return self._retry(lambda: self._exchange(command))

    def _exchange(self, command: bytes) -> Any:
        """Send a command that was packed, and wait for its reply."""
        pool = self._client.connection_pool
        connection = pool.get_connection()
        try:
            connection.send_packed_command([command])
            return connection.read_response()
        except ResponseError:
            raise
        except BaseException:
            # A reply may still be on its way, and must not become that to the next command.
            connection.disconnect()
            raise
        finally:
            pool.release(connection)

    def _primaries(self) -> list[Any]:
        """The nodes to scan: those of a cluster, or just the one there is."""
        return list(self._client.get_primaries()) if self._is_cluster else [None]

    def _info(self, node: Any) -> dict[str, Any]:
        target = {"target_nodes": node} if node else {}
        reply: dict[str, Any] = self._client.info("memory", **target)
        return reply

    def _scan_at(self, cursor: int, connection: Any) -> tuple[int, list[bytes]]:
        at, *found = connection.eval(SCAN_JOINED, 0, cursor, SCAN_COUNT, JOINED_BYTES)
        if len(found) == 1:
            return int(at), list(found[0])
        keys = found[1].split(b"\n") if found[0] else []
        if len(keys) != found[0]:
            # A key has a line break in its name: the same step again, told apart by Redis.
            at, keys = connection.scan(cursor, count=SCAN_COUNT)
        return int(at), list(keys)

    def _retry(self, action: Callable[[], Result]) -> Result:
        for delay in (*RETRY_DELAYS, None):
            try:
                return action()
            except (RedisConnectionError, RedisTimeoutError) as error:
                self._wait_or_give_up(error, delay)
            except RedisError as error:
                raise CheckpointStoreError(explain(error)) from error
        raise AssertionError("the last delay is None, which gives up")

    def _wait_or_give_up(self, error: RedisError, delay: float | None) -> None:
        if delay is None or isinstance(error, AuthenticationError):
            raise CheckpointStoreError(explain(error)) from error
        self._sleep(delay)


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
            f"{', '.join(COMMANDS[:-1])} and {COMMANDS[-1]}, and INFO for memory_limit_mb."
        )
    if "DB index is out of range" in said:
        return (
            f"The checkpoint Redis has no such database ({said}): "
            "set LANGGRAPH_REDIS_DB, or the number at the end of LANGGRAPH_REDIS_URL, to one that it has."
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


def _in_order(deletions: Sequence[Deletion], go: Sequence[int]) -> Iterator[tuple[bytes, list[int], list[bytes]]]:
    """The keys of the deletions that may go on, family by family: the types, whose they are, and the keys."""
    for family, kind in TYPES.items():
        ordinary: list[tuple[int, bytes]] = []
        valkey: list[tuple[int, bytes]] = []
        for number in go:
            keys = deletions[number].keys.get(family)
            if keys:
                # Nobody mixes the writes of two savers in one thread but by accident: each key is looked at.
                for key in keys:
                    (valkey if key.startswith(VALKEY_WRITES) else ordinary).append((number, key))
        for types, some in ((kind, ordinary), (VALKEY_WRITES_TYPE, valkey)):
            yield types, [number for number, _ in some], [key for _, key in some]


def _packed(words: Sequence[str | bytes | int]) -> bytes:
    """A command as Redis reads it. The client's own packing takes three times as long, and sends it in pieces."""
    encoded = [word if type(word) is bytes else str(word).encode() for word in words]
    return b"".join([b"*%d\r\n" % len(encoded), *[b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded]])


def _is_valkey(write: bytes) -> bool:
    return write.startswith(VALKEY_WRITES)


def _is_list(pointer: bytes) -> bool:
    return pointer.startswith(VALKEY_LIST)


def _head_command(pointer: bytes) -> tuple[Any, ...]:
    return ("LINDEX", pointer, 0) if _is_list(pointer) else ("GET", pointer)


def _value_of(guard: Guard, documents: Sequence[Document]) -> bytes:
    """What the pointer says when it names the first of `documents`."""
    if not documents:
        return b""
    document = documents[0]
    if document.key == guard.key:
        return json.dumps([document.checkpoint_id.decode()]).encode()
    return document.checkpoint_id if _is_list(guard.key) else document.key


def _is_vague(key: CheckpointKey) -> bool:
    """Whether only the value tells what is needed of a key."""
    if key.family == Family.DOCUMENT:
        # A key that nobody can have meant has all of itself for its id, and its value is not looked at.
        return key.time is None and key.checkpoint_id != key.key
    if key.family == Family.BLOB:
        return not key.certain
    return key.family == Family.REGISTRY and key.checkpoint_id == SHALLOW_ID


def _detail_command(key: CheckpointKey) -> tuple[Any, ...]:
    if key.family == Family.REGISTRY:
        return ("ZRANGE", key.key, 0, REGISTRY_MEMBERS)
    return ("JSON.GET", key.key, "$.thread_id", "$.checkpoint_ns", "$.checkpoint_id", "$.checkpoint.ts", "$.ts")


def _details_in(value: object) -> dict[str, Any]:
    """The fields of a document, whether RedisJSON gave them as paths or the value is the document itself."""
    if not isinstance(value, dict):
        return {}
    if "$.thread_id" in value:
        paths = {path.removeprefix("$.").removeprefix("checkpoint."): _first(found) for path, found in value.items()}
        return {**paths, "ts": _first(value.get("$.checkpoint.ts")) or _first(value.get("$.ts"))}
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


def _parsed(value: object) -> Any:
    try:
        return json.loads(value) if isinstance(value, bytes) else None
    except (ValueError, RecursionError):
        return None


def _first(found: object) -> Any:
    return found[0] if isinstance(found, list) and found else None


def _lineage_in(value: bytes) -> Lineage:
    """Read the parent and the depth of the DeltaChannels.

    ``metadata.counters_since_delta_snapshot`` maps a channel to (updates, supersteps) since its last snapshot
    (langgraph.checkpoint.base.CheckpointMetadata). RedisSaver keeps metadata as JSON in a string, ValkeySaver
    as JSON in base64.
    """
    document = _parsed(value)
    if not isinstance(document, dict):
        return Lineage(b"", 0)
    parent = document.get("parent_checkpoint_id") or _first(document.get("$.parent_checkpoint_id"))
    metadata = document.get("metadata") or _first(document.get("$.metadata"))
    if isinstance(metadata, str):
        metadata = _parsed(metadata.encode()) or _parsed(_unpacked(metadata))
    counters = metadata.get("counters_since_delta_snapshot") if isinstance(metadata, dict) else None
    steps = [counter[1] for counter in counters.values()] if isinstance(counters, dict) else []
    depth = max((step for step in steps if isinstance(step, int)), default=0)
    return Lineage(parent.encode() if isinstance(parent, str) else b"", depth)


def _unpacked(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""


def _is_about_the_value(error: RedisError) -> bool:
    """Whether the error says something of one key's value rather than of the server or the user."""
    if isinstance(error, NoPermissionError | ReadOnlyError | BusyLoadingError) or not isinstance(error, ResponseError):
        return False
    text = str(error)
    if "unknown command 'JSON." in text:
        # Without RedisJSON there are no JSON documents: whatever the key holds, it is none.
        return True
    return "WRONGTYPE" in text or "wrong kind of value" in text or "wrong Redis type" in text or "Path" in text


def _flag(value: bool) -> bytes:
    return b"1" if value else b"0"
