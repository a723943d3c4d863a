"""Erasures: deletion of whole threads, their records, and the guard against late writes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import Error as DatabaseError
from django.utils import timezone
from nautobot.apps.constants import CHARFIELD_MAX_LENGTH
from nautobot.extras.signals import change_context_state

from ai_ops.checkpoints.connection import get_redis_connection
from ai_ops.checkpoints.erased_names import conceal_options
from ai_ops.checkpoints.fencing import store_of
from ai_ops.checkpoints.key_names import compact_keys, key_parser
from ai_ops.checkpoints.logic.erasure import Erased, ErasureReport, Targets, hashed
from ai_ops.checkpoints.logic.reports import text_of
from ai_ops.checkpoints.logic.retention import RetentionPolicy
from ai_ops.checkpoints.pins import read_pins
from ai_ops.checkpoints.redis.eraser import Eraser
from ai_ops.config import SHA256, AiOpsSettings
from ai_ops.exceptions import AiOpsError, ConfigurationError, ErasureError
from ai_ops.logic.arguments import FLAG, Rule, is_list, is_storable, names, refusal, text
from ai_ops.logic.concealment import is_concealed
from ai_ops.logic.foreign_text import shown
from ai_ops.logic.globs import why_no_glob
from ai_ops.models import THREAD_ID_MAX_LENGTH, ThreadErasure
from ai_ops.runs.hold import Hold
from ai_ops.runs.logs import get_logger
from ai_ops.runs.progress import progress_of

logger = get_logger(__name__)

# Number of scans after the first deletion. A writer in the middle of a turn writes for seconds.
ROUNDS = 3
SECONDS_BETWEEN_ROUNDS = 1.0
# Maximum numbers of ids in a record and in a report.
RECORDED_THREADS, REPORTED_THREADS = 10_000, 100
MAX_THREADS = 10_000
_RULES = {
    "reason": text(CHARFIELD_MAX_LENGTH),
    "include_pinned": FLAG,
    "dryrun": FLAG,
    # Its length is checked with its form.
    "thread_pattern": Rule(lambda value: isinstance(value, str), "a glob such as user-42-*"),
}


@dataclass(frozen=True)
class Request:
    """A validated request for an erasure.

    Attributes:
        thread_ids: Ids of threads.
        thread_pattern: A glob for the ids of further threads; None for no others.
        store_namespaces: Namespaces of LangGraph's store, their parts joined by dots.
        reason: The reason, for the record.
        include_pinned: Whether pinned threads are deleted too.
        dryrun: Whether to delete nothing, and report the keys that would be deleted.
    """

    thread_ids: tuple[str, ...]
    thread_pattern: str | None
    store_namespaces: tuple[str, ...]
    reason: str
    include_pinned: bool = False
    dryrun: bool = False

    @classmethod
    def checked(
        cls,
        thread_ids: Iterable[str],
        thread_pattern: str | None,
        store_namespaces: Iterable[str | Sequence[str]],
        reason: str,
        *,
        include_pinned: bool = False,
        dryrun: bool = False,
    ) -> Request:
        """Return a validated request; raise ConfigurationError if it is invalid."""
        ids, spaces = names(thread_ids), _joined(store_namespaces)
        if ids is None or spaces is None:
            raise ConfigurationError("thread_ids and store_namespaces must be lists of texts, also for a single one.")
        others = {"reason": reason, "include_pinned": include_pinned, "dryrun": dryrun}
        if thread_pattern is not None:
            others["thread_pattern"] = thread_pattern
        if wrong := refusal(_RULES, others):
            raise ConfigurationError(wrong)
        ids, spaces = tuple(dict.fromkeys(ids)), tuple(dict.fromkeys(spaces))
        request = cls(ids, thread_pattern, spaces, reason.strip(), include_pinned, dryrun)
        for fault in (*request._faults(), *request._impossible_names()):
            raise ConfigurationError(fault)
        return request

    def _faults(self) -> Iterator[str]:
        """Yield sentences on requests that name too little or too much."""
        if not self.thread_ids and self.thread_pattern is None and not self.store_namespaces:
            yield "There is nothing to erase: give thread_ids or a thread_pattern."
        if len(self.thread_ids) > MAX_THREADS:
            yield f"Give at most {MAX_THREADS} thread_ids at once, or a thread_pattern."
        if any(map(is_concealed, (*self.thread_ids, *self.store_namespaces, self.thread_pattern or ""))):
            yield (
                "These names are SHA-256 values of an earlier erasure (erasure_ids), which can't be erased: "
                "give the names."
            )
        if not self.reason:
            yield f"Give a reason of at most {CHARFIELD_MAX_LENGTH} characters, for the record."

    def _impossible_names(self) -> Iterator[str]:
        """Yield sentences on names that no thread and no namespace can have."""
        for name in self.thread_ids:
            if not 1 <= len(name) <= THREAD_ID_MAX_LENGTH or not is_storable(name):
                yield f"No thread can have the id {shown(name)}."
        if self.thread_pattern is not None and (reason := why_no_glob(self.thread_pattern)):
            yield f"thread_pattern is not a valid glob. {reason}"
        for space in self.store_namespaces:
            if not space:
                yield "A namespace of the store must not be empty, because that would mean all items."
            if not is_storable(space):
                yield f"The store can have no namespace {shown(space)}."

    @property
    def targets(self) -> Targets:
        """Return the requested threads."""
        return Targets(frozenset(map(_encoded, self.thread_ids)), self.thread_pattern)

    @property
    def subject(self) -> str:
        """Return a concealed name of the request, which prevents two erasures of the same threads at a time."""
        words = "\0".join([*sorted(self.thread_ids), "", self.thread_pattern or "", "", *sorted(self.store_namespaces)])
        return hashlib.sha256(words.encode(errors="surrogateescape")).hexdigest()[:32]


def erase_conversations(hold: Hold, request: Request) -> dict[str, Any]:
    """Erase under the lease of a run, and log it; return the report of `erase_threads`."""
    logger.info("Erasing conversations: %s", request.reason)
    try:
        report = erase(request, hold, progress_of(hold, logger))
    except AiOpsError as error:
        hold.trouble(error)
        report = ErasureReport(error=str(error), dryrun=request.dryrun)
    else:
        if hold.settings.erasure_ids == SHA256:
            conceal_options(hold.run_id)
    counts = ", ".join(f"{count:,} {family}" for family, count in sorted(report.deleted_by_family.items()))
    logger.info(
        "%s %d keys of %d threads in %s s%s",
        "Would delete" if request.dryrun else "Deleted",
        report.deleted_count,
        report.thread_count,
        report.seconds,
        f": {counts}" if counts else "",
    )
    if report.error is not None:
        logger.error("❌ Erasure failed: %s", report.error)
    elif report.verified:
        logger.info("✅ Erasure verified: a final scan found no key left")
    return report.as_dict()


def erase(request: Request, hold: Hold, progress: Callable[[str], object]) -> ErasureReport:
    """Erase the requested threads, and keep the record.

    Raises:
        CheckpointStoreError: Redis failed for longer than the run retries; the record has the error.
    """
    settings, started = hold.settings, time.monotonic()
    record = None if request.dryrun else _new_record(request, settings, hold.owner or _user_of_the_change())
    total, last, rounds = Erased(), Erased(), 0
    error: str | None = "It was not completed."
    try:
        pins = RetentionPolicy(0, 0) if request.include_pinned else RetentionPolicy(0, 0).with_pins(read_pins())
        parser = key_parser(settings)
        with get_redis_connection() as client:
            store = store_of(hold, client, parser)
            eraser = Eraser(store, parser, compact_keys(settings), hold.confirm, dryrun=request.dryrun)
            for rounds in range(1, ROUNDS + 2):
                last = eraser.erase(request.targets, pins, request.store_namespaces)
                _add(total, last)
                progress(f"Erasing: scan {rounds}, {last.keys:,} keys")
                if not last.keys or request.dryrun:
                    break
                hold.wait(SECONDS_BETWEEN_ROUNDS if rounds > 1 else 0.0)
            store.release()
        error = _why_left(last, request)
    except AiOpsError as failure:
        error = str(failure)
        raise
    finally:
        report = ErasureReport(
            error=error,
            dryrun=request.dryrun,
            verified=error is None and not request.dryrun,
            deleted_count=total.keys,
            deleted_by_family=dict(total.by_family),
            thread_count=len(total.threads),
            threads=_reported(total.threads, settings),
            pinned_threads=_reported(total.pinned, settings),
            uncertain_keys=last.uncertain,
            rounds=rounds,
            seconds=round(time.monotonic() - started, 3),
            erasure=str(record.pk) if record else None,
        )
        if record:
            _finish(record, report, total)
    return report


def erase_late_writes(hold: Hold, confirm: Callable[[], object]) -> int:
    """Delete late writes to guarded erased threads; return the number of keys.

    Raises:
        AiOpsError: Redis or the database failed.
    """
    now = timezone.now()
    # The guard has ended, so the names are no longer needed.
    ThreadErasure.objects.filter(guarded_until__lt=now).exclude(guard={}).update(guard={})
    records = list(ThreadErasure.objects.filter(guarded_until__gte=now).exclude(guard={}))
    if not records:
        return 0
    settings = hold.settings
    parser = key_parser(settings)
    deleted = 0
    with get_redis_connection() as client:
        store = store_of(hold, client, parser)
        eraser = Eraser(store, parser, compact_keys(settings), confirm)
        guards = {_guarded(record): record.created.timestamp() for record in records}
        found = eraser.erase_late(guards)
        store.release()
        for record in records:
            targets = _guarded(record)
            if any(map(targets.has, found.threads)):
                record.late_count += found.keys
                record.save(update_fields=["late_count"])
        deleted = found.keys
    if deleted:
        logger.warning(
            "Late writes to %d erased threads: %d keys deleted",
            len(found.threads),
            deleted,
            extra={"grouping": "orphans"},
        )
    return deleted


def _add(total: Erased, found: Erased) -> None:
    total.threads |= found.threads
    total.by_family.update(found.by_family)
    total.pinned |= found.pinned


def _reported(names: Iterable[bytes], settings: AiOpsSettings) -> tuple[str, ...]:
    """Return the first of some names, for the report in the Job's result."""
    reported = hashed if settings.erasure_ids == SHA256 else text_of
    return tuple(reported(name) for name in sorted(names)[:REPORTED_THREADS])


