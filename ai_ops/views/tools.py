"""Pages of the tools of MCP servers, and the decisions about one tool."""

from collections.abc import Callable

from django.contrib import messages
from django.shortcuts import get_object_or_404, redirect
from nautobot.apps.views import (
    ObjectDetailViewMixin,
    ObjectListViewMixin,
)
from rest_framework.decorators import action

from ai_ops import filters, forms, tables
from ai_ops.api import serializers
from ai_ops.details.tools import TOOL_DETAIL
from ai_ops.exceptions import ToolApprovalError
from ai_ops.mcp.tool_approval import approve_tool, reject_tool
from ai_ops.models import MCPServerTool, MCPServerToolSet
from ai_ops.runs.permissions import confirm_may
from ai_ops.views.ids import ID_PATTERN
from ai_ops.views.long_names import LongNamesMixin

# A decision about a tool needs the same permissions as one about all tools of its server.
DECIDE = ["ai_ops.view_mcpservertoolset", "ai_ops.approve_mcpservertoolset"]


class MCPServerToolUIViewSet(LongNamesMixin, ObjectDetailViewMixin, ObjectListViewMixin):
    """List and detail of tools, and the decisions of users. Health checks write the tools."""

    queryset = MCPServerTool.objects.select_related("server")
    serializer_class = serializers.MCPServerToolSerializer
    filterset_class = filters.MCPServerToolFilterSet
    filterset_form_class = forms.MCPServerToolFilterForm
    table_class = tables.MCPServerToolTable
    action_buttons = ("export",)
    object_detail_content = TOOL_DETAIL
    lookup_value_regex = ID_PATTERN

    @action(
        detail=True,
        # After a login the request becomes a GET, which decides nothing.
        methods=["get", "post"],
        custom_view_base_action="view",
        custom_view_additional_permissions=DECIDE,
    )
    def approve(self, request, *args, **kwargs):
        """Approve the tool as this user reviewed it."""
        return self._decide(approve_tool)

    @action(
        detail=True,
        methods=["get", "post"],
        custom_view_base_action="view",
        custom_view_additional_permissions=DECIDE,
    )
    def reject(self, request, *args, **kwargs):
        """Reject the tool as this user reviewed it."""
        return self._decide(reject_tool)

    def _decide(self, decide: Callable[..., str]):
        tool, request = self.get_object(), self.request
        if request.method != "POST":
            return redirect(tool)
        tool_set = get_object_or_404(MCPServerToolSet.objects.restrict(request.user, "view"), server=tool.server_id)
        confirm_may(request.user, "approve", tool_set)
        try:
            messages.success(request, decide(tool, request.user, request.POST.get("hash", "")))
        except ToolApprovalError as refusal:
            messages.warning(request, str(refusal))
        return redirect(tool.server)
