"""Conversations in memory, and the keys that savers would have written for them.

A saver in Redis is asked dozens of times for a short conversation. This one answers at once, reads a DeltaChannel as
they do, from parent to parent, and its keys are written together. A test compares them with those of the savers.
"""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    CheckpointTuple,
    get_checkpoint_id,
    get_checkpoint_metadata,
)


class OneThreadSaver(BaseCheckpointSaver[int]):
    """Keeps the checkpoints of one thread, each with all of its values, as the savers in Redis do."""

    def __init__(self) -> None:
        super().__init__()
        # By id: the checkpoint, its metadata and its parent's id, in the order in which they were put.
        self.documents: dict[str, tuple[Any, Any, str | None]] = {}
        # By id the checkpoint once more: LangGraph goes on to work with what it has given and got, and from this a copy
        # is made in a fifth of the time that a deep copy takes.
        self._packed: dict[str, bytes] = {}
        # By the checkpoint's id, then by task and number.
        self.writes: dict[str, dict[tuple[str, int], tuple[str, Any]]] = {}

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        """Keep a checkpoint."""
        said = get_checkpoint_metadata(config, metadata)
        packed = self._packed[checkpoint["id"]] = pickle.dumps(checkpoint)
        self.documents[checkpoint["id"]] = (pickle.loads(packed), said, get_checkpoint_id(config))
        return self._config(checkpoint["id"])

    def put_writes(self, config: Any, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = "") -> None:
        """Keep what a task has written."""
        kept = self.writes.setdefault(config["configurable"]["checkpoint_id"], {})
        for number, (channel, value) in enumerate(writes):
            kept[task_id, WRITES_IDX_MAP.get(channel, number)] = (channel, value)

    def get_tuple(self, config: Any) -> CheckpointTuple | None:
        """The checkpoint with the id in `config`, or the newest."""
        name = get_checkpoint_id(config) or max(self.documents, default=None)
        return self._tuple(name) if name in self.documents else None

    def list(self, config: Any, *, filter: Any = None, before: Any = None, limit: int | None = None) -> Iterator[Any]:
        """All checkpoints, newest first."""
        yield from map(self._tuple, sorted(self.documents, reverse=True)[:limit])

    def _tuple(self, name: str) -> CheckpointTuple:
        _, metadata, parent = self.documents[name]
        writes = [(task, *written) for (task, _), written in self.writes.get(name, {}).items()]
        return CheckpointTuple(
            self._config(name),
            pickle.loads(self._packed[name]),
            dict(metadata),
            parent and self._config(parent),
            writes,
        )

    def _config(self, name: str) -> Any:
        return {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": name}}


# The checkpoint that a key is or belongs to; of a write, its task and number too.
Place = tuple[str, tuple[str, int] | None]


def write_as_redis_saver(client: Any, saver: OneThreadSaver) -> dict[str, Place]:
    """Write the keys that RedisSaver would have written; the place of each that has one."""
    keys: dict[str, Place] = {}
    with client.pipeline(transaction=False) as pipeline:
        for name, (checkpoint, metadata, parent) in saver.documents.items():
            document = {
                "thread_id": "t",
                "checkpoint_ns": "__empty__",
                "checkpoint_id": name,
                "parent_checkpoint_id": parent,
                "checkpoint": {"id": name, "ts": checkpoint["ts"]},
                "metadata": json.dumps(metadata),
            }
            pipeline.execute_command("JSON.SET", f"checkpoint:t:__empty__:{name}", "$", json.dumps(document))
            pipeline.set("checkpoint_latest:t:__empty__", f"checkpoint:t:__empty__:{name}")
            keys[f"checkpoint:t:__empty__:{name}"] = (name, None)
        for name, writes in saver.writes.items():
            registry = f"write_keys_zset:t:__empty__:{name}"
            for (task, number), (channel, _) in writes.items():
                key = f"checkpoint_write:t:__empty__:{name}:{task}:{number}"
                written = {"thread_id": "t", "checkpoint_id": name, "channel": channel}
                pipeline.execute_command("JSON.SET", key, "$", json.dumps(written))
                pipeline.zadd(registry, {key: number})
                keys[key], keys[registry] = (name, (task, number)), (name, None)
            if name not in saver.documents:
                # RedisSaver marks the document, and so makes one.
                pipeline.execute_command("JSON.SET", f"checkpoint:t:__empty__:{name}", "$", '{"has_writes":true}')
        pipeline.execute()
    return keys


def write_as_valkey_saver(client: Any, saver: OneThreadSaver) -> dict[str, Place]:
    """Write the keys that ValkeySaver would have written; the place of each that has one."""
    with client.pipeline(transaction=False) as pipeline:
        for name, (_, metadata, parent) in saver.documents.items():
            packed = base64.b64encode(json.dumps(metadata).encode()).decode()
            document = {"thread_id": "t", "checkpoint_id": name, "parent_checkpoint_id": parent, "metadata": packed}
            pipeline.set(f"checkpoint:{{t}}::{name}", json.dumps(document))
            pipeline.lpush("thread:{t}:", name)
        for name, writes in saver.writes.items():
            written = [{"task_id": task, "idx": number, "channel": said[0]} for (task, number), said in writes.items()]
            pipeline.set(f"writes:{{t}}::{name}", json.dumps(written))
        pipeline.execute()
    documents: dict[str, Place] = {f"checkpoint:{{t}}::{name}": (name, None) for name in saver.documents}
    return documents | {f"writes:{{t}}::{name}": (name, None) for name in saver.writes}


def forget(saver: OneThreadSaver, gone: Mapping[str, Place]) -> None:
    """Take from the saver what it would no longer find in Redis without these keys."""
    for key, (name, place) in gone.items():
        if key.startswith("checkpoint:"):
            saver.documents.pop(name, None)
        elif place is not None:
            saver.writes.get(name, {}).pop(place, None)
        else:
            # ValkeySaver's writes, or the registry by which RedisSaver finds its own.
            saver.writes.pop(name, None)
