"""Reports of the checkpoint cleanup: frozen values whose ``as_dict()`` is the public contract."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class CleanupReport:
    """The report of one run of the cleanup; a dry run reports as if it had deleted.

    Attributes:
        retention_days: The retention that was asked for, in days.
        processed_count: Keys scanned.
        deleted_count: Keys deleted.
        error: Why the run came to an early end, in a sentence.
        dryrun: Whether nothing was deleted.
        threads_deleted: Conversations that went whole.
        threads_kept: Conversations that stayed.
        checkpoints_trimmed: Old checkpoints of conversations that stayed.
        orphan_count: Keys whose checkpoint was gone already.
        unfixable_count: Keys that stayed because nothing tells their age.
        changed_count: Deletions given up because the conversation went on meanwhile.
        limit_reached: Whether the run stopped because `max_deletions` was reached.
        applied_retention_days: The retention that was applied, in days; shorter when memory was short.
        policy: Which retention was applied and why, and what else limited the run, in a sentence.
        memory_before_bytes: Memory of the Redis before; None if its user may not ask.
        memory_after_bytes: The same afterwards. Redis frees memory in the background, some of it later.
        layouts: The counts of CompactRedisSaver's threads (`compact`) and of all others (`others`).
        largest_threads: The ten conversations of most keys among those that went whole, as `ThreadReport` has them.
        policies: By the name of each retention policy `threads_deleted`, `threads_kept`, `checkpoints_trimmed` and
            `deleted_count`; under the empty name those of threads that no policy matches. Empty without policies.
        over_limit_count: Threads that stayed above a limit of their policy, as they need more to go on.
        over_limits: The first of them: `thread`, `policy`, `limit` (``max_checkpoints`` or ``max_thread_mb``), `has`
            (checkpoints, or bytes) and `why`.
        seconds: How long it took.
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
        """The result of `cleanup_old_checkpoints`: `success`, and every attribute by its name, fit for JSON."""
        lists = {"largest_threads": list(self.largest_threads), "over_limits": list(self.over_limits)}
        return {"success": self.error is None, **asdict(self), **lists}


@dataclass(frozen=True)
class ThreadReport:
    """A conversation that was deleted whole, or would be by a dry run.

    Attributes:
        thread: Its id.
        namespaces: How many namespaces it had: the graph's own and its subgraphs'.
        keys: How many keys it had in Redis.
        bytes: What they take in Redis, estimated from some of them; None where that was not measured.
        last_activity: When its newest checkpoint was made, ISO 8601 in UTC.
        policy: The name of the retention policy that held for it; empty for the run's own options.
    """

    thread: str
    namespaces: int
    keys: int
    bytes: int | None
    last_activity: str
    policy: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Every attribute by its name."""
        # Of plain values asdict would make copies, which takes ten times as long.
        return dict(vars(self))


def text_of(name: bytes) -> str:
    """A thread's id as text that every database takes: PostgreSQL has no NUL, and UTF-8 no lone surrogates."""
    return name.decode(errors="backslashreplace").replace("\x00", "\\x00")
