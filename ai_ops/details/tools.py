"""Panels of a server's tools and their differences from the approved tools, and the page of a tool."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any

from django.db.models import Case, Q, When
from django.template import Context
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from nautobot.apps.ui import (
    ObjectDetailContent,
    ObjectsTablePanel,
    Panel,
    SectionChoices,
)
from nautobot.apps.views import get_obj_from_context

from ai_ops.choices import MCPServerStatus, MCPToolStateChoices
from ai_ops.config import AiOpsSettings
from ai_ops.mcp.tool_collisions import names_for_agents
from ai_ops.models import MCPServer
from ai_ops.models.tools import MCPServerTool, MCPServerToolSet
from ai_ops.runs.permissions import may
from ai_ops.tables import MCPServerToolTable, tool_badge
from ai_ops.ui.panels import FactsPanel, FieldsPanel
from ai_ops.ui.time_markup import ago

VIEW_TOOLS = ("ai_ops.view_mcpservertool", "ai_ops.view_mcpservertoolset")

# The time of a comparison grows faster than the text. The tools of a hostile server must not delay a page.
MAX_COMPARED_LINES = 400

# Number of differences on a server's page. The page of each tool has its own.
MAX_DIFFERENCES = 10

# Number of names on a server's page that differ for agents.
MAX_NAMES = 20

REMARK = "…"
LINE_CLASSES = {"+": "bg-success-subtle", "-": "bg-danger-subtle", REMARK: "text-secondary"}


def _tool_set(context: Context) -> MCPServerToolSet | None:
    return getattr(get_obj_from_context(context), "tool_set", None)


class ToolSetPanel(FactsPanel):
    """The times of listing and approval of the tools, in words."""

    def should_render(self, context: Context) -> bool:
        """Hide the panel for a server that was never asked, without computing its data."""
        return Panel.should_render(self, context) and _tool_set(context) is not None

    def get_data(self, context: Context) -> dict[str, Any]:
        """Return the known facts, by label."""
        found = _tool_set(context)
        states = list(MCPServerTool.objects.filter(server=found.server).values_list("state", flat=True))
        counts = [(states.count(state), label) for state, label in MCPToolStateChoices.CHOICES]
        return {
            "Tools": ", ".join(f"{count} {label.lower()}" for count, label in counts if count) or "none",
            "Last listed": found.listed,
            "Could not be listed": format_html("{} {}", found.reason, ago(found.asked)) if found.reason else None,
            "Answer": found.message or None,
            "Approved": found.approved,
            "Approved by": (found.approved_by or "the first list, approved automatically") if found.approved else None,
            "Approved changes": found.approved_changes,
            "Agents see": _seen_by_agents(found.server),
        }


def _seen_by_agents(server: MCPServer) -> SafeString | None:
    """Return the tools that agents see under another name, because other servers have tools of the same name."""
    others = sorted(names_for_agents(server, always=AiOpsSettings.load().prefix_tool_names).items())
    if not others:
        return None
    lines = format_html_join(mark_safe("<br>"), "{} as {}", others[:MAX_NAMES])
    more = len(others) - MAX_NAMES
    return format_html("{}<br>and {} more", lines, more) if more > 0 else lines


class ToolDriftPanel(Panel):
    """The differences from the approved tools, and the button that approves them."""

    body_content_template_path = "ai_ops/tool_drift.html"

    def should_render(self, context: Context) -> bool:
        """Show the panel if there is a difference."""
        found = _tool_set(context)
        return super().should_render(context) and found is not None and found.drifted

    def get_extra_context(self, context: Context) -> dict[str, Any]:
        """Add the permitted decisions and the differences, those that wait for a decision first."""
        found, user = _tool_set(context), context["request"].user
        differing = MCPServerTool.objects.filter(server=found.server).exclude(state=MCPToolStateChoices.APPROVED)
        decided = Q(state=MCPToolStateChoices.REJECTED)
        tools = list(differing.order_by(Case(When(decided, then=1), default=0), "name")[: MAX_DIFFERENCES + 1])
        may_approve = may(user, "approve", found)
        withdrawn = found.server.status.name == MCPServerStatus.VULNERABLE
        return {
            **super().get_extra_context(context),
            "tool_set": found,
            "differences": [(tool, tool_badge(tool), difference(tool)) for tool in tools[:MAX_DIFFERENCES]],
            "there_are_more": len(tools) > MAX_DIFFERENCES,
            "may_approve": may_approve,
            "undecided": differing.exclude(decided).count() if may_approve else 0,
            "may_withdraw": not withdrawn and may(user, "change", found.server),
        }


def difference(tool: MCPServerTool) -> SafeString:
    """Return the line difference between the listed and the approved definition, as escaped HTML."""
    if tool.state == MCPToolStateChoices.APPROVED:
        return _lines((" ", line) for line in tool.definition.split("\n"))
    old = tool.approved_definition.split("\n") if tool.approved_definition else []
    new = tool.definition.split("\n") if tool.definition else []
    if old == new:
        return _lines([(REMARK, "They differ in a part that is too long to be stored.")])
    return _lines(_compared(old, new))


def _compared(old: list[str], new: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the lines with a sign: "+" for new, "-" for old, a space for both, REMARK for omitted lines."""
    a, b = old[:MAX_COMPARED_LINES], new[:MAX_COMPARED_LINES]
    shown_to = 0
    for group in difflib.SequenceMatcher(None, a, b).get_grouped_opcodes():
        if group[0][1] > shown_to:
            yield REMARK, ""
        for what, old_from, old_to, new_from, new_to in group:
            if what == "equal":
                yield from ((" ", line) for line in a[old_from:old_to])
            else:
                yield from (("-", line) for line in a[old_from:old_to])
                yield from (("+", line) for line in b[new_from:new_to])
        shown_to = group[-1][2]
    if shown_to < len(a):
        yield REMARK, ""
    if max(len(old), len(new)) > MAX_COMPARED_LINES:
        yield REMARK, f"Lines after the first {MAX_COMPARED_LINES} are not compared."


