"""Pages of MCP servers and of the history of their checks."""

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.shortcuts import get_object_or_404, redirect
from django.utils.html import format_html
from nautobot.apps.views import (
    NautobotUIViewSet,
    ObjectListViewMixin,
)
from nautobot.extras.models import JobResult
from rest_framework.decorators import action

from ai_ops import filters, forms, tables
from ai_ops.api import serializers
from ai_ops.details.servers import MCP_SERVER_DETAIL
from ai_ops.exceptions import RunNotPermittedError, RunRefusedError, ToolApprovalError
from ai_ops.mcp.history import problems_first, with_uptime
from ai_ops.mcp.on_demand import request_check
from ai_ops.mcp.tool_approval import approve, withdraw
from ai_ops.models import (
    MCPServer,
    MCPServerCheck,
    MCPServerToolSet,
)
from ai_ops.runs.approvals import schedule_of
from ai_ops.runs.permissions import confirm_may
from ai_ops.views.long_names import LongNamesMixin


class MCPServerUIViewSet(LongNamesMixin, NautobotUIViewSet):
    """List, detail, edit, delete, bulk actions and import of MCP servers, and the check on demand."""

    queryset = MCPServer.objects.all()
    serializer_class = serializers.MCPServerSerializer
    filterset_class = filters.MCPServerFilterSet
    filterset_form_class = forms.MCPServerFilterForm
    form_class = forms.MCPServerForm
    bulk_update_form_class = forms.MCPServerBulkEditForm
    table_class = tables.MCPServerTable
    object_detail_content = MCP_SERVER_DETAIL

    def get_queryset(self):
        """Add the columns and the order that only lists need: uptimes, and problems first."""
        queryset = super().get_queryset()
        return problems_first(with_uptime(queryset)) if self.action in ("list", "bulk_update") else queryset

    @action(
        detail=True,
        # After a login the request becomes a GET, which requests nothing.
        methods=["get", "post"],
        custom_view_base_action="view",
        custom_view_additional_permissions=["extras.run_job"],
    )
    def check(self, request, *args, **kwargs):
        """Check this server now; its page shows the result."""
        server = self.get_object()
        if request.method != "POST":
            return redirect(server)
        try:
            run = request_check(server, request.user)
        except RunNotPermittedError as refusal:
            raise PermissionDenied(str(refusal)) from refusal
        except RunRefusedError as refusal:
            messages.warning(request, str(refusal))
            return redirect(server)
        if schedule := schedule_of(run):
            messages.info(
                request,
                format_html(
                    'The check of {} waits for <a href="{}">approval</a>.', server, schedule.get_absolute_url()
                ),
            )
            return redirect(server)
        sentence = f"The check of {server} has been requested."
        if JobResult.objects.check_perms(request.user, instance=run.job_result):
            address = run.job_result.get_absolute_url()
            sentence = format_html('The <a href="{}">check</a> of {} has been requested.', address, server)
        messages.success(request, sentence)
        return redirect(server)

    @action(
        detail=True,
        methods=["get", "post"],
        url_path="approve-tools",
        url_name="approve_tools",
        custom_view_base_action="view",
        custom_view_additional_permissions=["ai_ops.view_mcpservertoolset", "ai_ops.approve_mcpservertoolset"],
    )
    def approve_tools(self, request, *args, **kwargs):
        """Approve the tools that this user has reviewed."""
        server = self.get_object()
        if request.method != "POST":
            return redirect(server)
        tool_set = get_object_or_404(MCPServerToolSet.objects.restrict(request.user, "view"), server=server)
        confirm_may(request.user, "approve", tool_set)
        try:
            changes = approve(tool_set, request.user, request.POST.get("listed_hash", ""))
            messages.success(request, f"The tools of {server} have been approved. {changes}")
        except ToolApprovalError as refusal:
            messages.warning(request, str(refusal))
        return redirect(server)

    @action(
        detail=True,
        methods=["get", "post"],
        url_path="set-vulnerable",
        url_name="set_vulnerable",
        custom_view_base_action="view",
        custom_view_additional_permissions=["ai_ops.change_mcpserver"],
    )
    def set_vulnerable(self, request, *args, **kwargs):
        """Give the server the status Vulnerable: agents stop using it, and checks skip it."""
        server = self.get_object()
        confirm_may(request.user, "change", server)
        if request.method == "POST":
            withdraw(server)
            messages.success(request, f"{server} is Vulnerable now: agents do not use it until it gets another status.")
        return redirect(server)


class MCPServerCheckUIViewSet(ObjectListViewMixin):
    """The history of checks, with filters and export."""

    queryset = MCPServerCheck.objects.all()
    serializer_class = serializers.MCPServerCheckSerializer
    filterset_class = filters.MCPServerCheckFilterSet
    filterset_form_class = forms.MCPServerCheckFilterForm
    table_class = tables.MCPServerCheckTable
    action_buttons = ("export",)
