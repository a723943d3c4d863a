"""Execution of a task as a run: recorded, under an exclusive lease, with heartbeats, and with one final state."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from django.db import DatabaseError, InterfaceError

from ai_ops.choices import RunStateChoices, RunTriggerChoices
from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import ConfigurationError, LeaseLostError, LeaseTakenError, RunStoppedError
from ai_ops.models.runs import MaintenanceRun
from ai_ops.runs import lease as leases
from ai_ops.runs import records, transitions
from ai_ops.runs.context import RunRequest, current_request, requested_by
from ai_ops.runs.database_outages import connections_checked_after_pauses, retry_on_new_connection, retry_write
from ai_ops.runs.hold import Hold
from ai_ops.runs.infrastructure import BACKEND_ERRORS, backend_sentence, is_passing
from ai_ops.runs.lease_keeper import Keeper
from ai_ops.runs.logs import get_logger
from ai_ops.runs.shutdown import is_worker_stopping, sigterm_held_back
from ai_ops.runs.time_limit import StoppedByTimeLimitError, limit_of
from ai_ops.runs.tracing import run_span

logger = get_logger(__name__)

Report = dict[str, Any]

# The error of work that does not report its result.
STOPPED = "The Job reached its time limit or was stopped; the work done stays, and the next run continues."


def run_as(
    kind: str,
    options: Mapping[str, Any],
    work: Callable[[Hold], Report],
    empty_report: Callable[[str | None], Report],
    *,
    subject: str = "",
    lease_name: str | None = None,
) -> Report:
    """Do `work` as a run of this kind, or skip it while another run holds the lease.

    Args:
        kind: One of `ai_ops.choices.MaintenanceKindChoices`.
        options: Options for the record; ids and plain values.
        work: The work; it calls `confirm` between batches and `lock` in its transactions.
        empty_report: Returns the report of a run without work, with or without an error.
        subject: The part of the kind's work, for a run of a part.
        lease_name: Name of the lease; by default kind and subject.

    Returns:
        The report of `work` or of `empty_report`, with `errors`, a list of sentences, and `run`: `id`, `name`, `state`
        and `attempt` of the record, and `note`, the reason why it was skipped, will be retried or could not be
        recorded; None without such a reason.

    Raises:
        SoftTimeLimitExceeded: The Job reached its time limit; the run is interrupted.
        Exception: An error raised by `work`; the run has failed.
    """
    request = current_request()
    run = _Run(kind, options, empty_report, subject, lease_name or _lease_name(kind, subject), request)
    try:
        refusal = run.acquire() or run.begin()
    except BACKEND_ERRORS as error:
        return with_errors(empty_report(backend_sentence(error))) | {"run": None}
    return with_errors(refusal if refusal is not None else run.carry_out(work))


def with_errors(report: Report) -> Report:
    """Return `report` with `errors`: its own list, or a list of its one error."""
    return report if "errors" in report else report | {"errors": records.errors_of(report)}


def _read_settings() -> AiOpsSettings | ConfigurationError:
    """Read the settings once for the whole run; return the error if they are not usable."""
    try:
        return AiOpsSettings.load()
    except ConfigurationError as error:
        return error


def _lease_name(kind: str, subject: str) -> str:
    return f"{kind} {subject}" if subject else kind


class _Run:
    """One attempt of a run: acquire, begin, carry out (work, end, release), in this order."""

    def __init__(
        self,
        kind: str,
        options: Mapping[str, Any],
        empty_report: Callable[[str | None], Report],
        subject: str,
        lease_name: str,
        request: RunRequest,
    ) -> None:
        self._empty_report = empty_report
        self._lease_name = lease_name
        self._request = request
        self._given_settings = given = _read_settings()
        # The work reports invalid settings.
        self._settings = given if isinstance(given, AiOpsSettings) else AiOpsSettings()
        self._note: str | None = None
        self._known: MaintenanceRun | None = None
        self._record = records.new_record(
            kind, subject, options, request, attempt=1, max_attempts=self._settings.max_attempts
        )
        self._recorded = False

    def acquire(self) -> Report | None:
        """Acquire the lease; return a report if there is no work."""
        if self._is_over(records.find_record(self._record.kind, self._request)):
            return self._delivered_again()
        try:
            self._lease = leases.acquire(
                self._lease_name, records.this_process(), self._record.pk, self._settings.lease_seconds
            )
        except LeaseTakenError as taken:
            return self._skipped(str(taken))
        if self._known is None and self._is_over(records.find_duplicate(self._record.kind, self._request)):
            self._lease.release()
            return self._delivered_again()
        return None

    def begin(self) -> Report | None:
        """Record the start of the attempt; return a report if another process has started it."""
        if self._known is None:
            self._note = transitions.start_new(self._record, self._lease.fence, self._lease.acquired)
            self._recorded = self._note is None
        elif not transitions.start(self._record, self._lease.fence, self._request):
            self._lease.release()
            return self._without_work(f"{self._record} was started by another process.")
        return None

    def carry_out(self, work: Callable[[Hold], Report]) -> Report:
        """Work under the lease, record the end, and release the lease."""
        with run_span(self._record):
            return self._carried_out(work)

    def _carried_out(self, work: Callable[[Hold], Report]) -> Report:
        started = time.monotonic()
        part = RunRequest(
            RunTriggerChoices.PART, self._request.owner, self._request.job_result, parent_id=self._record_id
        )
        with ExitStack() as stack:
            self._signal = signal = stack.enter_context(sigterm_held_back())
            stack.enter_context(connections_checked_after_pauses())
            stack.enter_context(self._released())
            keeper = stack.enter_context(
                Keeper(
                    self._lease,
                    self._record_id,
                    signal.is_set,
                    self._time_limit,
                    self._request,
                    settings=self._given_settings,
                )
            )
            stack.enter_context(requested_by(part))
            report, state = self._worked(work, keeper, started)
            self._end(state, keeper, started, report)
        return report | {"run": self._as_dict()}

    def _worked(self, work: Callable[[Hold], Report], keeper: Keeper, started: float) -> tuple[Report, str]:
        """Do the work; return its report and the final state of the run."""
        try:
            report = work(keeper)
        except (LeaseLostError, RunStoppedError) as error:
            keeper.trouble(error)
            report = self._empty_report(str(error))
        except (SoftTimeLimitExceeded, KeyboardInterrupt, SystemExit) as stop:
            done = stop.report if isinstance(stop, StoppedByTimeLimitError) else self._empty_report(STOPPED)
            self._end(RunStateChoices.INTERRUPTED, keeper, started, done)
            raise
        except Exception as error:
            keeper.trouble(error)
            self._end(RunStateChoices.FAILED, keeper, started, self._empty_report(f"{type(error).__name__}: {error}"))
            raise
        if any(isinstance(error, RunStoppedError) for error in keeper.troubles):
            return report, RunStateChoices.INTERRUPTED
        return report, RunStateChoices.SUCCEEDED if report.get("error") is None else RunStateChoices.FAILED

    def _end(self, state: str, keeper: Keeper, started: float, report: Report) -> None:
        """Record the end. If this fails, the result of the work does not change."""
        if not self._recorded:
            return
        fields = {
            "execution_time_ms": round((time.monotonic() - started) * 1000),
            "counters": records.counters_of(report),
            "errors": records.errors_of(report),
            "progress": "",
        }
        error = str(report.get("error") or "")
        failed = state == RunStateChoices.FAILED and any(map(is_passing, keeper.troubles))
        record_end = transitions.end_failed_attempt if failed else transitions.end_attempt
        try:
            note = retry_write(
                lambda: record_end(self._record, state, error, **fields),
                lambda: is_worker_stopping() or self._signal.is_set(),
            )
            self._note = note or self._note
        except (DatabaseError, InterfaceError) as failure:
            self._note = f"The end of this run could not be recorded ({str(failure).strip()})."
            logger.error("%s", self._note, extra={"grouping": "run"})

    @contextmanager
    def _released(self) -> Iterator[None]:
        """Release the lease. If that fails, the lease expires by itself."""
        try:
            yield
        finally:
            try:
                retry_on_new_connection(self._lease.release)
            except (DatabaseError, InterfaceError) as error:
                logger.warning("The lease could not be released (%s): it expires", str(error).strip())

    def _is_over(self, known: MaintenanceRun | None) -> bool:
        """Return whether the run of this message has already ended."""
        if known is None:
            return False
        self._known = self._record = known
        self._recorded = True
        return known.is_final

    def _delivered_again(self) -> Report:
        return self._without_work(f"{self._record} was {self._record.state} before this message was delivered again.")

    def _skipped(self, why: str) -> Report:
        """Record the skip because another run holds the lease, unless it is the same run, delivered twice."""
        if self._known is None:
            self._recorded = transitions.skip_new(self._record, why) is None
        elif leases.holder_of(self._lease_name) != self._record.pk:
            transitions.end(self._record, RunStateChoices.SKIPPED, error=why, next_attempt=None)
        return self._without_work(why)

    def _without_work(self, why: str) -> Report:
        self._note = why
        logger.info("Skipped: %s", why, extra={"grouping": "run"})
        return self._empty_report(None) | {"run": self._as_dict() | {"state": RunStateChoices.SKIPPED}}

    @property
    def _time_limit(self) -> float | None:
        return limit_of(self._record.kind, self._request.time_limit, self._settings)

    @property
    def _record_id(self) -> uuid.UUID | None:
        return self._record.pk if self._recorded else None

    def _as_dict(self) -> dict[str, Any]:
        record: MaintenanceRun = self._record
        return {
            "id": str(record.pk) if self._recorded else None,
            "name": record.name,
            "state": record.state,
            "attempt": record.attempt,
            "note": self._note,
        }
