"""Moves of threads from one checkpoint saver to any other."""

from __future__ import annotations

import fnmatch
from collections.abc import AsyncIterator, Collection, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.base import WRITES_IDX_MAP, BaseCheckpointSaver, CheckpointTuple

from langgraph_checkpoint_compact.errors import CompactSaverError

if TYPE_CHECKING:
    # A dependency of langgraph-checkpoint; only annotations need it here.
    from langchain_core.runnables import RunnableConfig

# Metadata that a saver adds by itself is not compared.
_ADDED_METADATA = frozenset({"thread_id", "checkpoint_id", "checkpoint_ns", "writes"})


class MigrationError(CompactSaverError):
    """A thread in the target differs from the thread in the source."""


@dataclass(slots=True)
class MigratedThread:
    """The result for one thread. `error` is a sentence if the move of the thread failed."""

    thread_id: str
    checkpoints: int = 0
    writes: int = 0
    # Number of checkpoints already in the target, from an earlier call that was interrupted.
    present: int = 0
    error: str = ""


@dataclass(slots=True)
class Migration:
    """The result of `migrate_threads`; with `dry_run`, the result that a real call would have."""

    dry_run: bool
    threads: list[MigratedThread] = field(default_factory=list)

    @property
    def success(self) -> bool:
        """Return whether every thread was moved."""
        return not any(thread.error for thread in self.threads)

    @property
    def checkpoints(self) -> int:
        """Return the number of written checkpoints, without those already in the target."""
        return sum(thread.checkpoints for thread in self.threads)


Threads = str | Iterable[str] | Mapping[str, Collection[str]]


def migrate_threads(
    source: BaseCheckpointSaver[Any],
    target: BaseCheckpointSaver[Any],
    pattern: Threads = "*",
    *,
    dry_run: bool = False,
) -> Migration:
    """Copy threads with their checkpoints, parents, metadata and pending writes; interrupts keep waiting.

    The source keeps everything. Stop the conversations during the move, because the call misses writes to the source
    after it has read a thread. It reads each checkpoint back from the target and compares it. Repeat a call that was
    interrupted; the target keeps the threads it already has.

    Args:
        source: A saver with the synchronous methods.
        target: Another saver with the synchronous methods, or a saver of the same kind with another prefix or database.
        pattern: Shell-style, for the ids of all threads that the source lists; or the ids themselves; or, for a source
            that lists one namespace at a time, as ValkeySaver does, the namespaces of each id: see `valkey_threads`.
        dry_run: Only read and count.
    """
    return _drive(amigrate_threads(_AsyncAdapter(source), _AsyncAdapter(target), pattern, dry_run=dry_run))


async def amigrate_threads(source: Any, target: Any, pattern: Threads = "*", *, dry_run: bool = False) -> Migration:
    """Do the same as `migrate_threads`, with savers that have the asynchronous methods.

    The synchronous RedisSaver may lose the mark that a checkpoint has pending writes, and then does not read them.
    AsyncRedisSaver always reads them.
    """
    done = Migration(dry_run)
    for thread_id, namespaces in (await threads_to_move(source, pattern)).items():
        thread = MigratedThread(thread_id)
        done.threads.append(thread)
        try:
            await _migrate(source, target, thread, namespaces, dry_run)
        except MigrationError as error:
            thread.error = str(error)
    return done


def valkey_threads(client: Any, pattern: str = "*") -> dict[str, set[str]]:
    """Return the threads of a ValkeySaver with their namespaces, read from its keys, because it lists neither.

    Args:
        client: The saver's client.
        pattern: Shell-style, for the ids.
    """
    found: dict[str, set[str]] = {}
    for key in client.scan_iter(match="thread:{*}:*", count=1000):
        text = key.decode("utf-8", "surrogateescape") if isinstance(key, bytes) else key
        thread_id, _, namespace = text[len("thread:{") :].partition("}:")
        if fnmatch.fnmatchcase(thread_id, pattern):
            found.setdefault(thread_id, set()).add("" if namespace == "__empty__" else namespace)
    return found


class _AsyncAdapter:
    """Gives a synchronous saver the asynchronous methods that the move uses; none of them waits."""

    def __init__(self, saver: BaseCheckpointSaver[Any]) -> None:
        self._saver = saver

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return self._saver.get_tuple(config)

    async def alist(self, config: RunnableConfig | None) -> AsyncIterator[CheckpointTuple]:
        for each in self._saver.list(config):
            yield each

    async def aput(self, *arguments: Any) -> RunnableConfig:
        return self._saver.put(*arguments)

    async def aput_writes(self, *arguments: Any) -> None:
        self._saver.put_writes(*arguments)


