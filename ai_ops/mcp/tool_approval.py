"""Tools of servers: recording of listings, and decisions of users.

The first list of a server is approved automatically (trust on first use), because there is nothing to compare it with.
It is recorded without an approver.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone
from nautobot.extras.models import Status

from ai_ops.choices import MCPServerStatus, MCPToolStateChoices
from ai_ops.exceptions import ToolApprovalError
from ai_ops.mcp.history import IDENTITY, identify
from ai_ops.mcp.http.tool_listing import Listing
from ai_ops.mcp.incidents import close_ended
from ai_ops.mcp.logic.tools import KnownTool, Tool, ToolState, set_hash
from ai_ops.mcp.logic.verdicts import Probe
from ai_ops.models import AgentGeneration, MCPServer
from ai_ops.models.health import MCPServerHealth
from ai_ops.models.tools import MCPServerTool, MCPServerToolSet

# Maximum number of tools of one kind of change in a sentence.
NAMES_TOLD = 20

# Columns of MCPServerTool that a listing writes.
_LISTED = ("state", "since", "hash", "description", "definition", "approved_definition", "rejected", "rejected_by")
# Columns of MCPServerTool that an approval writes.
_DECIDED = ("approved_hash", "approved_definition", "state", "since", "rejected", "rejected_by")


@dataclass(frozen=True)
class Recorded:
    """The changes by a listing.

    Attributes:
        tools: Number of listed tools; None if the listing failed.
        news: Changes since the previous listing, as sentences; empty without changes.
        first: Whether it is the first list.
        failed_anew: Whether it failed with another reason than the previous listing.
    """

    tools: int | None
    news: str = ""
    first: bool = False
    failed_anew: bool = False


def record_listing(server: MCPServer, listing: Listing, now: datetime) -> Recorded | None:
    """Save the result of a listing.

    Args:
        server: The server as it was at the listing.
        listing: The result of the listing.
        now: Time of the listing.

    Returns:
        The changes; None if the server was deleted or got another address meanwhile.
    """
    with transaction.atomic():
        row = _locked(server.pk)
        if row is None or row.mcp_url != server.mcp_url:
            return None
        tool_set = _tool_set(row, now)
        before = tool_set.reason
        probe = listing.probe
        _identify(row, probe)
        tool_set.asked = now
        tool_set.reason, tool_set.message = (probe.reason or "", "" if probe.ok else probe.message)
        tool_set.retry_at = now + timedelta(seconds=probe.retry_after) if probe.retry_after else None
        if listing.tools is None:
            _update(tool_set, "asked", "reason", "message", "retry_at")
            return Recorded(None, failed_anew=tool_set.reason != before)
        tool_set.listed = now
        first = tool_set.approved is None
        keep = _approve_first if first else _keep_tools
        return Recorded(len(listing.tools), keep(tool_set, listing.tools, now), first)


def approve(tool_set: MCPServerToolSet, user: Any, seen: str) -> str:
    """Approve the tools as last listed, except rejected ones, and close their incident.

    Args:
        tool_set: The tool set of the server.
        user: The approver.
        seen: The `listed_hash` of the tools that the user reviewed.

    Returns:
        The approved changes, as a sentence.

    Raises:
        ToolApprovalError: The server now lists other tools, or there is nothing to approve.
    """
    with _deciding(tool_set.server_id) as (server, row):
        undecided = MCPServerTool.objects.filter(server=server, state__in=MCPToolStateChoices.UNDECIDED)
        if not undecided.exists():
            why = "its other tools were rejected" if row.drifted else "it lists the approved tools"
            raise ToolApprovalError(f"There is nothing to approve at {server}: {why}.")
        if row.listed_hash != seen:
            raise ToolApprovalError(
                f"{server} lists other tools than those that you reviewed: review them again before you approve."
            )
        _approve_rows(row, list(undecided), user)
    tool_set.refresh_from_db()
    return row.approved_changes


def approve_tool(tool: MCPServerTool, user: Any, seen: str) -> str:
    """Approve one tool as last listed; a tool that is no longer listed is deleted.

    Args:
        tool: A tool that differs from its approved definition.
        user: The approver.
        seen: The `hash` of the definition that the user reviewed; empty for a tool that is no longer listed.

    Returns:
        The approved changes, as a sentence.

    Raises:
        ToolApprovalError: The server now lists another definition, or there is nothing to approve.
    """
    with _deciding(tool.server_id) as (_, row):
        current = _as_reviewed(tool, seen)
        if current.state == MCPToolStateChoices.APPROVED:
            raise ToolApprovalError(f"There is nothing to approve: {tool} has its approved definition.")
        _approve_rows(row, [current], user)
    return row.approved_changes


def reject_tool(tool: MCPServerTool, user: Any, seen: str) -> str:
    """Reject one tool as last listed: agents do not get it until it is approved.

    Args:
        tool: A listed tool that differs from its approved definition.
        user: The user that rejects it.
        seen: The `hash` of the definition that the user reviewed.

    Returns:
        The rejected changes, as a sentence.

    Raises:
        ToolApprovalError: The server now lists another definition, or there is nothing to reject.
    """
    with _deciding(tool.server_id) as (server, row):
        current = _as_reviewed(tool, seen)
        if current.state not in (MCPToolStateChoices.ADDED, MCPToolStateChoices.CHANGED):
            raise ToolApprovalError(f"There is nothing to reject: {tool} is {current.get_state_display().lower()}.")
        current.state, current.since = MCPToolStateChoices.REJECTED, timezone.now()
        current.rejected, current.rejected_by = current.since, user
        current.save()
        row.approved_changes = _sentences([("rejected", current.name)])
        # This adds an entry to the change log of the server, like an approval.
        row.validated_save()
        AgentGeneration.bump()
        close_ended([server.pk], current.since)
    return row.approved_changes


def withdraw(server: MCPServer) -> None:
    """Set the status of `server` to Vulnerable, without overwriting other edits."""
    with transaction.atomic():
        AgentGeneration.lock()
        row = _locked(server.pk)
        if row is not None:
            row.status = Status.objects.get_for_model(MCPServer).get(name=MCPServerStatus.VULNERABLE)
            row.validated_save()


@contextmanager
def _deciding(server_id: Any) -> Iterator[tuple[MCPServer, MCPServerToolSet]]:
    """Lock the tools of a server for a user's decision, in the order of locks of a change of the server.

    Raises:
        ToolApprovalError: The server was deleted.
    """
    with transaction.atomic():
        AgentGeneration.lock()
        server = _locked(server_id)
        row = MCPServerToolSet.objects.select_related("server").filter(server=server_id).first()
        if server is None or row is None:
            raise ToolApprovalError("There is nothing to decide: the server was deleted.")
        yield server, row


def _as_reviewed(tool: MCPServerTool, seen: str) -> MCPServerTool:
    """Return the current row of `tool` if it is the definition that the user reviewed."""
    current = MCPServerTool.objects.filter(pk=tool.pk).first()
    if current is None:
        raise ToolApprovalError(f"There is nothing to decide: {tool} is no longer listed.")
    if current.hash != seen:
        raise ToolApprovalError(f"{tool} has another definition than the one that you reviewed: review it again.")
    return current


def _approve_rows(tool_set: MCPServerToolSet, rows: Sequence[MCPServerTool], user: Any) -> None:
    """Approve these rows, record the approval, and close their incident."""
    now = timezone.now()
    tool_set.approved_changes = _sentences((_change(row), row.name) for row in rows)
    released = any(row.rejected for row in rows)
    MCPServerTool.objects.filter(pk__in=[row.pk for row in rows if not row.hash]).delete()
    kept = [row for row in rows if row.hash]
    for row in kept:
        row.approved_hash, row.approved_definition = row.hash, ""
        row.state, row.since = MCPToolStateChoices.APPROVED, now
        row.rejected = row.rejected_by = None
    MCPServerTool.objects.bulk_update(kept, _DECIDED, batch_size=200)
    approved = MCPServerTool.objects.filter(server=tool_set.server_id).exclude(approved_hash="")
    tool_set.approved_hash = set_hash(dict(approved.values_list("name", "approved_hash")))
    tool_set.approved, tool_set.approved_by = now, user
    tool_set.validated_save()
    if released:
        AgentGeneration.bump()
    close_ended([tool_set.server_id], now)


def _identify(server: MCPServer, probe: Probe) -> None:
    """Record the server's name and version, which a check of its health page does not have."""
    health = MCPServerHealth.objects.filter(server=server).first() if probe.protocol_version else None
    if health is not None:
        identify(health, probe)
        changed = {name: getattr(health, name) for name in IDENTITY}
        MCPServerHealth.objects.filter(pk=health.pk).exclude(**changed).update(**changed)


