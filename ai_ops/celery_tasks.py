"""The maintenance tasks: plain functions that gather, decide, apply and report.

The Jobs, the schedules, REST and a Python shell all call these.
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
from ai_ops.checkpoints.conversation_moves import move_threads
from ai_ops.checkpoints.erasure import Request as ErasureRequest
from ai_ops.checkpoints.erasure import erase_conversations
from ai_ops.checkpoints.explanation import explain
from ai_ops.checkpoints.logic.conversation_moves import MoveReport
from ai_ops.checkpoints.logic.erasure import ErasureReport
from ai_ops.checkpoints.logic.reports import CleanupReport, ThreadReport
from ai_ops.checkpoints.logic.search import SearchReport
from ai_ops.checkpoints.logic.storage import StorageReport
from ai_ops.checkpoints.pins import pin_thread, unpin_thread
from ai_ops.checkpoints.sampling import sample
from ai_ops.checkpoints.search import search
from ai_ops.choices import MaintenanceKindChoices
from ai_ops.exceptions import ConfigurationError, ErasureError
from ai_ops.logic.savers import AUTO, COMPACT
from ai_ops.logic.shards import Shard
from ai_ops.mcp.health_run import check_due_servers, check_one_server
from ai_ops.mcp.incidents import review_incidents
from ai_ops.mcp.logic.reports import HealthReport, ServerReport
from ai_ops.mcp.maintenance_incidents import follow_maintenance
from ai_ops.runs.decisions import Hold
from ai_ops.runs.execution import run_as
from ai_ops.runs.queries import get_recent_runs
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

SUBJECT_LENGTH = 36  # of a UUID; what is longer is none, and the check says so


def cleanup_old_checkpoints(
    retention_days: float | None = 30,
    dryrun: bool = False,
    *,
    pinned_threads: Iterable[str] = (),
    trial_policy: str | None = None,
    on_thread: Callable[[ThreadReport], object] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Delete the checkpoints that are past their retention and that no live conversation needs.

    Args:
        retention_days: Age in days past which a checkpoint may go, from an hour (1/24) to 3650; None for what is
            configured. It holds for threads that no retention policy matches.
        dryrun: Delete nothing, and report the keys that a run would delete.
        pinned_threads: Ids of threads that stay whatever their age, beside those that are pinned in Nautobot.
        trial_policy: The name or the id of a retention policy that a dry run takes for enabled.
        on_thread: Called for each conversation that went whole, or would go.
        options: The other attributes of `ai_ops.config.CleanupOptions`; what is not given is as configured.

    Returns:
        The contract's `success`, `processed_count` (keys scanned), `deleted_count` (keys deleted, or that
        would be), `retention_days`, `error` (None or a sentence), and the rest of `CleanupReport`.

    Raises:
        StoppedByTimeLimitError: The Job's time is up (a SoftTimeLimitExceeded). What was done until then is logged and
            stays; the exception has it as `report`.
        TypeError: There is no such option.
    """
    given: dict[str, Any] = {"retention_days": retention_days, "dryrun": dryrun}
    given |= {"trial_policy": trial_policy} if trial_policy else {}
    given |= {name: value for name, value in options.items() if value is not None}
    return run_as(
        MaintenanceKindChoices.CLEANUP,
        given,
        lambda hold: clean_up(
            hold, retention_days, dryrun, frozenset(pinned_threads), on_thread, options, trial_policy
        ),
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

    Then it looks again, until nothing is left. The record of the erasure is kept, and for `erasure_guard_days` the
    collection of orphans deletes what a late write brings back.

    Args:
        thread_ids: Ids of threads, exactly as the agent has them in its configuration.
        thread_pattern: A glob over the ids of others, such as ``user-42-*``.
        store_namespaces: Namespaces of LangGraph's RedisStore whose items go too, with all below them: texts such as
            ``users.42``, or their parts as a list.
        reason: The reason, for the record.
        include_pinned: Whether pinned threads go too. Without it they stay, and the erasure is no success.
        dryrun: Delete nothing and record nothing, and report what would go.

    Returns:
        `success`, `error` (None or a sentence), `verified`, `deleted_count`, `deleted_by_family`, `seconds`, and the
        rest of `ai_ops.checkpoints.logic.erasure.ErasureReport`.

    Raises:
        SoftTimeLimitExceeded: The Job's time is up. What was deleted until then stays deleted, and the record says so.
    """
    try:
        request = ErasureRequest.checked(
            thread_ids, thread_pattern, store_namespaces, reason, include_pinned=include_pinned, dryrun=dryrun
        )
    except ConfigurationError as error:
        return ErasureReport(error=str(error), dryrun=dryrun).as_dict()
    return run_as(
        MaintenanceKindChoices.ERASURE,
        # The names are in the record of the erasure, as the setting `erasure_ids` says.
        {"dryrun": dryrun, "thread_count": len(request.thread_ids), "include_pinned": include_pinned},
        lambda hold: erase_conversations(hold, request),
        lambda error: ErasureReport(error=error or "The same erasure is under way already.", dryrun=dryrun).as_dict(),
        subject=request.subject,
    )


def explain_thread(thread_id: str) -> dict[str, Any]:
    """Explain how the cleanup sees a thread, and for each checkpoint what the next run would do, and why.

    It looks the thread up by direct questions: nothing is scanned, nothing is changed. The options are the configured
    ones, with the retention policies and the pins of now.

    Args:
        thread_id: The thread's id, exactly as the agent has it in its configuration.

    Returns:
        `success`, `error` (None or a sentence), and the rest of `ai_ops.checkpoints.logic.explanation.Explanation`:
        among them `found`, `layout`, `pinned`, `policy`, `waits`, `decision` (a sentence), and `namespaces`, each with
        its `checkpoints`: `checkpoint_id`, `time`, `bytes`, `goes`, `rule`.
    """
    return explain(str(thread_id)).as_dict()


def find_threads(pattern: str) -> dict[str, Any]:
    """Find the threads whose ids match a glob, with one scan of all key names, for at most a minute.

    Args:
        pattern: A glob over thread ids, such as ``user-42-*``.

    Returns:
        `success`, `error` (None or a sentence), `looked_at` and `database_keys` (about how many keys were looked at,
        and how many there are), `complete`, `thread_count`, `key_count`, and `threads`, the two hundred that were
        active last: each with `thread`, `saver`, `last_activity`, `checkpoints`, `keys`, `bytes`, `state` and `policy`.

    Raises:
        SoftTimeLimitExceeded: The Job's time is up.
    """
    return run_as(
        MaintenanceKindChoices.SEARCH,
        {"pattern": pattern},
        lambda hold: search(hold, pattern),
        lambda error: SearchReport(str(pattern), error=error or "The same search is under way already.").as_dict(),
        subject=hashlib.sha256(str(pattern).encode(errors="surrogateescape")).hexdigest()[:SUBJECT_LENGTH],
    )


def cleanup_user_checkpoints(user_id: str) -> int:
    """Delete every checkpoint of one user's threads, those called ``user-{user_id}-...``, whatever their age.

    It is an erasure, and leaves its record. Pinned threads stay, and the log names their number. By age:
    ``cleanup_old_checkpoints(thread_pattern=...)``.

    Args:
        user_id: The user's id; characters that mean something in a glob are taken as they are.

    Returns:
        The number of deleted keys.

    Raises:
        ErasureError: It could not be carried out, or something is left; the message says why.
    """
    pattern = f"user-{glob.escape(str(user_id))}-*"
    report = erase_threads(thread_pattern=pattern, reason="All checkpoints of a user (cleanup_user_checkpoints).")
    # Pinned threads stay, as the log says.
    if report["error"] and not report["pinned_threads"]:
        raise ErasureError(report["error"])
    count: int = report["deleted_count"]
    return count


def move_conversations(source: str = AUTO, pattern: str = "*", dryrun: bool = False) -> dict[str, Any]:
    """Copy conversations from RedisSaver or ValkeySaver to CompactRedisSaver, within the checkpoint Redis.

    Each checkpoint is read back and compared. Nothing is deleted. A run that was cut short goes on where it ended.

    Args:
        source: The saver that has them, ``redis`` or ``valkey``; ``auto`` for the one that has conversations there.
        pattern: A glob over thread ids.
        dryrun: Write nothing, and count the threads that a run would move.

    Returns:
        `success`, `error` (None or a sentence), and the rest of its `MoveReport`.

    Raises:
        StoppedByTimeLimitError: The Job's time is up (a SoftTimeLimitExceeded). What was moved until then stays.
    """
    return run_as(
        MaintenanceKindChoices.MOVES,
        {"source": source, "pattern": pattern, "dryrun": dryrun},
        lambda hold: move_threads(hold, source, pattern, dryrun),
        lambda error: MoveReport(source, COMPACT, dryrun, error=error).as_dict(),
    )


def sample_checkpoint_storage() -> dict[str, Any]:
    """Sample the checkpoint Redis as a dry run of the cleanup does, and save the result for the page.

    The options are those of the settings. It looks at a million keys or for a minute, whichever ends first, and
    measures the size of some of them.

    Returns:
        `success`, `error` (None or a sentence), and the rest of `ai_ops.checkpoints.logic.storage.StorageReport`.

    Raises:
        SoftTimeLimitExceeded: The Job's time is up. The page says so then.
    """
    return run_as(MaintenanceKindChoices.STORAGE, {}, sample, lambda error: StorageReport(error=error).as_dict())


def perform_mcp_health_checks(*, shard: Shard | str | None = None) -> dict[str, Any]:
    """Check every due HTTP server that is not Vulnerable, and flip the statuses on which three checks agree.

    A server with an interval of its own is due once in each, one that asked to be left alone not before.

    A change made by a Job is in Nautobot's change log with the Job's context. From a shell wrap the call
    in ``nautobot.apps.change_logging.web_request_context(user)``: only the caller knows whose change it is.

    Args:
        shard: Check these servers alone; as text, what ``str()`` makes of it. None for all of them: then a Job leaves
            more than `health_check_shard_size` to further runs of itself. A shell checks however many there are.

    Returns:
        `success`; `checked_count`, `changed_count` and `failed_count` of servers, the last those whose last
        probe failed or whose check could not be made, so a server that is still down counts in every run;
        `worker_count`; `cache_cleared`; `error`, None or a sentence. Where the servers were left to other runs,
        nothing is counted, and `shards` has for each of them `job_result`, its id, and `server_count`.

    Raises:
        SoftTimeLimitExceeded: The Job's time is up. What was done until then is logged and stays.
    """
    try:
        part = Shard.parse(shard) if isinstance(shard, str) else shard
    except ValueError as error:
        return HealthReport(error=f"{error}. Leave it out to check all servers.").as_dict()
    return run_as(
        MaintenanceKindChoices.HEALTH,
        {"shard": str(part)} if part else {},
        lambda hold: check_due_servers(hold, part),
        lambda error: HealthReport(error=error).as_dict(),
        # Shards that are under way at the same time have no first server in common.
        subject=str(part.first) if part else "",
    )


def check_mcp_server_health(server_id: uuid.UUID | str) -> dict[str, Any]:
    """Check one server as `perform_mcp_health_checks` does, with the same rounds and the same flip.

    Args:
        server_id: Primary key of an MCPServer.

    Returns:
        `success`, whether the server could be checked; `server` and `server_id`, or what was asked for and None
        where there is no such server; `status_before`, `status_after`, `changed`; of the last probe `ok`, `reason`,
        `message`, `latency_ms`, `http_status` and its end `checked_at` (ISO 8601, UTC); `error`, None or a sentence.

    Raises:
        SoftTimeLimitExceeded: The Job's time is up before the check was complete.
    """
    return run_as(
        MaintenanceKindChoices.SERVER,
        {"server": str(server_id)},
        lambda hold: check_one_server(hold, server_id),
        lambda error: ServerReport(server=str(server_id), error=error).as_dict(),
        subject=str(server_id)[:SUBJECT_LENGTH],
    )


def close_resolved_incidents() -> dict[str, Any]:
    """Close open incidents whose servers recovered otherwise, and escalate those that are open for too long.

    Before that it opens those that a run did not get to open, since it was killed.

    Elsewhere is: a person gave the servers another status, or deleted them. Run twice it changes nothing.

    Returns:
        Of open incidents `total_checked`, `auto_closed`, `escalated` and `errors`, those that could not be
        dealt with and are in the log; `opened`, servers whose incidents a killed run had left to be opened;
        `execution_time_ms`, a whole number.

    Raises:
        ConfigurationError: A setting is out of its range.
        SoftTimeLimitExceeded: The Job's time is up. What was done until then stays.
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
    """Supervise the other runs: rescue those whose process died, start due ones, delete old records.

    Returns:
        By sub-check (`rescue`, `repair`, `retries`, `schedules`, `history`, `orphans`) how much was `checked`,
        `fixed` and `unfixable`, and the same of all; `summary`, a line; `success`; `error`, None or which sub-checks
        ended with an error of the program, while the others were made all the same; `execution_time_ms`.

    Raises:
        SoftTimeLimitExceeded: The Job's time is up. What was done until then stays.
    """
    return run_as(MaintenanceKindChoices.SUPERVISOR, {}, supervise_once, no_supervision)
