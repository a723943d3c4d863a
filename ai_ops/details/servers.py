"""The page of an MCP server: its panels."""

from django.utils.html import format_html
from nautobot.apps.ui import (
    LayoutChoices,
    ObjectDetailContent,
    SectionChoices,
)
from nautobot.apps.views import get_obj_from_context

from ai_ops.details.health import HEALTH_PANELS
from ai_ops.details.server_banner import ServerBannerPanel
from ai_ops.details.server_buttons import CHECK_NOW
from ai_ops.details.server_charts import SERVER_CHARTS
from ai_ops.details.tools import TOOL_PANELS
from ai_ops.ui.panels import FactsPanel, FieldsPanel


class AddressesPanel(FactsPanel):
    """The full addresses that agents and health checks use."""

    def should_render(self, context):
        """Hide the panel for a server without addresses."""
        return super().should_render(context) and bool(get_obj_from_context(context).url)

    def get_data(self, context):
        """Return the addresses by their names."""
        server = get_obj_from_context(context)
        return {"MCP address": server.mcp_url, "Health check address": server.health_check_url}

    def render_value(self, key, value, context):
        """Show an address as text, not as a link, because neither is meant for a browser."""
        return format_html("<code>{}</code>", value)


# In the order of an operator's questions: the answer, charts, history, tools, and the settings last.
MCP_SERVER_DETAIL = ObjectDetailContent(
    layout=LayoutChoices.ONE_OVER_TWO,
    panels=(
        ServerBannerPanel(weight=10, section=SectionChoices.FULL_WIDTH),
        FieldsPanel(
            weight=900,
            section=SectionChoices.LEFT_HALF,
            fields=("name", "status", "protocol", "url", "mcp_endpoint", "health_check", "mcp_type", "description"),
        ),
        AddressesPanel(weight=900, section=SectionChoices.RIGHT_HALF, label="Addresses"),
        FieldsPanel(
            weight=910,
            section=SectionChoices.RIGHT_HALF,
            label="Probing",
            fields=("probe", "check_interval", "verify_tls", "ca_file", "secrets_group"),
        ),
        *HEALTH_PANELS,
        *SERVER_CHARTS,
        *TOOL_PANELS,
    ),
    extra_buttons=(CHECK_NOW,),
)