def _locked(pk: Any) -> MCPServer | None:
    """Lock and return the server, so that only one process writes its tools."""
    return MCPServer.objects.select_for_update(of=("self",), no_key=True).filter(pk=pk).first()


def _tool_set(server: MCPServer, now: datetime) -> MCPServerToolSet:
    found = MCPServerToolSet.objects.filter(server=server).first()
    if found is None:
        # Without signals, because an attempt is not a change by a user.
        (found,) = MCPServerToolSet.objects.bulk_create([MCPServerToolSet(server=server, asked=now)])
    return found


def _update(tool_set: MCPServerToolSet, *names: str) -> None:
    """Save these columns without a change log entry."""
    MCPServerToolSet.objects.filter(pk=tool_set.pk).update(**{name: getattr(tool_set, name) for name in names})


def _keep_tools(tool_set: MCPServerToolSet, listed: Sequence[Tool], now: datetime) -> str:
    """Update the rows of a server's tools to its list; return the changes."""
    tool_set.listed_hash = set_hash({tool.name: tool.hash for tool in listed})
    known = {tool.name: tool for tool in MCPServerTool.objects.filter(server=tool_set.server)}
    found = {tool.name: tool for tool in listed}
    new = [_new_row(tool_set, tool, now, "") for name, tool in found.items() if name not in known]
    differing = [row for name, row in known.items() if row.hash != (found[name].hash if name in found else "")]
    for row in differing:
        _follow(row, found.get(row.name), now)
    # A server must not give agents a rejected tool again by omitting it once.
    gone = [row for row in differing if not row.hash and not row.approved_hash and not row.rejected]
    kept = [row for row in differing if row not in gone]
    MCPServerTool.objects.bulk_create(new)
    MCPServerTool.objects.bulk_update(kept, _LISTED, batch_size=200)
    MCPServerTool.objects.filter(pk__in=[row.pk for row in gone]).delete()
    _update(tool_set, "asked", "reason", "message", "retry_at", "listed", "listed_hash")
    news = [
        ("as approved again" if row.state == ToolState.APPROVED else _change(row), row.name) for row in [*new, *kept]
    ]
    return _sentences([*news, *(("no longer added", row.name) for row in gone)])


