"""Flips: changes of status on which all checks agree, with many in a transaction.

Most of the time of a flip is Nautobot's: a full validation, and an entry in the change log with the server as in REST.
Flips in one transaction share the rest: the locks, the agents' generation, the serializer, and the insert into the
change log.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from nautobot.extras.models import Status

from ai_ops.choices import MCPServerStatus
from ai_ops.logic.batches import batches
from ai_ops.mcp import pending_alerts
from ai_ops.mcp.cache_reads import cache_read_once
from ai_ops.mcp.change_log import flush_change_events, logged_together
from ai_ops.mcp.server_check import ServerCheck, log
from ai_ops.models import AgentGeneration, MCPServer
from ai_ops.runs.hold import Hold
from ai_ops.runs.infrastructure import BACKEND_ERRORS, backend_sentence
from ai_ops.runs.job_log import lines_together

try:
    from nautobot.core.utils.cache import request_cache
except ImportError:
    # Nautobot 3.2.0 does not have it, and asks its cache each time.
    request_cache = contextlib.nullcontext

# This number of flips holds the rows, and the lock that an edit of a server needs, for about half a second.
FLIPS_AT_ONCE = 40

# A verdict on other values does not apply to the current server.
WHAT_WAS_PROBED = (
    "status_id",
    "protocol",
    "url",
    "health_check",
    "mcp_endpoint",
    "probe",
    "verify_tls",
    "ca_file",
    "secrets_group_id",
)


@dataclass(frozen=True)
class _Outcome:
    """The result of a flip: saved, refused for a reason, or not made because `row` has changed since the probe."""

    check: ServerCheck
    row: MCPServer | None
    saved: bool = False
    error: str | None = None


def flip(checks: Sequence[ServerCheck], hold: Hold) -> None:
    """Save the new status of each server, except servers that were changed since the probe.

    Each transaction has up to FLIPS_AT_ONCE servers. A server that can't be saved does not affect the others.
    """
    for some in batches(checks, FLIPS_AT_ONCE):
        _flip_together(some, hold)


def _flip_together(checks: Sequence[ServerCheck], hold: Hold) -> None:
    def untold(sentence: str) -> None:
        for check in checks:
            check.fail(sentence)

    # For each flip Nautobot would repeat eleven questions to the cache.
    with request_cache(), flush_change_events(untold):
        try:
            outcomes = _saved(checks, hold)
        except BACKEND_ERRORS as error:
            hold.trouble(error)
            why = backend_sentence(error)
            outcomes = [
                _Outcome(check, check.server, error=f"The status {check.flips_to} could not be saved. {why}")
                for check in checks
            ]
        # Record all results before logging, so that they are known if the time limit comes now.
        for outcome in outcomes:
            _note(outcome)
        with lines_together():
            for outcome in outcomes:
                _log_outcome(outcome)


def _saved(checks: Sequence[ServerCheck], hold: Hold) -> list[_Outcome]:
    """Save the flips in one transaction, with the agents' generation and the pending alerts; return the results."""
    with transaction.atomic(durable=True), logged_together(), AgentGeneration.bumped_once(), cache_read_once():
        AgentGeneration.lock()
        hold.lock()
        rows = _locked_rows(check.server.pk for check in checks)
        # With the related objects for the change log, read once instead of for each flip.
        known = Status.objects.get_for_model(MCPServer).prefetch_related("content_types")
        statuses = {status.name: status for status in known}
        outcomes = [_save(check, rows.get(check.server.pk), statuses.get(check.flips_to)) for check in checks]
        pending_alerts.owe(
            [
                each.check.report()
                for each in outcomes
                if each.saved and each.check.flips_to == MCPServerStatus.UNHEALTHY
            ]
        )
    return outcomes


def _locked_rows(pks: Iterable[Any]) -> dict[Any, MCPServer]:
    """Lock the rows of the servers until the transaction ends, and return them by primary key."""
    # Only rows of servers, because statuses are shared with other servers.
    rows = MCPServer.objects.select_for_update(of=("self",)).filter(pk__in=list(pks)).order_by("pk")
    # With the related objects for the change log.
    return {row.pk: row for row in rows.select_related("status", "secrets_group").prefetch_related("tags")}


def _save(check: ServerCheck, row: MCPServer | None, status: Status | None) -> _Outcome:
    if row is None or any(getattr(row, name) != getattr(check.server, name) for name in WHAT_WAS_PROBED):
        return _Outcome(check, row)
    if status is None:
        error = f"MCP servers have no status {check.flips_to} any more: run nautobot-server migrate to restore it."
        return _Outcome(check, row, error=error)
    row.status = status
    try:
        # The status is valid for servers, and no other field differs from the locked row. Checking both in the database
        # would take half of the time of a validation.
        row.full_clean(exclude=["status"], validate_unique=False)
        row.save(update_fields=["status", "last_updated"])
    except ValidationError as error:
        why = "; ".join(error.messages)
        return _Outcome(check, row, error=f"The status {check.flips_to} could not be saved: {why}")
    return _Outcome(check, row, saved=True)


def _note(outcome: _Outcome) -> None:
    check = outcome.check
    status_now = check.status_after
    if outcome.saved:
        status_now = check.flips_to
    elif not outcome.error:
        status_now = outcome.row.status.name if outcome.row else None
    check.conclude(outcome.saved, status_now, outcome.error)


def _log_outcome(outcome: _Outcome) -> None:
    check, server = outcome.check, outcome.check.server
    if outcome.error:
        log(logging.ERROR, "servers", "%s stays %s: %s", server, check.status_after, outcome.error, about=server)
    elif outcome.saved:
        log(
            logging.INFO if check.flips_to == MCPServerStatus.HEALTHY else logging.WARNING,
            "servers",
            "%s was %s and is now %s, as %s checks agree. %s",
            server,
            server.status.name,
            check.flips_to,
            len(check.probes),
            check.probes[-1].message,
            about=server,
        )
    elif outcome.row is None:
        log(logging.INFO, "servers", "%s was deleted during the check", server)
    else:
        log(
            logging.INFO,
            "servers",
            "%s is now %s: it was changed by someone else during the check",
            outcome.row,
            check.status_after,
            about=outcome.row,
        )