def _drive(coroutine: Coroutine[Any, Any, Migration]) -> Migration:
    """Run a coroutine that never waits, even inside a running event loop."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: Migration = end.value
        return result
    raise RuntimeError("A synchronous saver has waited for something.")


async def threads_to_move(source: Any, pattern: Threads) -> dict[str, Collection[str] | None]:
    """Return the ids of the matching threads, each with its namespaces if the caller gave them."""
    if isinstance(pattern, Mapping):
        return dict(pattern)
    if not isinstance(pattern, str):
        return dict.fromkeys(pattern)
    found = {str(each.config["configurable"]["thread_id"]): None async for each in source.alist(None)}
    return {each: None for each in found if fnmatch.fnmatchcase(each, pattern)}


async def _migrate(
    source: Any, target: Any, thread: MigratedThread, namespaces: Collection[str] | None, dry_run: bool
) -> None:
    versions_of: dict[tuple[str, str], Mapping[str, Any]] = {}
    async for found in _checkpoints(source, thread.thread_id, namespaces):
        namespace, versions = _namespace(found), found.checkpoint["channel_versions"]
        before = versions_of.get((namespace, _parent_id(found)), {})
        versions_of[namespace, found.checkpoint["id"]] = versions
        config = _config(thread.thread_id, namespace, found.checkpoint["id"])
        if not _differences(found, await target.aget_tuple(config)):
            thread.present += 1
            continue
        thread.checkpoints += 1
        thread.writes += len(found.pending_writes or ())
        if not dry_run:
            new = {channel: version for channel, version in versions.items() if before.get(channel) != version}
            await _write(target, thread.thread_id, found, new)
            _compare(found, await target.aget_tuple(config), thread.thread_id)
    if not versions_of:
        raise MigrationError(f"The source has no checkpoint of thread {thread.thread_id!r}. Check the id.")


async def _checkpoints(
    source: Any, thread_id: str, namespaces: Collection[str] | None
) -> AsyncIterator[CheckpointTuple]:
    """Yield the checkpoints of a thread, the oldest first: a target may store only the changes since the parent."""
    wanted: list[RunnableConfig] = [{"configurable": {"thread_id": thread_id}}]
    if namespaces is not None:
        wanted = [{"configurable": {"thread_id": thread_id, "checkpoint_ns": each}} for each in sorted(namespaces)]
    names = {(each.checkpoint["id"], _namespace(each)) for config in wanted async for each in source.alist(config)}
    for checkpoint_id, namespace in sorted(names):
        found = await source.aget_tuple(_config(thread_id, namespace, checkpoint_id))
        if found is None:
            raise MigrationError(
                f"Checkpoint {checkpoint_id} of thread {thread_id!r} was deleted from the source while the thread was "
                "moved. Repeat the call when it rests."
            )
        yield found


def _namespace(found: CheckpointTuple) -> str:
    namespace: str = found.config["configurable"].get("checkpoint_ns", "")
    return namespace


def _config(thread_id: str, namespace: str, checkpoint_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": namespace, "checkpoint_id": checkpoint_id}}


def _parent_id(found: CheckpointTuple) -> str:
    return (found.parent_config or {}).get("configurable", {}).get("checkpoint_id") or ""


async def _write(target: Any, thread_id: str, found: CheckpointTuple, new_versions: Mapping[str, Any]) -> None:
    config: RunnableConfig = {"configurable": {"thread_id": thread_id, "checkpoint_ns": _namespace(found)}}
    if parent := _parent_id(found):
        config["configurable"]["checkpoint_id"] = parent
    stored = await target.aput(config, found.checkpoint, found.metadata, dict(new_versions))
    # A tuple does not contain the path of a task. Numbers instead of paths keep the source's order of tasks.
    for number, (task_id, (regular, special)) in enumerate(_writes(found).items()):
        # Separate calls, because the place in the list is the number of a regular write.
        for writes in filter(None, (regular, special)):
            await target.aput_writes(stored, writes, task_id, f"{number:08}")


def _compare(found: CheckpointTuple, written: CheckpointTuple | None, thread_id: str) -> None:
    if different := _differences(found, written):
        raise MigrationError(
            f"Checkpoint {found.checkpoint['id']} of thread {thread_id!r} reads back from the target with another "
            f"{' and another '.join(different)}. The source has it as it was; do not use this thread of the target."
        )


def _differences(found: CheckpointTuple, written: CheckpointTuple | None) -> list[str]:
    """Return the parts in which a checkpoint of the target differs from that of the source."""
    if written is None:
        return ["checkpoint"]
    compared = {
        "id": (found.checkpoint["id"], written.checkpoint["id"]),
        "parent": (_parent_id(found), _parent_id(written)),
        "state": (found.checkpoint["channel_values"], written.checkpoint["channel_values"]),
        "versions": (found.checkpoint["channel_versions"], written.checkpoint["channel_versions"]),
        "progress": (found.checkpoint["versions_seen"], written.checkpoint["versions_seen"]),
        "metadata": (_own_metadata(found), _own_metadata(written)),
        "list of writes": (_writes(found), _writes(written)),
    }
    return [name for name, (one, other) in compared.items() if one != other]


def _own_metadata(found: CheckpointTuple) -> dict[str, Any]:
    return {key: value for key, value in found.metadata.items() if key not in _ADDED_METADATA and value is not None}


Writes = list[tuple[str, Any]]


def _writes(found: CheckpointTuple) -> dict[str, tuple[Writes, Writes]]:
    """Return the writes of each task: regular ones in their order, and errors, interrupts and answers."""
    tasks: dict[str, tuple[Writes, Writes]] = {}
    for task_id, channel, value in found.pending_writes or ():
        tasks.setdefault(task_id, ([], []))[channel in WRITES_IDX_MAP].append((channel, value))
    for _, special in tasks.values():
        special.sort(key=lambda write: write[0])
    return tasks
