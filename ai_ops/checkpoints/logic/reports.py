"""Reports of the checkpoint cleanup: frozen values whose ``as_dict()`` is the public contract."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class CleanupReport:
    """The report of a run of the cleanup; a dry run reports the deletions of a real run.

    Attributes:
        retention_days: The requested retention in days.
        processed_count: Number of scanned keys.
        deleted_count: Number of deleted keys.
        error: The reason why the run ended early, as a sentence.
        dryrun: Whether nothing was deleted.
        threads_deleted: Number of conversations deleted whole.
        threads_kept: Number of conversations that stayed.
        checkpoints_trimmed: Number of deleted old checkpoints of live conversations.
        orphan_count: Number of keys whose checkpoint was already gone.
        unfixable_count: Number of keys that stayed because their age is unknown.
        changed_count: Number of deletions cancelled because the conversation continued.
        limit_reached: Whether the run stopped because `max_deletions` was reached.
        applied_retention_days: The applied retention in days; shorter if memory was short.
        policy: A sentence on the applied retention, its reason, and other limits of the run.
        memory_before_bytes: Memory of Redis before the run; None if its user may not read it.
        memory_after_bytes: Memory of Redis after the run. Redis frees memory in the background, partly later.
        layouts: The counts of CompactRedisSaver's threads (`compact`) and of all others (`others`).
        largest_threads: The ten conversations with the most keys that were deleted whole, in the form of
            `ThreadReport`.
        policies: By the name of each retention policy `threads_deleted`, `threads_kept`, `checkpoints_trimmed` and
            `deleted_count`; under the empty name those of threads without a policy. Empty without policies.
        over_limit_count: Number of threads that still exceed a limit of their policy.
        over_limits: The first of these threads: `thread`, `policy`, `limit` (``max_checkpoints`` or ``max_thread_mb``),
            `has` (checkpoints, or bytes) and `why`.
        seconds: Duration of the run.
    """

    retention_days: Any
    processed_count: int = 0
    deleted_count: int = 0
    error: str | None = None
    dryrun: bool = False
    threads_deleted: int = 0
    threads_kept: int = 0
    checkpoints_trimmed: int = 0
    orphan_count: int = 0
    unfixable_count: int = 0
    changed_count: int = 0
    limit_reached: bool = False
    applied_retention_days: float | None = None
    policy: str = ""
    memory_before_bytes: int | None = None
    memory_after_bytes: int | None = None
    layouts: dict[str, dict[str, int]] = field(default_factory=dict)
    largest_threads: tuple[dict[str, Any], ...] = ()
    policies: dict[str, dict[str, int]] = field(default_factory=dict)
    over_limit_count: int = 0
    over_limits: tuple[dict[str, Any], ...] = ()
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the result of `cleanup_old_checkpoints` for JSON: `success`, and every attribute by name."""
        lists = {"largest_threads": list(self.largest_threads), "over_limits": list(self.over_limits)}
        return {"success": self.error is None, **asdict(self), **lists}


@dataclass(frozen=True)
class ThreadReport:
    """A conversation that was deleted whole, or would be by a real run.

    Attributes:
        thread: Its id.
        namespaces: Number of its namespaces, of the graph and its subgraphs.
        keys: Number of its keys in Redis.
        bytes: Their memory in Redis, estimated from some of them; None if not measured.
        last_activity: Time of its newest checkpoint, ISO 8601 in UTC.
        policy: The name of its retention policy; empty for the run's own options.
    """

    thread: str
    namespaces: int
    keys: int
    bytes: int | None
    last_activity: str
    policy: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return every attribute by its name."""
        # Of plain values asdict would make copies, which takes ten times as long.
        return dict(vars(self))


def text_of(name: bytes) -> str:
    """Return a thread's id as text for every database, without NUL (PostgreSQL) and unpaired surrogates (UTF-8)."""
    return name.decode(errors="backslashreplace").replace("\x00", "\\x00")
