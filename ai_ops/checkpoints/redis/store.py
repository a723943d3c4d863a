"""Scans, reads and deletes checkpoints in Redis, in batches with pauses for other clients."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import redis
from redis.exceptions import NoPermissionError

from ai_ops.checkpoints.logic.deletion import Deletion, Outcome
from ai_ops.checkpoints.logic.keys import CheckpointKey, KeyParser
from ai_ops.checkpoints.logic.lookups import Lineage
from ai_ops.checkpoints.logic.threads import Document
from ai_ops.checkpoints.logic.values import (
    DETAILS,
    LINEAGE,
    completed,
    head_named,
    is_interrupt,
    is_vague,
    lineage_in,
    own_document,
    versions_in,
)
from ai_ops.checkpoints.redis.client import PIPELINE_COMMANDS, RetryingRedis
from ai_ops.checkpoints.redis.deleter import Deleter
from ai_ops.checkpoints.redis.fence import Fence
from ai_ops.checkpoints.redis.scripts import VALUE_BYTES
from ai_ops.exceptions import CheckpointStoreError
from ai_ops.logic.batches import batches


class CheckpointStore:
    """Checkpoints in a Redis database.

    Every method retries for about ten seconds after a lost connection.

    Args:
        client: A client of the database, with ``decode_responses=False``.
        parser: Parses keys.
        sleep: Waits for a number of seconds.
        fence: The fence that deletions must hold; None for no fence. A cluster has no fence, because a script can't
            compare a key on one node and delete on another.
        retry_delays: Seconds before each retry; None for the default.

    Raises:
        LeaseLostError: From `apply`: another run has taken over.
        CheckpointStoreError: From every method: Redis refused a command or could not be reached.
    """

    def __init__(
        self,
        client: redis.Redis,
        parser: KeyParser,
        sleep: Callable[[float], object] = time.sleep,
        fence: Fence | None = None,
        retry_delays: Sequence[float] | None = None,
    ) -> None:
        self._redis = RetryingRedis(client, sleep, fence, retry_delays)
        self._parser = parser
        self._deleter = Deleter(self._redis, parser, self.heads)

    @property
    def redis(self) -> RetryingRedis:
        """Return the client of the checkpoint Redis, for code that handles another layout."""
        return self._redis

    def size(self) -> int:
        """Return the number of keys in the database, on all primaries together."""
        return self._redis.size()

    def memory(self) -> int | None:
        """Return the used memory in bytes, of all primaries together; None if the user may not read it."""
        return self._redis.memory()

    def max_memory(self) -> int | None:
        """Return the memory limit in bytes, of all primaries together; None without a limit, or if it is unknown."""
        return self._redis.max_memory()

    def sizes(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        """Return the memory of keys in bytes, by key, without deleted keys; empty if the user may not read it."""
        found: dict[bytes, int] = {}
        try:
            for batch in batches(keys, PIPELINE_COMMANDS):
                replies = self._redis.ask([("MEMORY USAGE", key) for key in batch])
                found |= {key: int(size) for key, size in zip(batch, replies, strict=True) if size is not None}
                self._redis.pause()
        except CheckpointStoreError as error:
            if not isinstance(error.__cause__, NoPermissionError):
                raise
        return found

    def scan(self, restarted: Callable[[], object], match: bytes | None = None) -> Iterator[list[bytes]]:
        """Yield all keys of all primaries in batches; a key may come twice.

        After a lost connection the server may be another one: `restarted` is called, and the scan starts again. With
        `match`, a Redis glob, the scan yields only matching keys.
        """
        return self._redis.scan(restarted, match)

    def complete(self, keys: Iterable[CheckpointKey]) -> Iterator[CheckpointKey]:
        """Complete keys from their values, with thread and time for example; leave out the keys of other programs."""
        vague: list[CheckpointKey] = []
        for key in keys:
            # The names of most keys show the time and the thread, so their values are not read.
            if (key[4] is None or not key[6]) and is_vague(key, self._parser):
                vague.append(key)
            else:
                yield key
        for batch in batches(vague, PIPELINE_COMMANDS):
            read = self._redis.read([key.key for key in batch], *DETAILS, limit=VALUE_BYTES)
            for key, (_, reading) in zip(batch, read, strict=True):
                if (found := completed(key, reading, self._parser)) is not None:
                    yield found

    def stubs(self, documents: Sequence[Document]) -> frozenset[bytes]:
        """Return the keys of `documents` whose JSON has no thread, because no saver wrote it."""
        read = self._redis.read([document.key for document in documents], "$.thread_id")
        return frozenset(key for key, reading in read if reading.is_document and reading.value == b"[]")

    def own_ids(self, documents: Sequence[bytes]) -> dict[bytes, Document]:
        """Return the documents whose value has another id than the key, with the id of the value, by key."""
        read = self._redis.read(documents, "$.checkpoint.id")
        found = {key: own_document(key, reading, self._parser) for key, reading in read}
        return {key: document for key, document in found.items() if document is not None}

    def heads(self, pointers: Sequence[bytes]) -> dict[bytes, Document]:
        """Return the newest document of a namespace according to its pointer or list, by the pointer's key."""
        found = {key: head_named(key, reading, self._parser) for key, reading in self._redis.read(pointers)}
        return {pointer: document for pointer, document in found.items() if document is not None}

    def lineage(self, documents: Iterable[bytes]) -> dict[bytes, Lineage]:
        """Return the ancestors that documents name, by key, without deleted documents."""
        read = self._redis.read(documents, *LINEAGE, limit=VALUE_BYTES)
        return {key: lineage_in(reading) for key, reading in read if reading.kind != b"none"}

    def interrupts(self, writes: Sequence[bytes]) -> frozenset[bytes]:
        """Return the keys of the writes that are or contain an interrupt."""
        read = self._redis.read(writes, "$.channel", limit=VALUE_BYTES)
        return frozenset(key for key, reading in read if is_interrupt(reading))

    def versions(self, documents: Iterable[bytes]) -> dict[bytes, dict[bytes, bytes]]:
        """Return the channel versions in documents, by key."""
        found = {key: versions_in(each) for key, each in self._redis.read(documents, "$.checkpoint.channel_versions")}
        return {key: versions for key, versions in found.items() if versions is not None}

    def apply(self, deletions: Sequence[Deletion], *, dryrun: bool) -> Callable[[], Sequence[Outcome]]:
        """Carry out deletions: of each thread pointers first, then documents, writes, registries and blobs.

        With `dryrun` nothing is deleted, and the outcomes are those of a real deletion.

        Returns:
            A function that returns the outcomes. It waits for Redis, which may still work on the last deletions.
        """
        return self._deleter.apply(deletions, dryrun=dryrun)

    def proceed(self) -> None:
        """Send the next deletions if Redis has completed the previous ones; call this in long work without Redis."""
        self._redis.proceed()

    def settle(self) -> None:
        """Wait for all deletions, and return their connection."""
        self._redis.settle()

    def release(self) -> None:
        """Return the connection of the scripts, and release the fence, at the end of a run."""
        self._redis.release()

    def stop_retrying(self) -> None:
        """Stop retrying: fail immediately from now on."""
        self._redis.stop_retrying()
