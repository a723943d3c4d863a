"""The records of runs: create, find and save. A failure to write a record does not stop the work."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from typing import Any

from django.db import DatabaseError, InterfaceError, transaction
from django.utils import timezone
from django.utils.crypto import get_random_string

from ai_ops.choices import RunStateChoices
from ai_ops.logic.arguments import is_storable
from ai_ops.logic.foreign_text import shown
from ai_ops.models.runs import MaintenanceRun
from ai_ops.runs.context import RunRequest
from ai_ops.runs.logs import get_logger
from ai_ops.runs.names import NAME_ALPHABET, NAME_LENGTH, run_name
from ai_ops.runs.totals import count_run
from ai_ops.runs.tracing import trace_parent

logger = get_logger(__name__)

# A report may name ten thousand threads, but a record is a small row.
MAX_COUNTERS = 40
MAX_TEXT = 1000  # characters of an option; a valid one is shorter
# Maximum number of sentences. A fleet may have thousands of errors, which are in the log.
MAX_ERRORS, MAX_ERROR_LENGTH = 20, 1000


def this_process() -> str:
    """Return the host and the process id, for display."""
    return f"{socket.gethostname()}, process {os.getpid()}"


def new_record(
    kind: str, subject: str, options: Mapping[str, Any], request: RunRequest, **fields: Any
) -> MaintenanceRun:
    """Return a new, unsaved record."""
    now = timezone.now()
    return MaintenanceRun(
        name=run_name(kind, now, get_random_string(NAME_LENGTH, NAME_ALPHABET)),
        kind=kind,
        subject=subject,
        trigger=request.trigger,
        owner=request.owner,
        job_result=request.job_result,
        parent_id=request.parent_id,
        options=recordable(options),
        trace_parent=trace_parent(),
        **fields,
    )


def _is_short(value: Any) -> bool:
    if isinstance(value, int):
        return value.bit_length() <= 64  # as bigint; Python refuses to print numbers of thousands of digits
    return isinstance(value, float) or (isinstance(value, str) and len(value) <= 200)


def recordable(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a run as JSON that PostgreSQL can store.

    A script may pass any value. The run refuses those that it does not expect, and its record shows them.
    """
    return {name: value if _is_plain(value) else shown(value) for name, value in options.items()}


def _is_plain(value: Any) -> bool:
    try:
        encoded = json.dumps(value, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError):
        return False
    return "\\u0000" not in encoded and is_storable(encoded) and not (isinstance(value, str) and len(value) > MAX_TEXT)


def find_record(kind: str, request: RunRequest) -> MaintenanceRun | None:
    """Return the record created by the request or by an earlier delivery of the message; None if there is none."""
    if request.run_id:
        return MaintenanceRun.objects.filter(pk=request.run_id).first()
    if request.job_result is None or request.parent_id:
        return None
    return MaintenanceRun.objects.filter(job_result=request.job_result, kind=kind).order_by("created").first()


def find_duplicate(kind: str, request: RunRequest) -> MaintenanceRun | None:
    """Return the record of another delivery of the message that started after `find_record`; None if there is none."""
    if request.run_id or request.job_result is None or request.parent_id:
        return None
    begun = MaintenanceRun.objects.filter(job_result=request.job_result, kind=kind)
    return begun.exclude(state=RunStateChoices.SKIPPED).first()


def counters_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers and short texts of a task's report, without lists and objects, to keep the row small."""
    plain = {
        name: value.replace("\0", "") if isinstance(value, str) else value
        for name, value in report.items()
        if name not in ("error", "run") and _is_short(value)
    }
    return dict(list(plain.items())[:MAX_COUNTERS])


def errors_of(report: Mapping[str, Any]) -> list[str]:
    """Return the errors of a task's report: its list, or its single error."""
    listed = report.get("errors")
    # The incident review has a number under this name.
    errors = listed if isinstance(listed, list | tuple) else [report["error"]] if report.get("error") else []
    return [text_of(str(error))[:MAX_ERROR_LENGTH] for error in errors[:MAX_ERRORS]]


def saved(record: MaintenanceRun) -> str | None:
    """Insert `record`. If this fails, log the failure and return it as a sentence."""
    try:
        with transaction.atomic():
            record.save(force_insert=True)
            if record.is_final:
                count_run(record.kind, record.state)
    except (DatabaseError, InterfaceError) as error:
        sentence = f"The record of this run could not be written ({str(error).strip()}): the work continues without it."
        logger.error("%s", sentence, extra={"grouping": "run"})
        return sentence
    return None


def text_of(error: str) -> str:
    """Return `error` in a form that PostgreSQL can store."""
    # PostgreSQL can't store a NUL in a text, and the message of an error may contain one.
    return error.replace("\0", "\\0")
