"""The Redis in which checkpoints lie: scanned, read and deleted in batches that leave room for others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import redis
from redis.exceptions import NoPermissionError

from ai_ops.adapters.checkpoint_values import (
    MAX_VALUE_BYTES,
    completed,
    detail_command,
    document_named,
    first_found,
    head_command,
    is_vague,
    is_valkey_write,
    json_in,
    lineage_in,
)
from ai_ops.adapters.deleter import Deleter
from ai_ops.adapters.fence import Fence
from ai_ops.adapters.retrying_redis import PIPELINE_COMMANDS, RetryingRedis
from ai_ops.core.batches import batches
from ai_ops.core.checkpoint_keys import CheckpointKey, KeyParser
from ai_ops.core.deletion import Deletion, Outcome
from ai_ops.core.facts import Lineage
from ai_ops.core.threads import Document
from ai_ops.exceptions import CheckpointStoreError

INTERRUPT_CHANNEL = b'"__interrupt__"'


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
        self._redis = RetryingRedis(client, sleep, fence)
        self._parser = parser
        self._deleter = Deleter(self._redis, parser, self.heads)

    def size(self) -> int:
        """How many keys the database has, on all primaries together."""
        return self._redis.size()

    def memory(self) -> int | None:
        """Bytes of memory the server uses, all primaries together; None if the user may not ask."""
        return self._redis.memory()

    def sizes(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        """Bytes of memory that keys take, by key; without those that are gone, empty if the user may not ask."""
        found: dict[bytes, int] = {}
        try:
            for batch in batches(keys, PIPELINE_COMMANDS):
                replies = self._redis.ask([("MEMORY USAGE", key) for key in batch])
                found |= {key: int(size) for key, size in zip(batch, replies, strict=True) if size is not None}
                self._redis.breathe()
        except CheckpointStoreError as error:
            if not isinstance(error.__cause__, NoPermissionError):
                raise
        return found

    def scan(self, restarted: Callable[[], object]) -> Iterator[list[bytes]]:
        """All keys of all primaries, in batches; a key may come twice.

        When the connection was lost, the server behind it may be another one: `restarted` is called, and all keys
        come again.
        """
        return self._redis.scan(restarted)

    def complete(self, keys: Iterable[CheckpointKey]) -> Iterator[CheckpointKey]:
        """The keys with what only their values say: thread, namespace and time of an undated document or blob."""
        vague: list[CheckpointKey] = []
        for key in keys:
            # Most have a time, and need no question asked.
            if (key[4] is None or not key[6]) and is_vague(key):
                vague.append(key)
            else:
                yield key
        for batch in batches(vague, PIPELINE_COMMANDS):
            replies = self._redis.ask([detail_command(key) for key in batch])
            strings = [key for key, reply in zip(batch, replies, strict=True) if reply is None]
            texts = self._redis.ask([("GETRANGE", key.key, 0, MAX_VALUE_BYTES) for key in strings])
            text_of = dict(zip([key.key for key in strings], texts, strict=True))
            for key, reply in zip(batch, replies, strict=True):
                yield completed(key, reply if reply is not None else text_of.get(key.key), self._parser)

    def stubs(self, documents: Sequence[Document]) -> frozenset[bytes]:
        """The keys among `documents` that hold a JSON document without a thread: no saver put it there."""
        found: set[bytes] = set()
        for batch in batches(documents, PIPELINE_COMMANDS):
            values = self._redis.ask([("JSON.GET", document.key, "$.thread_id") for document in batch])
            found |= {document.key for document, value in zip(batch, values, strict=True) if value == b"[]"}
        return frozenset(found)

    def own_ids(self, documents: Sequence[bytes]) -> dict[bytes, Document]:
        """Those of the documents whose checkpoints have other ids than their keys, as they should be, by key."""
        found: dict[bytes, Document] = {}
        for batch in batches(documents, PIPELINE_COMMANDS):
            for key, reply in zip(
                batch, self._redis.ask([("JSON.GET", key, "$.checkpoint.id") for key in batch]), strict=True
            ):
                own = first_found(json_in(reply))
                if isinstance(own, str) and not key.endswith(b":" + own.encode()):
                    time_of_id = self._parser.time_of(own.encode())
                    found[key] = Document(key, own.encode(), time_of_id, bears_parents_id=True)
        return found

    def heads(self, pointers: Sequence[bytes]) -> dict[bytes, Document]:
        """The documents that pointers and lists name as their namespace's newest, by the pointer's key."""
        found: dict[bytes, Document] = {}
        for batch in batches(pointers, PIPELINE_COMMANDS):
            for pointer, value in zip(batch, self._redis.ask([head_command(each) for each in batch]), strict=True):
                if isinstance(value, bytes):
                    found[pointer] = document_named(pointer, value, self._parser)
        return found

    def lineage(self, documents: Iterable[bytes]) -> dict[bytes, Lineage]:
        """What documents say of their ancestors, by key."""
        found: dict[bytes, Lineage] = {}
        for batch in batches(documents, PIPELINE_COMMANDS):
            commands = [("JSON.GET", key, "$.parent_checkpoint_id", "$.metadata") for key in batch]
            for key, reply in zip(batch, self._redis.ask_either(commands), strict=True):
                if isinstance(reply, bytes):
                    found[key] = lineage_in(reply)
        return found

    def interrupts(self, writes: Sequence[bytes]) -> frozenset[bytes]:
        """The keys of the writes that are interrupts, or have one among them."""
        found: set[bytes] = set()
        for batch in batches(writes, PIPELINE_COMMANDS):
            replies = self._redis.ask(
                [("GET", key) if is_valkey_write(key) else ("JSON.GET", key, "$.channel") for key in batch]
            )
            found |= {key for key, reply in zip(batch, replies, strict=True) if reply and INTERRUPT_CHANNEL in reply}
        return frozenset(found)

    def foreign(self, documents: Mapping[bytes, tuple[bytes, ...]]) -> frozenset[bytes]:
        """The keys among `documents` whose documents name none of the threads they are thought to be of."""
        found: set[bytes] = set()
        for batch in batches(documents, PIPELINE_COMMANDS):
            replies = self._redis.ask([("JSON.GET", key, "$.thread_id") for key in batch])
            for key, reply in zip(batch, replies, strict=True):
                named = first_found(json_in(reply))
                if isinstance(named, str) and named.encode() not in documents[key]:
                    found.add(key)
        return frozenset(found)

    def versions(self, documents: Iterable[bytes]) -> dict[bytes, dict[bytes, bytes]]:
        """The versions of their channels that documents name, by key."""
        found: dict[bytes, dict[bytes, bytes]] = {}
        for batch in batches(documents, PIPELINE_COMMANDS):
            replies = self._redis.ask([("JSON.GET", key, "$.checkpoint.channel_versions") for key in batch])
            for key, reply in zip(batch, replies, strict=True):
                named = first_found(json_in(reply))
                if isinstance(named, dict):
                    found[key] = {channel.encode(): str(version).encode() for channel, version in named.items()}
        return found

    def apply(self, deletions: Sequence[Deletion], *, dryrun: bool) -> Callable[[], list[Outcome]]:
        """Carry out deletions: of each thread pointers first, then documents, writes, registries and blobs.

        With `dryrun` nothing is deleted, and the outcomes are those that deleting would have had.

        Returns:
            Gives the outcomes. Redis may still be at work on the last of them, and is waited for then.
        """
        return self._deleter.apply(deletions, dryrun=dryrun)

    def release(self) -> None:
        """Take the fence away, at the end of a run."""
        self._redis.release()

    def hurry(self) -> None:
        """From now on give up at once instead of trying again."""
        self._redis.hurry()