def _why_left(last: Erased, request: Request) -> str | None:
    """Return the reason why keys are left after the final scan, as a sentence; None if none are left."""
    if last.keys and not request.dryrun:
        return (
            f"{last.keys} keys were found again by the final scan, and deleted: a process still writes to these "
            "threads. Stop the process, and erase again."
        )
    if last.pinned:
        return (
            f"{len(last.pinned)} of the threads are pinned and were kept: delete the pins, or "
            "include pinned threads (include_pinned)."
        )
    if last.uncertain:
        return (
            f"{last.uncertain} keys stay, because they may belong to another thread and do not name it. Inspect them "
            "with explain_thread, and delete by hand those that you do not need."
        )
    return None


def _new_record(request: Request, settings: AiOpsSettings, user: Any) -> ThreadErasure:
    """Record the erasure before any deletion, so that the guard holds even if the run fails."""
    is_hashed = settings.erasure_ids == SHA256
    ids = [hashed(_encoded(name)) for name in request.thread_ids] if is_hashed else list(request.thread_ids)
    pattern = request.thread_pattern or ""
    try:
        return ThreadErasure.objects.create(
            requested_by=user,
            requested_by_name=getattr(user, "username", "") or "",
            reason=request.reason,
            thread_pattern=hashed(_encoded(pattern)) if pattern and is_hashed else pattern,
            thread_ids=ids,
            is_hashed=is_hashed,
            store_namespaces=[hashed(_encoded(each)) for each in request.store_namespaces]
            if is_hashed
            else list(request.store_namespaces),
            include_pinned=request.include_pinned,
            guarded_until=timezone.now() + timedelta(days=settings.erasure_guard_days),
            guard={"ids": ids, "pattern": pattern},
            error="It has not been completed.",
        )
    except DatabaseError as error:
        # Its text may contain the row with the names of the threads.
        raise ErasureError(
            f"The erasure could not be recorded, so nothing was deleted: the database failed ({type(error).__name__})."
        ) from error


