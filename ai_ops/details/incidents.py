"""The page of an incident."""

from __future__ import annotations

from typing import Any

from django.template import Context
from django.utils.html import format_html
from nautobot.apps.ui import (
    ButtonColorChoices,
    ObjectDetailContent,
    ObjectsTablePanel,
    PostButton,
    SectionChoices,
)
from nautobot.apps.views import get_obj_from_context

from ai_ops.runs.permissions import may
from ai_ops.tables import (
    MCPServerTable,
)
from ai_ops.ui.panels import FieldsPanel


class AcknowledgeButton(PostButton):
    """Acknowledge the incident."""

    def should_render(self, context: Context) -> bool:
        """Show the button while the incident can be acknowledged."""
        incident = get_obj_from_context(context)
        wanted = super().should_render(context) and not incident.closed and not incident.acknowledged
        return wanted and may(context["request"].user, "acknowledge", incident)


class IncidentFieldsPanel(FieldsPanel):
    """The fields of an incident."""

    def render_value(self, key: str, value: Any, context: Context) -> Any:
        """Keep the line breaks of the message."""
        if key == "message":
            return format_html('<span style="white-space: pre-line">{}</span>', value)
        return super().render_value(key, value, context)


INCIDENT_DETAIL = ObjectDetailContent(
    panels=(
        IncidentFieldsPanel(
            weight=100,
            section=SectionChoices.LEFT_HALF,
            fields=(
                "name",
                "kind",
                "reason",
                "message",
                "opened",
                "closed",
                "duration",
                "acknowledged",
                "acknowledged_by",
                "escalated",
            ),
        ),
        ObjectsTablePanel(
            weight=100,
            section=SectionChoices.RIGHT_HALF,
            table_class=MCPServerTable,
            table_filter="incidents",
            table_title="Servers",
            # "Since" is computed only for lists of servers.
            exclude_columns=(
                "since",
                "message",
                "latency",
                "uptime_24h",
                "flapping",
                "url",
                "description",
                "tags",
                "actions",
            ),
            enable_related_link=False,
            add_button_route=None,
        ),
    ),
    extra_buttons=(
        AcknowledgeButton(
            weight=100,
            label="Acknowledge",
            icon="mdi-hand-back-right",
            color=ButtonColorChoices.BLUE,
            link_name="plugins:ai_ops:mcpserverincident_acknowledge",
        ),
    ),
)
