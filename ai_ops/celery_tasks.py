"""The maintenance tasks: functions that gather facts, decide, apply the decisions and return a report.

Jobs, schedules, REST and Python shells call these functions.
"""

from __future__ import annotations

import glob
import hashlib
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from django.db import transaction
from django.utils import timezone

from ai_ops.checkpoints.cleanup_run import clean_up
from ai_ops.checkpoints.conversation_moves import MOVE_RULES, move_threads
from ai_ops.checkpoints.erasure import Request as ErasureRequest
from ai_ops.checkpoints.erasure import erase_conversations
from ai_ops.checkpoints.explanation import explain
from ai_ops.checkpoints.logic.conversation_moves import MoveReport
from ai_ops.checkpoints.logic.erasure import ErasureReport
from ai_ops.checkpoints.logic.explanation import Explanation
from ai_ops.checkpoints.logic.reports import CleanupReport, ThreadReport
from ai_ops.checkpoints.logic.search import SearchReport
from ai_ops.checkpoints.logic.storage import StorageReport
from ai_ops.checkpoints.pins import pin_thread, unpin_thread
from ai_ops.checkpoints.sampling import sample
from ai_ops.checkpoints.search import checked_pattern, search
from ai_ops.choices import MaintenanceKindChoices
from ai_ops.exceptions import ConfigurationError, ErasureError
from ai_ops.logic.arguments import ID, refusal
from ai_ops.logic.foreign_text import printable, shown
from ai_ops.logic.savers import AUTO, COMPACT
from ai_ops.logic.shards import Shard
from ai_ops.mcp.health_run import check_due_servers, check_one_server
from ai_ops.mcp.incidents import review_incidents
from ai_ops.mcp.logic.reports import HealthReport, ServerReport
from ai_ops.runs.execution import run_as
from ai_ops.runs.hold import Hold
from ai_ops.runs.queries import get_recent_runs
from ai_ops.supervision.maintenance_incidents import follow_maintenance
from ai_ops.supervision.supervisor import no_supervision, supervise_once

__all__ = (
    "check_mcp_server_health",
    "cleanup_old_checkpoints",
    "cleanup_user_checkpoints",
    "erase_threads",
    "explain_thread",
    "find_threads",
    "get_recent_runs",
    "move_conversations",
    "perform_mcp_health_checks",
    "pin_thread",
    "sample_checkpoint_storage",
    "supervise",
    "unpin_thread",
)

SUBJECT_LENGTH = 36  # the length of a UUID; the check reports a longer text as unknown


