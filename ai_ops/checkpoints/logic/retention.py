"""The retention, as one run applies it. Times are seconds since 1970."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from ai_ops.checkpoints.logic.keys import KeyPrefixes
from ai_ops.checkpoints.logic.threads import Document, Namespace

DAY = 86_400.0


@dataclass(frozen=True)
class RetentionPolicy:
    """What may go, as one run applies it.

    Attributes:
        retention: Seconds past which a checkpoint may go.
        pending_retention: Seconds past which a thread that waits for a person's answer may go.
        trim_live_threads: Whether old checkpoints of live threads go.
        keep_last: Checkpoints that each namespace of a live thread keeps, at least 1.
        thread_pattern: A glob over thread ids; other threads are left alone. None for all threads.
        pinned: Ids of threads that are left alone, and so is what may be theirs.
        prefixes: What RedisSaver's keys begin with.
        undated_blobs: Whether blobs of threads without a checkpoint may go. They carry no time.
    """

    retention: float
    pending_retention: float
    trim_live_threads: bool = True
    keep_last: int = 1
    thread_pattern: str | None = None
    pinned: frozenset[str] = frozenset()
    prefixes: KeyPrefixes = field(default_factory=KeyPrefixes)
    undated_blobs: bool = True

    @property
    def shortest(self) -> float:
        """The shorter of the two retentions, in seconds."""
        return min(self.retention, self.pending_retention)

    def covers(self, names: Iterable[bytes]) -> bool:
        """Whether a thread that has one of these names is subject to the policy, whichever it is."""
        if self.thread_pattern is None and not self.pinned:
            return True
        texts = list(map(_text, names))
        if not self.pinned.isdisjoint(texts):
            return False
        return self.thread_pattern is None or all(_compiled(self.thread_pattern).match(text) for text in texts)

    def may_trim(self, namespace: Namespace, now: float) -> bool:
        """Whether a namespace of a live thread has checkpoints past the retention, and not just the last ones."""
        if not self.trim_live_threads or len(namespace.documents) <= self.keep_last or namespace.is_shallow:
            return False
        return any((document.time or now) < now - self.retention for document in namespace.documents.values())

    def kept_anyway(self, ordered: Sequence[Document], now: float) -> int:
        """How many of a namespace's checkpoints, newest first, stay whatever they say of their ancestors."""
        recent = sum((document.time or now) >= now - self.retention for document in ordered)
        return min(len(ordered), max(recent, self.keep_last, 1))


def _text(name: bytes) -> str:
    return name.decode(errors="surrogateescape")


@lru_cache(maxsize=8)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(pattern))
