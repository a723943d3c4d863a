"""A saver that does everything with two savers and fails when they do not read the same."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple


def comparable(found: CheckpointTuple | None) -> Any:
    """Answers that two savers must give alike."""
    if found is None:
        return None
    names = ("thread_id", "checkpoint_ns", "checkpoint_id")

    def named(config: Any) -> Any:
        return [str(config["configurable"][name]) for name in names] if config else None

    return {
        "config": named(found.config),
        "parent": named(found.parent_config),
        "checkpoint": dict(found.checkpoint),
        "metadata": dict(found.metadata),
        "writes": [tuple(write) for write in found.pending_writes or []],
    }


class SideBySide(BaseCheckpointSaver[str]):
    """Real graphs run on it: what they read from `saver` is what `model` gives."""

    def __init__(self, saver: BaseCheckpointSaver, model: BaseCheckpointSaver) -> None:
        super().__init__(serde=saver.serde)
        self.saver = saver
        self.model = model
        self.reads = 0
        self._lock = threading.RLock()

    def get_next_version(self, current: Any, channel: None) -> str:
        return self.saver.get_next_version(current, channel)

    def get_tuple(self, config: Any) -> CheckpointTuple | None:
        with self._lock:
            found, expected = self.saver.get_tuple(config), self.model.get_tuple(config)
        assert comparable(found) == comparable(expected)
        self.reads += 1
        return found

    def list(self, config: Any, *, filter: Any = None, before: Any = None, limit: Any = None) -> Iterator[Any]:
        with self._lock:
            found = list(self.saver.list(config, filter=filter, before=before, limit=limit))
            expected = list(self.model.list(config, filter=filter, before=before, limit=limit))
        assert [comparable(each) for each in found] == [comparable(each) for each in expected]
        self.reads += len(found)
        return iter(found)

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        with self._lock:
            stored = self.saver.put(config, checkpoint, metadata, new_versions)
            assert stored == self.model.put(config, checkpoint, metadata, new_versions)
        return stored

    def put_writes(self, config: Any, writes: Sequence[Any], task_id: str, task_path: str = "") -> None:
        with self._lock:
            self.saver.put_writes(config, writes, task_id, task_path)
            self.model.put_writes(config, writes, task_id, task_path)

    def delete_thread(self, thread_id: str) -> None:
        with self._lock:
            self.saver.delete_thread(thread_id)
            self.model.delete_thread(thread_id)

    def get_delta_channel_history(self, *, config: Any, channels: Sequence[str]) -> Any:
        with self._lock:
            found = self.saver.get_delta_channel_history(config=config, channels=channels)
            expected = self.model.get_delta_channel_history(config=config, channels=channels)
        assert found == expected
        self.reads += 1
        return found