def cleanup_old_checkpoints(
    retention_days: float | None = 30,
    dryrun: bool = False,
    *,
    pinned_threads: Iterable[str] = (),
    trial_policy: str | None = None,
    on_thread: Callable[[ThreadReport], object] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Delete checkpoints that are past their retention, unless a live conversation needs them.

    Args:
        retention_days: Age in days after which a checkpoint may be deleted, from an hour (1/24) to 3650; None for the
            configured value. It applies to threads without a matching retention policy.
        dryrun: Delete nothing, and report the keys that a run would delete.
        pinned_threads: Ids of threads to keep regardless of their age, in addition to those pinned in Nautobot.
        trial_policy: The name or the id of a retention policy that a dry run treats as enabled.
        on_thread: Called for each thread that was deleted whole, or would be in a dry run.
        options: The other attributes of `ai_ops.config.CleanupOptions`; omitted options have the configured value.

    Returns:
        `success`, `processed_count` (scanned keys), `deleted_count` (deleted keys, or keys that a real run would
        delete), `retention_days`, `error` (None or a sentence), and the other fields of `CleanupReport`.

    Raises:
        StoppedByTimeLimitError: The Job reached its time limit (a SoftTimeLimitExceeded). The work done is logged and
            stays; the exception has its `report`.
        TypeError: There is no such option.
    """
    given: dict[str, Any] = {"retention_days": retention_days, "dryrun": dryrun}
    given |= {} if trial_policy is None else {"trial_policy": trial_policy}
    given |= {name: value for name, value in options.items() if value is not None}
    return run_as(
        MaintenanceKindChoices.CLEANUP,
        given,
        lambda hold: clean_up(hold, retention_days, dryrun, pinned_threads, on_thread, options, trial_policy),
        lambda error: CleanupReport(retention_days, error=error, dryrun=dryrun).as_dict(),
    )


def erase_threads(
    thread_ids: Iterable[str] = (),
    thread_pattern: str | None = None,
    *,
    store_namespaces: Iterable[str | Sequence[str]] = (),
    reason: str,
    include_pinned: bool = False,
    dryrun: bool = False,
) -> dict[str, Any]:
    """Delete whole threads of every layout and any age, including threads that wait or run.

    Scans are repeated until no key is left. The record of the erasure is kept. For `erasure_guard_days` the collection
    of orphans deletes keys from late writes.

    Args:
        thread_ids: Ids of threads, exactly as the agent has them in its configuration.
        thread_pattern: A glob for the ids of further threads, such as ``user-42-*``.
        store_namespaces: Namespaces of LangGraph's RedisStore whose items are deleted too, including namespaces below
        them: texts such as ``users.42``, or their parts as a list.
        reason: The reason, for the record.
        include_pinned: Whether pinned threads are deleted too. If not, they stay, and the erasure fails.
        dryrun: Delete nothing and record nothing, and report the keys that would be deleted.

    Returns:
        `success`, `error` (None or a sentence), `verified`, `deleted_count`, `deleted_by_family`, `seconds`, and the
        rest of `ai_ops.checkpoints.logic.erasure.ErasureReport`.

    Raises:
        SoftTimeLimitExceeded: The Job reached its time limit. Deleted keys stay deleted, and the record has their
            number.
    """
    try:
        request = ErasureRequest.checked(
            thread_ids, thread_pattern, store_namespaces, reason, include_pinned=include_pinned, dryrun=dryrun
        )
    except ConfigurationError as error:
        return ErasureReport(error=str(error), dryrun=dryrun).as_dict()
    return run_as(
        MaintenanceKindChoices.ERASURE,
        # The record of the erasure has the names, in the form of the setting `erasure_ids`.
        {"dryrun": dryrun, "thread_count": len(request.thread_ids), "include_pinned": include_pinned},
        lambda hold: erase_conversations(hold, request),
        lambda error: ErasureReport(error=error or "The same erasure is already running.", dryrun=dryrun).as_dict(),
        subject=request.subject,
    )


def explain_thread(thread_id: str) -> dict[str, Any]:
    """Explain what the next cleanup would do with each checkpoint of a thread, and why.

    It looks the thread up directly: it scans nothing and changes nothing. It uses the configured options and the
    current retention policies and pins.

    Args:
        thread_id: The thread's id, exactly as in the agent's configuration.

    Returns:
        `success`, `error` (None or a sentence), and the rest of `ai_ops.checkpoints.logic.explanation.Explanation`:
        among them `found`, `layout`, `pinned`, `policy`, `waits`, `decision` (a sentence), and `namespaces`, each with
        its `checkpoints`: `checkpoint_id`, `time`, `bytes`, `goes`, `rule`.
    """
    if wrong := refusal({"thread_id": ID}, {"thread_id": thread_id}):
        return Explanation(shown(thread_id), error=wrong).as_dict()
    return explain(str(thread_id)).as_dict()


def find_threads(pattern: str) -> dict[str, Any]:
    """Find the threads whose ids match a glob, with one scan of the key names for at most a minute.

    Args:
        pattern: A glob over thread ids, such as ``user-42-*``.

    Returns:
        `success`, `error` (None or a sentence), `looked_at` and `database_keys` (the approximate number of scanned
        keys, and the number of all keys), `complete`, `thread_count`, `key_count`, and `threads`, the two hundred most
        recently active threads: each with `thread`, `saver`, `last_activity`, `checkpoints`, `keys`, `bytes`, `state`
        and `policy`.

    Raises:
        SoftTimeLimitExceeded: The Job reached its time limit.
    """
    try:
        checked = checked_pattern(pattern)
    except ConfigurationError as error:
        return SearchReport(shown(pattern), error=str(error)).as_dict()
    return run_as(
        MaintenanceKindChoices.SEARCH,
        {"pattern": checked},
        lambda hold: search(hold, checked),
        lambda error: SearchReport(checked, error=error or "The same search is already running.").as_dict(),
        subject=hashlib.sha256(checked.encode()).hexdigest()[:SUBJECT_LENGTH],
    )


def cleanup_user_checkpoints(user_id: str) -> int:
    """Delete all checkpoints of a user's threads, with ids ``user-{user_id}-...``, regardless of their age.

    This is an erasure and leaves its record. Pinned threads stay; the log has their number. To delete by age, use
    ``cleanup_old_checkpoints(thread_pattern=...)``.

    Args:
        user_id: The user's id; the special characters of globs are taken literally.

    Returns:
        The number of deleted keys.

    Raises:
        ErasureError: The erasure could not be completed, for the reason in the message.
    """
    if wrong := refusal({"user_id": ID}, {"user_id": user_id}):
        raise ErasureError(wrong)
    if not str(user_id):
        raise ErasureError("user_id must not be empty.")
    pattern = f"user-{glob.escape(str(user_id))}-*"
    report = erase_threads(thread_pattern=pattern, reason="All checkpoints of a user (cleanup_user_checkpoints).")
    # Pinned threads stay; the log has their number.
    if report["error"] and not report["pinned_threads"]:
        raise ErasureError(report["error"])
    count: int = report["deleted_count"]
    return count


def move_conversations(source: str = AUTO, pattern: str = "*", dryrun: bool = False) -> dict[str, Any]:
    """Copy conversations from RedisSaver or ValkeySaver to CompactRedisSaver, within the checkpoint Redis.

    Each checkpoint is read back and compared. Nothing is deleted. After an interrupted run, the next run continues.

    Args:
        source: The saver that has the conversations, ``redis`` or ``valkey``; ``auto`` to detect it.
        pattern: A glob for thread ids.
        dryrun: Write nothing, and count the threads that a run would move.

    Returns:
        `success`, `error` (None or a sentence), and the rest of its `MoveReport`.

    Raises:
        StoppedByTimeLimitError: The Job reached its time limit (a SoftTimeLimitExceeded). Moved conversations stay.
    """
    if wrong := refusal(MOVE_RULES, {"source": source, "pattern": pattern, "dryrun": dryrun}):
        return MoveReport(shown(source), COMPACT, error=wrong).as_dict()
    return run_as(
        MaintenanceKindChoices.MOVES,
        {"source": source, "pattern": pattern, "dryrun": dryrun},
        lambda hold: move_threads(hold, source, pattern, dryrun),
        lambda error: MoveReport(source, COMPACT, dryrun, error=error).as_dict(),
    )


def sample_checkpoint_storage() -> dict[str, Any]:
    """Sample the checkpoint Redis as a dry run of the cleanup does, and save the result for the page.

    It uses the options of the settings. It scans up to a million keys for up to a minute, and measures the size of some
    of them.

    Returns:
        `success`, `error` (None or a sentence), and the rest of `ai_ops.checkpoints.logic.storage.StorageReport`.

    Raises:
        SoftTimeLimitExceeded: The Job reached its time limit. The page reports it.
    """
    return run_as(MaintenanceKindChoices.STORAGE, {}, sample, lambda error: StorageReport(error=error).as_dict())


def perform_mcp_health_checks(*, shard: Shard | str | None = None) -> dict[str, Any]:
    """Check every due HTTP server that is not Vulnerable, and change a status if three checks agree.

    A server with a check interval is due once per interval. A server that asked for a pause is not due before its end.

    Nautobot's change log records the changes of a Job with the Job's user. In a shell, wrap the call in
    ``nautobot.apps.change_logging.web_request_context(user)`` to record them for a user.

    Args:
        shard: Check only these servers; a shard or its ``str()``. None for all servers: if there are more than
            `health_check_shard_size`, a Job divides them among further runs. A shell checks any number.

    Returns:
        `success`; `checked_count`, `changed_count` and `failed_count` of servers; `worker_count`; `cache_cleared`;
        `error`, None or a sentence. A server counts as failed if its last probe failed or its check could not be made,
        so a server that stays down counts in every run. If the servers were divided among other runs, the counts are 0,
        and `shards` has the id of the `job_result` and the `server_count` of each.

    Raises:
        SoftTimeLimitExceeded: The Job reached its time limit. The work done is logged and stays.
    """
    if not isinstance(shard, str | Shard | None):
        wrong = f"shard must be a Shard or its text, not {shown(shard)}. Omit it to check all servers."
        return HealthReport(error=wrong).as_dict()
    try:
        part = Shard.parse(shard) if isinstance(shard, str) else shard
    except ValueError as error:
        return HealthReport(error=f"{error}. Omit it to check all servers.").as_dict()
    return run_as(
        MaintenanceKindChoices.HEALTH,
        {"shard": str(part)} if part else {},
        lambda hold: check_due_servers(hold, part),
        lambda error: HealthReport(error=error).as_dict(),
        # Shards that run at the same time have different first servers.
        subject=str(part.first) if part else "",
    )


def check_mcp_server_health(server_id: uuid.UUID | str) -> dict[str, Any]:
    """Check one server as `perform_mcp_health_checks` does, with the same rounds.

    Args:
        server_id: Primary key of an MCPServer.

    Returns:
        `success`, whether the server could be checked; `server` and `server_id`, or the argument and None if there is
        no such server; `status_before`, `status_after`, `changed`; of the last probe `ok`, `reason`, `message`,
        `latency_ms`, `http_status` and its end `checked_at` (ISO 8601, UTC); `error`, None or a sentence.

    Raises:
        SoftTimeLimitExceeded: The Job reached its time limit before the check was complete.
    """
    if wrong := refusal({"server_id": ID._replace(expected="the UUID of an MCP server")}, {"server_id": server_id}):
        return ServerReport(server=shown(server_id), error=wrong).as_dict()
    # The check reports a text that is no UUID; it may be long, or not storable.
    name = printable(str(server_id))
    return run_as(
        MaintenanceKindChoices.SERVER,
        {"server": name},
        lambda hold: check_one_server(hold, name),
        lambda error: ServerReport(server=name, error=error).as_dict(),
        subject=name[:SUBJECT_LENGTH],
    )


def close_resolved_incidents() -> dict[str, Any]:
    """Close incidents whose servers recovered without a health check, and escalate those open for too long.

    First it opens the incidents that killed runs did not open.

    A server recovers without a health check if a user changes its status or deletes it. A second call changes nothing.

    Returns:
        Numbers of open incidents: `total_checked`, `auto_closed`, `escalated` and `errors` (failed reviews, which are
        in the log); `opened`, the number of servers whose incidents killed runs did not open; `execution_time_ms`, a
        whole number.

    Raises:
        ConfigurationError: A setting is out of its range.
        SoftTimeLimitExceeded: The Job reached its time limit. The work done stays.
    """
    return run_as(MaintenanceKindChoices.INCIDENTS, {}, _reviewed, _no_review)


def _reviewed(hold: Hold) -> dict[str, Any]:
    started = time.monotonic()
    now = timezone.now()
    counts = review_incidents(now, hold)
    with transaction.atomic():
        hold.lock()
        opened, closed = follow_maintenance(now, hold.settings)
    counts["opened"] += opened
    counts["auto_closed"] += closed
    return {**counts, "execution_time_ms": round((time.monotonic() - started) * 1000)}


def _no_review(error: str | None) -> dict[str, Any]:
    counts = dict.fromkeys(("total_checked", "opened", "auto_closed", "escalated", "errors", "execution_time_ms"), 0)
    return counts | ({"error": error} if error else {})


def supervise() -> dict[str, Any]:
    """Supervise the other runs: rescue runs whose process died, start due runs, and delete old records.

    Returns:
        For each sub-check (`rescue`, `repair`, `retries`, `schedules`, `history`, `orphans`) and for all together the
        numbers `checked`, `fixed` and `unfixable`; `summary`, a line; `success`; `error`, None or a sentence with the
        sub-checks that failed by a programming error, which does not stop the others; `execution_time_ms`.

    Raises:
        SoftTimeLimitExceeded: The Job reached its time limit. The work done stays.
    """
    return run_as(MaintenanceKindChoices.SUPERVISOR, {}, supervise_once, no_supervision)
