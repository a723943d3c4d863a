"""Moves of threads from one checkpoint saver to any other."""

from __future__ import annotations

import fnmatch
from collections.abc import AsyncIterator, Collection, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langgraph.checkpoint.base import WRITES_IDX_MAP, BaseCheckpointSaver, CheckpointTuple

from langgraph_checkpoint_compact.errors import CompactSaverError

if TYPE_CHECKING:
    # A dependency of langgraph-checkpoint, which no code here needs.
    from langchain_core.runnables import RunnableConfig

# Metadata that a saver adds by itself is not compared.
_ADDED_METADATA = frozenset({"thread_id", "checkpoint_id", "checkpoint_ns", "writes"})


class MigrationError(CompactSaverError):
    """A thread did not read back from the target as the source has it."""


@dataclass(slots=True)
class MigratedThread:
    """The result for one thread. `error` is a sentence where the thread could not be moved."""

    thread_id: str
    checkpoints: int = 0
    writes: int = 0
    # The checkpoints that the target had already, from an earlier call that was cut short.
    present: int = 0
    error: str = ""


@dataclass(slots=True)
class Migration:
    """The result of a call of `migrate_threads`; with `dry_run`, of the call it stands for."""

    dry_run: bool
    threads: list[MigratedThread] = field(default_factory=list)

    @property
    def success(self) -> bool:
        """Tell whether every thread was moved."""
        return not any(thread.error for thread in self.threads)

    @property
    def checkpoints(self) -> int:
        """The checkpoints written, those that were there already not counted."""
        return sum(thread.checkpoints for thread in self.threads)


Threads = str | Iterable[str] | Mapping[str, Collection[str]]


def migrate_threads(
    source: BaseCheckpointSaver[Any],
    target: BaseCheckpointSaver[Any],
    pattern: Threads = "*",
    *,
    dry_run: bool = False,
) -> Migration:
    """Copy threads with their checkpoints, parents, metadata and pending writes; interrupts go on waiting.

    Nothing is deleted from the source. Conversations that are to be moved must rest meanwhile: what is written to the
    source after a thread was read is not seen. Each checkpoint is read back from the target and compared. A call that
    was cut short is repeated; what the target has already stays.

    Args:
        source: A saver with the synchronous methods.
        target: The same: another saver, or the same kind with another prefix or database.
        pattern: Shell-style, for the ids of all threads that the source lists; or the ids themselves; or, for a source
            that lists one namespace at a time, as ValkeySaver does, the namespaces of each id: see `valkey_threads`.
        dry_run: Only read and count.
    """
    return _drive(amigrate_threads(_AsyncFace(source), _AsyncFace(target), pattern, dry_run=dry_run))


async def amigrate_threads(source: Any, target: Any, pattern: Threads = "*", *, dry_run: bool = False) -> Migration:
    """Do as `migrate_threads`, with savers that have the asynchronous methods.

    The synchronous RedisSaver may lose the note that a checkpoint has pending writes, and then does not read them:
    AsyncRedisSaver reads them always.
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
    """The threads of a ValkeySaver with their namespaces, read from its keys; it lists neither by itself.

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


class _AsyncFace:
    """Gives a synchronous saver the asynchronous methods that are used here; none of them ever waits."""

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
    """Run a coroutine that never waits, also where an event loop runs already."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: Migration = end.value
        return result
    raise RuntimeError("A synchronous saver has waited for something.")


async def threads_to_move(source: Any, pattern: Threads) -> dict[str, Collection[str] | None]:
    """The ids of the threads that match, each with its namespaces where they were given."""
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
    """The checkpoints of a thread, the oldest first: a target may keep only what is new since the parent."""
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
    # A tuple does not say the path of a task. Numbers in its place keep the order in which the source gave the tasks.
    for number, (task_id, (regular, special)) in enumerate(_writes(found).items()):
        # Apart, since the place in the list is the number of a regular write.
        for writes in filter(None, (regular, special)):
            await target.aput_writes(stored, writes, task_id, f"{number:08}")


def _compare(found: CheckpointTuple, written: CheckpointTuple | None, thread_id: str) -> None:
    if different := _differences(found, written):
        raise MigrationError(
            f"Checkpoint {found.checkpoint['id']} of thread {thread_id!r} reads back from the target with another "
            f"{' and another '.join(different)}. The source has it as it was; do not use this thread of the target."
        )


def _differences(found: CheckpointTuple, written: CheckpointTuple | None) -> list[str]:
    """The parts in which a checkpoint of the target is not that of the source."""
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
    """The writes of each task: regular ones in their order, and errors, interrupts and answers."""
    tasks: dict[str, tuple[Writes, Writes]] = {}
    for task_id, channel, value in found.pending_writes or ():
        tasks.setdefault(task_id, ([], []))[channel in WRITES_IDX_MAP].append((channel, value))
    for _, special in tasks.values():
        special.sort(key=lambda write: write[0])
    return tasks