def _lines(lines: Iterable[tuple[str, str]]) -> SafeString:
    spans = format_html_join(
        "", '<span class="d-block {}">{} {}</span>', ((LINE_CLASSES.get(sign, ""), sign, line) for sign, line in lines)
    )
    return format_html('<pre class="mb-0" style="white-space: pre-wrap; overflow-wrap: anywhere">{}</pre>', spans)


TOOL_PANELS = (
    ToolSetPanel(
        weight=160,
        section=SectionChoices.LEFT_HALF,
        label="Tools",
        required_permissions=VIEW_TOOLS,
        hide_if_unset=("Last listed", "Could not be listed", "Answer", "Approved", "Approved by", "Agents see"),
    ),
    ToolDriftPanel(
        weight=100,
        section=SectionChoices.FULL_WIDTH,
        label="Tools that differ from the approved ones",
        css_class="warning",
        required_permissions=VIEW_TOOLS,
    ),
    ObjectsTablePanel(
        weight=550,
        section=SectionChoices.FULL_WIDTH,
        table_class=MCPServerToolTable,
        table_filter="server",
        table_title="Tools",
        exclude_columns=("server",),
        order_by_fields=("name",),
        max_display_count=20,
        add_button_route=None,
        required_permissions=VIEW_TOOLS,
    ),
)


class ToolFieldsPanel(FieldsPanel):
    """The fields of a tool."""

    def render_value(self, key: str, value: Any, context: Context) -> Any:
        """Show the state in its colour, and shorten hashes."""
        if key == "state":
            return tool_badge(get_obj_from_context(context))
        if key in ("hash", "approved_hash") and value:
            return format_html('<code style="overflow-wrap: anywhere">{}</code>', value)
        return super().render_value(key, value, context)


class ToolDefinitionPanel(Panel):
    """The listed definition of a tool, or its difference from the approved one."""

    def render_body_content(self, context: Context) -> SafeString:
        """Return the lines."""
        return difference(get_obj_from_context(context))


class ToolDecisionPanel(Panel):
    """The buttons to approve or reject a tool on its page."""

    body_content_template_path = "ai_ops/inc/tool_decision.html"

    def should_render(self, context: Context) -> bool:
        """Show the buttons to users with the permission, if the tool needs a decision."""
        tool, user = get_obj_from_context(context), context["request"].user
        if not super().should_render(context) or tool.state == MCPToolStateChoices.APPROVED:
            return False
        tool_set = MCPServerToolSet.objects.filter(server=tool.server_id).first()
        return tool_set is not None and may(user, "approve", tool_set)

    def get_extra_context(self, context: Context) -> dict[str, Any]:
        """Add the tool."""
        return {**super().get_extra_context(context), "tool": get_obj_from_context(context)}


TOOL_DETAIL = ObjectDetailContent(
    panels=(
        ToolFieldsPanel(
            weight=100,
            section=SectionChoices.LEFT_HALF,
            fields=(
                "server",
                "name",
                "state",
                "since",
                "first_seen",
                "rejected",
                "rejected_by",
                "hash",
                "approved_hash",
            ),
            hide_if_unset=("rejected", "rejected_by"),
        ),
        ToolDecisionPanel(weight=50, section=SectionChoices.LEFT_HALF, label="Decide"),
        ToolDefinitionPanel(weight=100, section=SectionChoices.RIGHT_HALF, label="Description and input schema"),
    ),
)