def _approve_first(tool_set: MCPServerToolSet, listed: Sequence[Tool], now: datetime) -> str:
    MCPServerTool.objects.bulk_create([_new_row(tool_set, tool, now, tool.hash) for tool in listed])
    tool_set.listed_hash = tool_set.approved_hash = set_hash({tool.name: tool.hash for tool in listed})
    tool_set.approved = now
    tool_set.approved_changes = f"The first list of this server, {len(listed)} tool(s), was approved automatically."
    # This listing gets an entry in the change log, because later lists are compared with it.
    tool_set.validated_save()
    return tool_set.approved_changes


def _new_row(tool_set: MCPServerToolSet, tool: Tool, now: datetime, approved_hash: str) -> MCPServerTool:
    return MCPServerTool(
        server=tool_set.server,
        name=tool.name,
        state=KnownTool(tool.hash, approved_hash).state,
        since=now,
        first_seen=now,
        hash=tool.hash,
        approved_hash=approved_hash,
        description=tool.excerpt,
        definition=tool.definition,
    )


def _follow(row: MCPServerTool, tool: Tool | None, now: datetime) -> None:
    """Update a row to the listed definition; keep the approved definition too if they differ."""
    if row.hash == row.approved_hash:
        row.approved_definition = row.definition
    row.hash = tool.hash if tool else ""
    row.definition = tool.definition if tool else ""
    row.description = tool.excerpt if tool else row.description
    if row.hash == row.approved_hash:
        row.approved_definition = ""
    row.state, row.since = KnownTool(row.hash, row.approved_hash).state, now
    if not row.hash and not row.approved_hash:
        row.state = MCPToolStateChoices.REJECTED
    elif row.state == ToolState.APPROVED:
        row.rejected = row.rejected_by = None


def _change(row: MCPServerTool) -> str:
    """Return the difference between a tool and its approved definition, rejected or not."""
    return ToolState.REMOVED if not row.hash else KnownTool(row.hash, row.approved_hash).state


def _sentences(changes: Iterable[tuple[str, str]]) -> str:
    """Return the changes as sentences, such as "Changed: a, b. Removed: c."."""
    names: dict[str, list[str]] = {}
    for kind, name in changes:
        names.setdefault(str(kind), []).append(name)
    return " ".join(f"{kind.capitalize()}: {_shortened(sorted(of_kind))}." for kind, of_kind in sorted(names.items()))


def _shortened(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMES_TOLD} more" if len(names) > NAMES_TOLD else ""
    return ", ".join(names[:NAMES_TOLD]) + more
