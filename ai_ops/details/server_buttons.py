"""The buttons on the page of an MCP server."""

from nautobot.apps.ui import ButtonColorChoices, PostButton
from nautobot.apps.views import get_obj_from_context

from ai_ops.mcp.on_demand import may_run_check


class CheckNowButton(PostButton):
    """Request a check of the server; disabled, with the reason, for a server that is never checked."""

    def should_render(self, context):
        """Show the button to users who may run the Job."""
        return super().should_render(context) and may_run_check(context["request"].user)

    def get_extra_context(self, context):
        """Disable the button if no check is possible; the reason is its tooltip and the message after a click."""
        extra = super().get_extra_context(context)
        if reason := get_obj_from_context(context).why_not_checked():
            extra["color"] = ButtonColorChoices.DEFAULT
            extra["attributes"] = {"aria-disabled": "true", "title": reason, "style": "opacity: 0.65"}
        return extra


CHECK_NOW = CheckNowButton(
    weight=100,
    label="Check now",
    icon="mdi-heart-pulse",
    color=ButtonColorChoices.BLUE,
    link_name="plugins:ai_ops:mcpserver_check",
)
