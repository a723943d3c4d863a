"""Moves of conversations to CompactRedisSaver within the checkpoint Redis."""

from __future__ import annotations

import asyncio
import fnmatch
import logging
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from redis.exceptions import RedisClusterException, RedisError

from ai_ops.checkpoints.connection import (
    CheckpointRedis,
    describe_checkpoint_redis,
    get_redis_connection,
    open_saver,
)
from ai_ops.checkpoints.key_names import key_parser
from ai_ops.checkpoints.logic.conversation_moves import MoveReport
from ai_ops.checkpoints.logic.keys import Family
from ai_ops.checkpoints.redis.client import PIPELINE_COMMANDS
from ai_ops.checkpoints.redis.errors import explain
from ai_ops.checkpoints.redis.store import CheckpointStore
from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import AiOpsError, CheckpointStoreError, ConfigurationError
from ai_ops.logic.arguments import FLAG, Rule
from ai_ops.logic.batches import batches
from ai_ops.logic.globs import why_no_glob
from ai_ops.logic.savers import AUTO, CLASSES, COMPACT, OLDER, VALKEY
from ai_ops.runs.hold import Hold
from ai_ops.runs.logs import get_logger
from ai_ops.runs.progress import progress_of
from ai_ops.runs.time_limit import StoppedByTimeLimitError

logger = get_logger(__name__)

PROGRESS_SECONDS = 1.0  # seconds between two lines
MOVE_RULES = {
    "source": Rule(
        lambda value: isinstance(value, str) and value in (AUTO, *OLDER), f"one of {', '.join((AUTO, *OLDER))}"
    ),
    "pattern": Rule(lambda value: isinstance(value, str) and not why_no_glob(value), "a glob such as user-42-*"),
    "dryrun": FLAG,
}


def source_of(asked: str, described: CheckpointRedis) -> str | None:
    """Return the saver to move from: the requested one, or the one with conversations; None if there are none.

    Raises:
        ConfigurationError: The saver can't work there.
    """
    names = {CLASSES[saver][1]: saver for saver in OLDER}
    found = names.get(described.saver or "") if asked == AUTO else asked
    if found is not None and (reason := described.savers[CLASSES[found][0]]) is not None:
        raise ConfigurationError(f"{CLASSES[found][1]} can't work on {described.address}: {reason}.")
    return found


class Move:
    """Moves conversations one by one.

    Args:
        source: The saver to read from, `redis` or `valkey`.
        settings: The settings, with the prefixes of the savers' keys.
        dryrun: Whether to count without writing.
        confirm: Called between conversations; raises an error if the run may not continue.
        progress: Called with the progress of the run, at most once a second.
    """

    def __init__(
        self,
        source: str,
        settings: AiOpsSettings,
        *,
        dryrun: bool,
        confirm: Callable[[], object],
        progress: Callable[[str], object],
    ) -> None:
        self.report = MoveReport(source, COMPACT, dryrun)
        self._settings = settings
        self._confirm = confirm
        self._progress = progress
        self._started = self._last_line = time.monotonic()

    def execute(self, pattern: str) -> MoveReport:
        """Move the conversations with matching ids. After an exception the report covers the completed moves.

        Raises:
            CheckpointStoreError: Redis failed.
        """
        try:
            asyncio.run(self._move_all(pattern))
        except (RedisError, RedisClusterException) as error:
            raise CheckpointStoreError(explain(error)) from error
        finally:
            self.report.seconds = round(time.monotonic() - self._started, 3)
        return self.report

    async def _move_all(self, pattern: str) -> None:
        from langgraph_checkpoint_compact.migration import valkey_threads

        # The threads are found by their keys, since ValkeySaver can't list threads, and RedisSaver's list ends at the
        # first damaged document.
        settings = self._settings
        find = valkey_threads if self.report.source == VALKEY else partial(_redis_threads, settings=settings)
        with get_redis_connection() as client:
            threads: dict[str, Any] = find(client, pattern)
        async with open_saver(self.report.source, settings) as source, open_saver(COMPACT, settings) as target:
            for number, (thread_id, namespaces) in enumerate(threads.items(), 1):
                self._confirm()
                await self._move(source, target, thread_id, namespaces)
                self._report_progress(number, len(threads))

    async def _move(self, source: Any, target: Any, thread_id: str, namespaces: Collection[str] | None) -> None:
        """Move a conversation; an error affects only this conversation."""
        from langgraph_checkpoint_compact import CompactSaverError, amigrate_threads

        chosen: Any = {thread_id: namespaces} if namespaces is not None else [thread_id]
        try:
            done = await amigrate_threads(source, target, chosen, dry_run=self.report.dryrun)
        except (SoftTimeLimitExceeded, AiOpsError, RedisError, RedisClusterException):
            raise
        except CompactSaverError as error:
            self.report.add_failure(thread_id, str(error))
        except Exception as error:
            # Savers raise errors of any type for a damaged document.
            logger.exception("A conversation could not be moved", extra={"grouping": "move"})
            self.report.add_failure(thread_id, f"its saver can't read it ({type(error).__name__}): see the log.")
        else:
            (thread,) = done.threads
            if thread.error:
                self.report.add_failure(thread_id, thread.error)
            else:
                self.report.add_thread(thread.checkpoints, thread.present, thread.writes)

    def _report_progress(self, number: int, count: int) -> None:
        now = time.monotonic()
        if now - self._last_line >= PROGRESS_SECONDS:
            self._last_line = now
            self._progress(f"Moving: {number:,} of {count:,} conversations")


