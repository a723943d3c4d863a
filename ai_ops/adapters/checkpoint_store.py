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

from ai_ops.adapters.checkpoint_scripts import (
    DROP_KEYS,
    DROP_POINTERS,
    GONE,
    JOINED_BYTES,
    OF_ANOTHER_TYPE,
    SCAN_JOINED,
)
from ai_ops.adapters.fence import CHECK, REFUSED, Fence
from ai_ops.adapters.redis_calls import Answer, CallsAhead, packed
from ai_ops.core.checkpoint_keys import (
    ROOT_NAMESPACE,
    SHALLOW_ID,
    VALKEY_LIST,
    VALKEY_WRITES,
    CheckpointKey,
    Family,
    KeyParser,
)
from ai_ops.core.deletion import Deletion, Guard
from ai_ops.core.facts import Lineage
from ai_ops.core.threads import Document
from ai_ops.exceptions import CheckpointStoreError, LeaseLostError

SCAN_COUNT = 1000
PIPELINE_COMMANDS = 500
KEYS_PER_COMMAND = 100  # one command is one pause for every other client: about a millisecond of JSON documents
# Seconds in which Redis surely has nothing to do for the cleanup. Between batches it mostly waits for it anyway.
BREATH = 0.0005
DELETIONS_PER_BREATH = 2500
# Together some ten seconds: a restart or a failover takes about as long.
RETRY_DELAYS = (0.1, 0.3, 1.0, 3.0, 6.0)
MAX_VALUE_BYTES = 16 * 1024 * 1024  # a longer value is not read for its time
REGISTRY_MEMBERS = 100  # of a shallow saver's writes, so many are looked at for a time
# What an ACL must allow; the documentation of the installation has the same list, with INFO, which is optional.
COMMANDS = (
    "SCAN", "DBSIZE", "TYPE", "GET", "GETRANGE", "LINDEX", "LREM", "EXISTS", "ZRANGE", "JSON.GET", "EVAL", "SET",
    "UNLINK", "SELECT",
)  # fmt: skip
INTERRUPT_CHANNEL = b'"__interrupt__"'