def _user_of_the_change() -> Any:
    """Return the user of the change context that a shell may have set, or None."""
    context = change_context_state.get()
    return context.get_user() if context is not None else None


def _finish(record: ThreadErasure, report: ErasureReport, total: Erased) -> None:
    names = sorted(total.threads)[:RECORDED_THREADS]
    found = [hashed(name) if record.is_hashed else text_of(name) for name in names]
    record.thread_ids = list(dict.fromkeys([*record.thread_ids, *found]))[:RECORDED_THREADS]
    record.guard = record.guard | {"ids": record.thread_ids}
    record.thread_count = report.thread_count
    record.deleted_count = report.deleted_count
    record.deleted_by_family = report.deleted_by_family
    record.verified = report.verified
    record.rounds = report.rounds
    record.seconds = report.seconds
    record.error = report.error or ""
    record.finished = timezone.now()
    record.save()


def _guarded(record: ThreadErasure) -> Targets:
    names = frozenset(record.guard.get("ids", ()))
    pattern = record.guard.get("pattern") or None
    if record.is_hashed:
        return Targets(pattern=pattern, hashes=names)
    return Targets(frozenset(map(_encoded, names)), pattern)


def _encoded(name: str) -> bytes:
    return name.encode(errors="surrogateescape")


def _joined(namespaces: Any) -> tuple[str, ...] | None:
    """Return namespaces of the store as texts, their parts joined by dots; None if they are not lists of texts."""
    if not is_list(namespaces):
        return None
    found = []
    for each in namespaces:
        parts = names([each] if isinstance(each, str) else each)
        if parts is None:
            return None
        found.append(".".join(parts))
    return tuple(found)
