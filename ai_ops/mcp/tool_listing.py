"""Listings of the tools of servers that passed their check, after the check and without effect on its verdict.

As in `ai_ops.mcp.check`, threads do only HTTP, and the calling thread uses the database and the log.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence
from datetime import datetime

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from ai_ops.choices import MCPProtocolChoices, MCPServerStatus
from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import CredentialsError
from ai_ops.mcp.check import prober_of, target_of
from ai_ops.mcp.due import CLOCK_TOLERANCE, LONGEST_RETRY
from ai_ops.mcp.http.prober import Listing, Prober, unasked
from ai_ops.mcp.incidents import close_ended, open_drifts, open_unlisted
from ai_ops.mcp.logic.tools import is_due
from ai_ops.mcp.tool_approval import Recorded, record_listing
from ai_ops.models import AgentGeneration, MCPServer
from ai_ops.runs.hold import Hold
from ai_ops.runs.infrastructure import BACKEND_ERRORS, backend_sentence
from ai_ops.runs.job_log import lines_together
from ai_ops.runs.logs import get_logger
from ai_ops.runs.tracing import phase

logger = get_logger(__name__)

# Seconds of a run's half hour. Slow listings must not prevent checks. The next run lists the rest.
LISTING_SECONDS = 300.0

# Number of servers to list before saving: the number that is asked at the same time, so that slow servers wait
# together.
CHUNK = 200


@phase("tools")
def list_tools(server_ids: Collection[str], hold: Hold, *, always: bool = False) -> str | None:
    """List the tools of the due servers among these, and save the results.

    Args:
        server_ids: Servers that passed their check.
        hold: The hold of the run.
        always: Whether a user requested the listing, so that all servers are due.

    Returns:
        The reason why lists could not be saved, as a sentence; None if they were saved. Failures of servers are in the
        log and in their tool sets.

    Raises:
        SoftTimeLimitExceeded: The Job reached its time limit. Completed listings are saved.
        LeaseLostError: Another run has taken over; this run writes nothing more.
        RunStoppedError: The run was stopped.
    """
    settings = hold.settings
    if not settings.tool_check_interval_minutes or not server_ids:
        return None
    now = timezone.now()
    try:
        due = _due(server_ids, now, 0 if always else 60 * settings.tool_check_interval_minutes)
        if due:
            _list_in_chunks(due, settings, hold)
    except BACKEND_ERRORS as error:
        hold.trouble(error)
        sentence = f"The tools of servers could not be saved. {backend_sentence(error)}"
        _log(logging.ERROR, "%s", sentence)
        return sentence
    return None


def _due(server_ids: Collection[str], now: datetime, interval: float) -> list[MCPServer]:
    """Return the servers whose listing is due, the longest overdue first. With an `interval` of 0 all are due."""
    servers = (
        MCPServer.objects.filter(pk__in=server_ids, protocol=MCPProtocolChoices.HTTP)
        .exclude(status__name=MCPServerStatus.VULNERABLE)
        .exclude(
            tool_set__retry_at__gt=now,
            tool_set__retry_at__lte=now + LONGEST_RETRY,
            tool_set__asked__lte=now + CLOCK_TOLERANCE,
        )
        .annotate(tools_asked=F("tool_set__asked"))
        .select_related("secrets_group")
        .order_by(F("tools_asked").asc(nulls_first=True), "pk")
    )
    if not interval:
        return list(servers)
    return [
        server
        for server in servers
        if is_due(server.tools_asked and server.tools_asked.timestamp(), now.timestamp(), interval, server.pk)
    ]


def _list_in_chunks(due: Sequence[MCPServer], settings: AiOpsSettings, hold: Hold) -> None:
    """List and save in chunks of servers, until all are done or the time limit is reached."""
    ends = time.monotonic() + LISTING_SECONDS
    listed = failed = 0
    with prober_of(settings) as prober:
        for first in range(0, len(due), CHUNK):
            if time.monotonic() > ends:
                _log(logging.WARNING, "%s server(s) wait for the next run to list their tools", len(due) - first)
                break
            chunk = due[first : first + CHUNK]
            hold.confirm()
            hold.progress(f"Tools of {first} of {len(due)} server(s) listed")
            listings = _listings(chunk, prober, settings.ca_file)
            with lines_together():
                kept = [_keep(*each, hold) for each in listings]
            listed += sum(each is not None and each.tools is not None for each in kept)
            failed += sum(each is not None and each.tools is None for each in kept)
            with transaction.atomic():
                # The second of two shards sees the incidents of the first.
                AgentGeneration.lock()
                hold.lock()
                close_ended([server.pk for server in chunk], timezone.now())
                open_drifts(timezone.now(), settings)
                open_unlisted(timezone.now(), settings)
    _log(logging.INFO, "Tools listed: %s server(s), %s without a list", listed, failed)


def _listings(servers: Sequence[MCPServer], prober: Prober, ca_file: str) -> list[tuple[MCPServer, Listing]]:
    """List the tools of `servers` in threads. Secrets are read on this thread, which may use the database."""
    found: list[tuple[MCPServer, Listing]] = []
    asked, targets = [], []
    for server in servers:
        try:
            targets.append(target_of(server, ca_file))
            asked.append(server)
        except CredentialsError as error:
            found.append((server, Listing(unasked(str(error), "correct the secrets group or its secrets"))))
    with prober.listing(targets) as listings:
        found += ((asked[number], listing) for number, listing in listings)
    return found


def _keep(server: MCPServer, listing: Listing, hold: Hold) -> Recorded | None:
    """Save a listing, and log its changes."""
    with transaction.atomic():
        hold.lock()
        recorded = record_listing(server, listing, timezone.now())
    if recorded is None:
        _log(logging.INFO, "%s was deleted or moved while its tools were listed", server)
    elif recorded.news:
        level = logging.INFO if recorded.first else logging.WARNING
        _log(level, "Tools of %s. %s", server, recorded.news, about=server)
    elif recorded.failed_anew:
        _log(logging.WARNING, "Tools of %s could not be listed. %s", server, listing.probe.message, about=server)
    return recorded


def _log(level: int, message: str, *args: object, about: MCPServer | None = None) -> None:
    logger.log(level, message, *args, extra={"grouping": "tools", "object": about}, stacklevel=2)
