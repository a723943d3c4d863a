"""The two savers, for synchronous and for asynchronous graphs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import redis
import redis.asyncio
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from langgraph_checkpoint_compact import names, reading, removal, writing
from langgraph_checkpoint_compact.drivers import AsyncClient, AsyncDriver, SyncClient, SyncDriver
from langgraph_checkpoint_compact.session import Session, TailMemory

if TYPE_CHECKING:
    # A dependency of langgraph-checkpoint; only annotations need it here.
    from langchain_core.runnables import RunnableConfig

DEFAULT_PREFIX = "lgc"
_END = object()


class _CompactSaver(BaseCheckpointSaver[str]):
    """The common part of both savers."""

    def __init__(self, prefix: str, ttl: float | None, refresh_on_read: bool, serde: SerializerProtocol | None) -> None:
        super().__init__(serde=serde)
        if ttl is not None and ttl <= 0:
            raise ValueError(f"A ttl of {ttl} minutes can't be used: give a positive number, or None to keep threads.")
        self.prefix = names.check_prefix(prefix)
        self.ttl = ttl
        self.refresh_on_read = refresh_on_read
        self._tails = TailMemory()

    def _session(self) -> Session:
        milliseconds = 0 if self.ttl is None else max(1, round(self.ttl * 60_000))
        return Session(self.serde, self.prefix, milliseconds, milliseconds if self.refresh_on_read else 0, self._tails)

    def get_next_version(self, current: str | None, channel: None) -> str:
        """Return the version after `current`, different in each branch of a conversation."""
        return writing.next_version(current)


class CompactRedisSaver(_CompactSaver):
    """Keep checkpoints in any Redis or Valkey, on any database.

    The asynchronous methods run in threads, so that one saver serves `invoke` and `ainvoke`. In a program that is
    asynchronous throughout, use AsyncCompactRedisSaver.

    Args:
        client: A client of redis-py, also of a cluster or from Sentinel. Several threads may use the saver at a time.
        prefix: The beginning of all keys. Savers with different prefixes do not see each other's threads.
        ttl: Minutes after its last write until a thread is deleted. None keeps threads.
        refresh_on_read: Whether a read counts like a write.
        serde: Another serializer, for example an EncryptedSerializer.
    """

    def __init__(
        self,
        client: SyncClient,
        *,
        prefix: str = DEFAULT_PREFIX,
        ttl: float | None = None,
        refresh_on_read: bool = False,
        serde: SerializerProtocol | None = None,
    ) -> None:
        super().__init__(prefix, ttl, refresh_on_read, serde)
        self.client = client
        self._driver = SyncDriver(client)

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        prefix: str = DEFAULT_PREFIX,
        ttl: float | None = None,
        refresh_on_read: bool = False,
        serde: SerializerProtocol | None = None,
    ) -> Self:
        """Make a saver with a client of its own; `close`, or the end of a `with` block, closes it.

        Args:
            url: For example redis://localhost:6379/2, or rediss:// for TLS.
            prefix: See the class.
            ttl: See the class.
            refresh_on_read: See the class.
            serde: See the class.
        """
        client = redis.Redis.from_url(url)
        return cls(client, prefix=prefix, ttl=ttl, refresh_on_read=refresh_on_read, serde=serde)

    def close(self) -> None:
        """Close the client."""
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that `config` names, or the newest of its namespace; None if there is none."""
        return self._driver.run(reading.get_tuple(self._session(), config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Yield the checkpoints of a thread, the newest first; without `config` those of all threads, in turn."""
        query = reading.Query.of(config, filter, before, limit)
        return self._driver.give(reading.list_tuples(self._session(), config, query))

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint; return the configuration that names it."""
        return self._driver.run(writing.put(self._session(), config, checkpoint, metadata, new_versions))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store the writes of a task at a checkpoint."""
        self._driver.run(writing.put_writes(self._session(), config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        """Delete all data of a thread."""
        self._driver.run(removal.delete_thread(self._session(), thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of some runs. This searches all threads."""
        self._driver.run(removal.delete_for_runs(self._session(), run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all data of a thread to another."""
        self._driver.run(removal.copy_thread(self._session(), source_thread_id, target_thread_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete the checkpoints that the newest of each namespace does not need, or all with the strategy "delete".

        The ancestors from which DeltaChannels are built stay. A thread that waits for an answer to an interrupt stays
        as it is.
        """
        self._driver.run(removal.prune(self._session(), thread_ids, strategy))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Do the same as `get_tuple`, in a thread."""
        return await asyncio.to_thread(self.get_tuple, config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Do the same as `list`, in threads."""
        found = self.list(config, filter=filter, before=before, limit=limit)
        while (each := await asyncio.to_thread(next, found, _END)) is not _END:
            yield each  # type: ignore[misc]

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Do the same as `put`, in a thread."""
        return await asyncio.to_thread(self.put, config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Do the same as `put_writes`, in a thread."""
        await asyncio.to_thread(self.put_writes, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        """Do the same as `delete_thread`, in a thread."""
        await asyncio.to_thread(self.delete_thread, thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Do the same as `delete_for_runs`, in a thread."""
        await asyncio.to_thread(self.delete_for_runs, run_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Do the same as `copy_thread`, in a thread."""
        await asyncio.to_thread(self.copy_thread, source_thread_id, target_thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Do the same as `prune`, in a thread."""
        await asyncio.to_thread(self.prune, thread_ids, strategy=strategy)


class AsyncCompactRedisSaver(_CompactSaver):
    """Keep checkpoints in any Redis or Valkey, on any database, without blocking the event loop.

    It has only the asynchronous methods: for `invoke`, use CompactRedisSaver. Each saver reads the other's checkpoints.

    Args:
        client: An asynchronous client of redis-py, also of a cluster or from Sentinel.
        prefix: The beginning of all keys. Savers with different prefixes do not see each other's threads.
        ttl: Minutes after its last write until a thread is deleted. None keeps threads.
        refresh_on_read: Whether a read counts like a write.
        serde: Another serializer, for example an EncryptedSerializer.
    """

    def __init__(
        self,
        client: AsyncClient,
        *,
        prefix: str = DEFAULT_PREFIX,
        ttl: float | None = None,
        refresh_on_read: bool = False,
        serde: SerializerProtocol | None = None,
    ) -> None:
        super().__init__(prefix, ttl, refresh_on_read, serde)
        self.client = client
        self._driver = AsyncDriver(client)

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        prefix: str = DEFAULT_PREFIX,
        ttl: float | None = None,
        refresh_on_read: bool = False,
        serde: SerializerProtocol | None = None,
    ) -> Self:
        """Make a saver with a client of its own; `aclose`, or the end of an `async with` block, closes it.

        Args:
            url: For example redis://localhost:6379/2, or rediss:// for TLS.
            prefix: See the class.
            ttl: See the class.
            refresh_on_read: See the class.
            serde: See the class.
        """
        client = redis.asyncio.Redis.from_url(url)
        return cls(client, prefix=prefix, ttl=ttl, refresh_on_read=refresh_on_read, serde=serde)

    async def aclose(self) -> None:
        """Close the client."""
        await self.client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that `config` names, or the newest of its namespace; None if there is none."""
        return await self._driver.run(reading.get_tuple(self._session(), config))

    def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Yield the checkpoints of a thread, the newest first; without `config` those of all threads, in turn."""
        query = reading.Query.of(config, filter, before, limit)
        return self._driver.give(reading.list_tuples(self._session(), config, query))

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint; return the configuration that names it."""
        return await self._driver.run(writing.put(self._session(), config, checkpoint, metadata, new_versions))

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store the writes of a task at a checkpoint."""
        await self._driver.run(writing.put_writes(self._session(), config, writes, task_id, task_path))

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete all data of a thread."""
        await self._driver.run(removal.delete_thread(self._session(), thread_id))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of some runs. This searches all threads."""
        await self._driver.run(removal.delete_for_runs(self._session(), run_ids))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all data of a thread to another."""
        await self._driver.run(removal.copy_thread(self._session(), source_thread_id, target_thread_id))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete the checkpoints that the newest of each namespace does not need, or all with the strategy "delete".

        The ancestors from which DeltaChannels are built stay. A thread that waits for an answer to an interrupt stays
        as it is.
        """
        await self._driver.run(removal.prune(self._session(), thread_ids, strategy))