def _redis_threads(client: Any, pattern: str, settings: AiOpsSettings) -> dict[str, None]:
    """Return the threads of RedisSaver with matching ids, found by their documents."""
    parser = key_parser(settings)
    store = CheckpointStore(client, parser)
    found: dict[bytes, bytes] = {}
    for keys in store.scan(found.clear):
        for each in store.complete(filter(None, map(parser.parse, keys))):
            if each.family == Family.DOCUMENT and fnmatch.fnmatchcase(_id(each.thread), pattern):
                found.setdefault(each.thread, each.key)
    threads: dict[str, None] = {}
    for some in batches(list(found.items()), PIPELINE_COMMANDS):
        kinds = store.redis.ask([("TYPE", key) for _, key in some])
        # Other savers use the same names for plain strings.
        threads |= {_id(thread): None for (thread, _), kind in zip(some, kinds, strict=True) if kind == b"ReJSON-RL"}
    return threads


def _id(thread: bytes) -> str:
    return thread.decode(errors="surrogateescape")


def log_move(log: logging.Logger, report: MoveReport) -> None:
    """Log the result of a move."""
    log.info(
        "%s %d conversations from %s: %d checkpoints with %d pending writes; %d checkpoints already existed",
        "Would move" if report.dryrun else "Moved",
        report.threads_moved,
        report.source,
        report.checkpoints_moved,
        report.writes_moved,
        report.checkpoints_present,
    )
    for error in report.errors:
        log.warning("%s", error)
    if (error := report.error or report.failure()) is not None:
        log.error("❌ Moving conversations failed: %s", error)


def move_threads(hold: Hold, source: str, pattern: str, dryrun: bool) -> dict[str, Any]:
    """Move under the lease of a run; arguments and result are those of `move_conversations`."""
    logger.info("Moving conversations to CompactRedisSaver...")
    report = MoveReport(source, COMPACT, dryrun)
    try:
        described = describe_checkpoint_redis(hold.settings)
        if (saver := source_of(source, described)) is None:
            logger.info("There is nothing to move: agents use %s, because %s", described.saver, described.reason)
            return report.as_dict()
        move = Move(saver, hold.settings, dryrun=dryrun, confirm=hold.confirm, progress=progress_of(hold, logger))
        report = move.report
        move.execute(pattern)
    except AiOpsError as error:
        hold.trouble(error)
        report.error = str(error)
    except SoftTimeLimitExceeded as limit:
        report.error = "The Job reached its time limit: moved threads stay moved, and the next run continues."
        log_move(logger, report)
        raise StoppedByTimeLimitError(report.as_dict()) from limit
    log_move(logger, report)
    return report.as_dict()