TYPES = {
    Family.SUPERSEDED_BLOB: b",ReJSON-RL,",
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


class Dropped(NamedTuple):
    """A call that deletes keys.

    Attributes:
        numbers: Those of the deletions that the keys are of.
        keys: The keys.
        answer: Of each key that was not deleted its place among `keys`, and why: GONE or OF_ANOTHER_TYPE.
    """

    numbers: Sequence[int]
    keys: Sequence[bytes]
    answer: Answer

    def left(self) -> list[tuple[bytes, int]]:
        """The keys that were not deleted, and why."""
        reply = self.answer.value
        if reply is None:
            # Refused: there all of them are, and whatever they are the error says more.
            return [(key, GONE) for key in self.keys]
        left = [(self.keys[place], why) for place, why in zip(reply[::2], reply[1::2], strict=True)]
        # What is gone after a second try went the first time, of which nobody has told.
        return [(key, why) for key, why in left if why != GONE or not self.answer.repeated]

    def whose(self, key: bytes, deletions: Sequence[Deletion]) -> int:
        """The number of the deletion that a key is of."""
        return next(each for each in self.numbers if any(key in some for some in deletions[each].keys.values()))


class CheckpointStore:
    """Checkpoints in one Redis database.

    Every method retries a lost connection for some ten seconds.

    Args:
        client: A client of the database, with ``decode_responses=False``.
        parser: Takes the keys apart.
        sleep: How to wait; seconds.
        fence: Whose deletions Redis carries out; None for everybody's. A cluster knows none: one script can't compare
            a key on one node and delete on another.

    Raises:
        LeaseLostError: From `apply`: another run has taken over.
        CheckpointStoreError: From every method: what Redis refused or why it could not be reached.
    """

    def __init__(
        self,
        client: redis.Redis,
        parser: KeyParser,
        sleep: Callable[[float], object] = time.sleep,
        fence: Fence | None = None,
    ) -> None:
        # Both answer the same commands; only their types have nothing in common.
        self._client: Any = client
        self._is_cluster = isinstance(client, RedisCluster)
        self._parser = parser
        self._sleep = sleep
        self._fence = None if self._is_cluster else fence
        self._is_hurried = False
        self._since_breath = 0
        self._calls = None if self._is_cluster else CallsAhead(client, self._retry)

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
                    yield from self._scan_node(node.redis_connection if node else self._client)
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

    def own_ids(self, documents: Sequence[bytes]) -> dict[bytes, Document]:
        """Those of the documents whose checkpoints have other ids than their keys, as they should be, by key."""
        found: dict[bytes, Document] = {}
        for batch in batches(documents, PIPELINE_COMMANDS):
            for key, reply in zip(
                batch, self._ask([("JSON.GET", key, "$.checkpoint.id") for key in batch]), strict=True
            ):
                own = _first(_parsed(reply))
                if isinstance(own, str) and not key.endswith(b":" + own.encode()):
                    time_of_id = self._parser.time_of(own.encode())
                    found[key] = Document(key, own.encode(), time_of_id, bears_parents_id=True)
        return found

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

    def apply(self, deletions: Sequence[Deletion], *, dryrun: bool) -> Callable[[], list[Outcome]]:
        """Carry out deletions: of each thread pointers first, then documents, writes, registries and blobs.

        With `dryrun` nothing is deleted, and the outcomes are those that deleting would have had.

        Returns:
            Gives the outcomes. Redis may still be at work on the last of them, and is waited for then.
        """
        if self._fence and not self._fence.is_claimed and not dryrun:
            self._fence.claim(self._at_once)
        self._breathe(len(deletions))
        go = sorted(self._drop_pointers(deletions, dryrun, self._still_without_owner(deletions)))
        entries = [entry for number in go for entry in deletions[number].list_entries]
        for some in batches(() if dryrun else entries, PIPELINE_COMMANDS):
            # From the end: the old ones are there.
            self._ask([("LREM", key, -1, checkpoint_id) for key, checkpoint_id in some])
        dropped = [call for numbers in _shared_calls(deletions, go) for call in self._drop(deletions, numbers, dryrun)]
        if self._calls:
            self._calls.send()
        return lambda: self._outcomes(deletions, go, dropped)

    def _breathe(self, deletions: int) -> None:
        self._since_breath += deletions
        if self._since_breath > DELETIONS_PER_BREATH:
            self._since_breath = 0
            self._settle()
            self._sleep(BREATH)

    def release(self) -> None:
        """Take the fence away, at the end of a run."""
        if self._fence:
            self._settle()
            self._fence.release(self._at_once)

    def hurry(self) -> None:
        """From now on give up at once instead of trying again."""
        self._is_hurried = True

    def _outcomes(self, deletions: Sequence[Deletion], go: Sequence[int], dropped: Sequence[Dropped]) -> list[Outcome]:
        outcomes = [LEFT_ALONE] * len(deletions)
        for number in go:
            outcomes[number] = Outcome(deletions[number].size)
        if any(call.answer.value is None for call in dropped):
            self._settle()
        for call in dropped:
            for key, result in call.left():
                number = call.whose(key, deletions)
                so_far = outcomes[number]
                wrong = (*so_far.wrong_type, key) if result == OF_ANOTHER_TYPE else so_far.wrong_type
                outcomes[number] = so_far._replace(deleted=so_far.deleted - 1, wrong_type=wrong)
        return outcomes

    def _drop_pointers(self, deletions: Sequence[Deletion], dryrun: bool, free: set[int]) -> set[int]:
        """Delete the pointers that still say what they said; the numbers of those `free` that may go on."""
        go = {number for number in free if not deletions[number].guards}
        guarded = sorted(free - go)
        compared = [
            (batch, self._compare_and_drop([deletions[number].guards for number in batch], dryrun))
            for batch in batches(guarded, KEYS_PER_COMMAND)
        ]
        # Nothing else of a thread goes before Redis has said that its pointers did.
        self._settle()
        for batch, answer in compared:
            for number, same in zip(batch, answer.value, strict=True):
                if same or self._drop_pointers_as_they_are(deletions[number].guards, dryrun):
                    go.add(number)
        return go

    def _drop_pointers_as_they_are(self, guards: Sequence[Guard], dryrun: bool) -> bool:
        """Try again with what the pointers say now, if that is nothing a conversation could go on from."""
        now_named = self.heads([guard.key for guard in guards])
        for guard in guards:
            named = now_named.get(guard.key)
            if named is not None and named not in guard.documents and not self._is_dead_end(named):
                return False
        named_now = [(now_named[guard.key],) if guard.key in now_named else () for guard in guards]
        as_they_are = [guard._replace(documents=named) for guard, named in zip(guards, named_now, strict=True)]
        answer = self._compare_and_drop([as_they_are], dryrun)
        self._settle()
        return bool(answer.value[0])

    def _is_dead_end(self, document: Document) -> bool:
        """Whether a pointer's document is missing, and not because it is still being written."""
        stale = self._parser.is_past_grace(document.time)
        return stale and not self._ask([("EXISTS", document.key)])[0]

    def _compare_and_drop(self, threads: Sequence[Sequence[Guard]], dryrun: bool) -> Answer:
        """Delete pointers that name the first of their documents; for each thread whether all of its pointers did."""
        if self._is_cluster:
            return Answer(b"", [self._compare_and_drop_apart(guards, dryrun) for guards in threads])
        keys = [guard.key for guards in threads for guard in guards]
        sizes: list[bytes | int] = [len(guards) for guards in threads]
        values = [_value_of(guard) for guards in threads for guard in guards]
        return self._script(DROP_POINTERS, keys, [_flag(dryrun), len(threads), *sizes, *values])

    def _compare_and_drop_apart(self, guards: Sequence[Guard], dryrun: bool) -> int:
        """The same where one script can't reach all keys: look at all first, then delete root first, one by one."""
        for dry in (True, dryrun):
            for guard in guards:
                if not self._script(DROP_POINTERS, [guard.key], [_flag(dry), 1, 1, _value_of(guard)]).value[0]:
                    return 0
        return 1

    def _drop(self, deletions: Sequence[Deletion], numbers: Sequence[int], dryrun: bool) -> Iterator[Dropped]:
        """Delete the keys, pointers excepted, of the deletions with these numbers."""
        parts = _parts(deletions, numbers)
        if sum(len(keys) for _, keys in parts) <= KEYS_PER_COMMAND:
            if parts:
                yield self._drop_at_once(numbers, parts, dryrun)
            return
        for types, keys in parts:
            for some in batches(keys, KEYS_PER_COMMAND):
                yield self._drop_at_once(numbers, [(types, some)], dryrun)
            # Within one call the order is certain; a later one might get through where an earlier was refused.
            self._settle()

    def _drop_at_once(
        self, numbers: Sequence[int], parts: Sequence[tuple[bytes, list[bytes]]], dryrun: bool
    ) -> Dropped:
        keys = [key for _, some in parts for key in some]
        if self._is_cluster:
            places = [place for types, some in parts for place in self._drop_apart(some, types, dryrun)]
            return Dropped(numbers, keys, Answer(b"", places))
        sizes = [word for types, some in parts for word in (len(some), types)]
        return Dropped(numbers, keys, self._script(DROP_KEYS, keys, [_flag(dryrun), *sizes]))

    def _drop_apart(self, keys: Sequence[bytes], types: bytes, dryrun: bool) -> list[int]:
        """The same where one script can't reach all keys, with the same answer."""
        kinds = self._ask([("TYPE", key) for key in keys])
        stay = {
            place: GONE if each == b"none" else OF_ANOTHER_TYPE
            for place, each in enumerate(kinds)
            if b"," + each + b"," not in types
        }
        chosen = [] if dryrun else [key for place, key in enumerate(keys) if place not in stay]
        self._ask([("UNLINK", key) for key in chosen])
        return [number for pair in stay.items() for number in pair]

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
        # What was asked for before happens before.
        self._settle()

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

    def _script(self, source: str, keys: Sequence[bytes], arguments: Sequence[Any]) -> Answer:
        """Have a script run; its answer is there after `_settle`, and in a cluster at once."""
        if self._calls is None:
            return Answer(b"", self._at_once(source, keys, arguments))
        if self._fence and self._fence.is_claimed:
            source, keys, arguments = CHECK + source, [*keys, self._fence.key], [*arguments, self._fence.number]
        return self._calls.add(packed(["EVAL", source, len(keys), *keys, *arguments]))

    def _at_once(self, source: str, keys: Sequence[bytes], arguments: Sequence[Any]) -> Any:
        return self._retry(lambda: self._client.eval(source, len(keys), *keys, *arguments))

    def _settle(self) -> None:
        """Wait for the scripts that are under way."""
        if self._calls is not None:
            self._calls.settle()

    def _primaries(self) -> list[Any]:
        """The nodes to scan: those of a cluster, or just the one there is."""
        return list(self._client.get_primaries()) if self._is_cluster else [None]

    def _info(self, node: Any) -> dict[str, Any]:
        target = {"target_nodes": node} if node else {}
        reply: dict[str, Any] = self._client.info("memory", **target)
        return reply

    def _scan_node(self, client: Any) -> Iterator[list[bytes]]:
        # One connection for the whole scan: a pool would replace a lost one without a word.
        connection = client.connection_pool.get_connection()
        try:
            self._scan_at(0, connection)
            cursor = -1
            while cursor:
                cursor, keys = self._scanned(max(0, cursor), connection)
                if cursor:
                    # Redis looks for the next keys while the caller looks at these.
                    self._scan_at(cursor, connection)
                yield keys
        except BaseException:
            # A reply may still be on its way, and must not become that to another command.
            connection.disconnect()
            raise
        finally:
            client.connection_pool.release(connection)

    def _scan_at(self, cursor: int, connection: Any) -> None:
        """Ask for the step of the scan that begins at `cursor`."""
        connection.send_packed_command([packed(["EVAL", SCAN_JOINED, 0, cursor, SCAN_COUNT, JOINED_BYTES])])

    def _scanned(self, cursor: int, connection: Any) -> tuple[int, list[bytes]]:
        """The cursor and the keys with which the question at `cursor` is answered."""
        at, *found = connection.read_response()
        if len(found) == 1:
            return int(at), list(found[0])
        keys = found[1].split(b"\n") if found[0] else []
        if len(keys) != found[0]:
            # A key has a line break in its name: the same step again, told apart by Redis.
            connection.send_packed_command([packed(["SCAN", cursor, "COUNT", SCAN_COUNT])])
            at, keys = connection.read_response()
        return int(at), list(keys)

    def _retry(self, action: Callable[[], Result]) -> Result:
        for delay in (*(() if self._is_hurried else RETRY_DELAYS), None):
            try:
                return action()
            except (RedisConnectionError, RedisTimeoutError) as error:
                self._wait_or_give_up(error, delay)
            except RedisError as error:
                if REFUSED in str(error):
                    raise LeaseLostError("Another cleanup has taken over, or Redis was emptied: it stopped.") from error
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


def _shared_calls(deletions: Sequence[Deletion], go: Iterable[int]) -> Iterator[list[int]]:
    """The numbers of the deletions, those together that fit into one call."""
    group: list[int] = []
    room = KEYS_PER_COMMAND
    for number in go:
        size = sum(map(len, deletions[number].keys.values()))
        if group and size > room:
            yield group
            group, room = [], KEYS_PER_COMMAND
        group.append(number)
        room -= size
    if group:
        yield group


def _parts(deletions: Sequence[Deletion], numbers: Sequence[int]) -> list[tuple[bytes, list[bytes]]]:
    """The keys of these deletions, family by family as they go: the types they may have, and the keys."""
    parts = []
    for family, types in TYPES.items():
        keys = [key for number in numbers for key in deletions[number].keys.get(family, ())]
        if family == Family.WRITE:
            # Nobody mixes the writes of two savers in one thread but by accident: each key is looked at.
            parts.append((VALKEY_WRITES_TYPE, [key for key in keys if _is_valkey(key)]))
            keys = [key for key in keys if not _is_valkey(key)]
        parts.append((types, keys))
    return [part for part in parts if part[1]]


def _is_valkey(write: bytes) -> bool:
    return write.startswith(VALKEY_WRITES)


def _is_list(pointer: bytes) -> bool:
    return pointer.startswith(VALKEY_LIST)


def _head_command(pointer: bytes) -> tuple[Any, ...]:
    return ("LINDEX", pointer, 0) if _is_list(pointer) else ("GET", pointer)


def _value_of(guard: Guard) -> bytes:
    """What the pointer says when it names the first of its documents."""
    if not guard.documents:
        return b""
    document = guard.documents[0]
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
