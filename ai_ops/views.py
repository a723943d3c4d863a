"""Pages of AI Ops."""

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.html import format_html
from nautobot.apps.ui import Titles
from nautobot.apps.utils import is_uuid
from nautobot.apps.views import (
    GenericView,
    NautobotUIViewSet,
    ObjectBulkDestroyViewMixin,
    ObjectChangeLogViewMixin,
    ObjectDestroyViewMixin,
    ObjectDetailViewMixin,
    ObjectEditViewMixin,
    ObjectListViewMixin,
    ObjectNotesViewMixin,
    ObjectPermissionRequiredMixin,
)
from nautobot.extras.models import JobResult
from rest_framework.decorators import action

from ai_ops import filters, forms, tables
from ai_ops.api import serializers
from ai_ops.check_now import request_check
from ai_ops.choices import MaintenanceKindChoices, RunTriggerChoices
from ai_ops.details import MCP_SERVER_DETAIL, PINNED_THREAD_DETAIL
from ai_ops.exceptions import IncidentError, RunNotPermittedError, RunRefusedError, ToolApprovalError
from ai_ops.health_history import problems_first, with_uptime
from ai_ops.health_panels import INCIDENT_DETAIL
from ai_ops.incidents import acknowledge
from ai_ops.models import (
    CheckpointStorageSnapshot,
    MCPServer,
    MCPServerCheck,
    MCPServerIncident,
    MCPServerTool,
    MCPServerToolSet,
    PinnedThread,
)
from ai_ops.run_views import ID_PATTERN

# Nautobot looks for the view of a model in this module.
from ai_ops.run_views import DeadLettersView as DeadLettersView
from ai_ops.run_views import MaintenanceRunUIViewSet as MaintenanceRunUIViewSet
from ai_ops.runs.approvals import schedule_of
from ai_ops.runs.permissions import confirm_may
from ai_ops.runs.requests import request_run
from ai_ops.storage_page import page_context
from ai_ops.tool_panels import TOOL_DETAIL
from ai_ops.tool_sets import approve


class MCPServerUIViewSet(NautobotUIViewSet):
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
        """Give lists uptimes and problems first; nothing else needs them."""
        queryset = super().get_queryset()
        return problems_first(with_uptime(queryset)) if self.action in ("list", "bulk_update") else queryset

    @action(
        detail=True,
        # Who had to log in first comes back with a GET, which has nothing to ask for.
        methods=["get", "post"],
        custom_view_base_action="view",
        custom_view_additional_permissions=["extras.run_job"],
    )
    def check(self, request, *args, **kwargs):
        """Check this one server now, and show the run."""
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
        if not JobResult.objects.check_perms(request.user, instance=run.job_result):
            messages.success(request, f"The check of {server} has been requested.")
            return redirect(server)
        return redirect(run.job_result)

    @action(
        detail=True,
        methods=["get", "post"],
        url_path="approve-tools",
        url_name="approve_tools",
        custom_view_base_action="view",
        custom_view_additional_permissions=["ai_ops.view_mcpservertoolset", "ai_ops.approve_mcpservertoolset"],
    )
    def approve_tools(self, request, *args, **kwargs):
        """Make the tools that this user has looked at the approved ones."""
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


class PinnedThreadUIViewSet(
    ObjectDetailViewMixin,
    ObjectListViewMixin,
    ObjectEditViewMixin,
    ObjectDestroyViewMixin,
    ObjectBulkDestroyViewMixin,
    ObjectChangeLogViewMixin,
    ObjectNotesViewMixin,
):
    """List, detail, add, edit and delete pinned threads. Each pin is of one thread: nothing is edited in bulk."""

    queryset = PinnedThread.objects.all()
    serializer_class = serializers.PinnedThreadSerializer
    filterset_class = filters.PinnedThreadFilterSet
    filterset_form_class = forms.PinnedThreadFilterForm
    form_class = forms.PinnedThreadForm
    table_class = tables.PinnedThreadTable
    action_buttons = ("add", "export")
    object_detail_content = PINNED_THREAD_DETAIL


class CheckpointStorageView(ObjectPermissionRequiredMixin, GenericView):
    """What the last sampling found in the checkpoint Redis. Opening the page asks Redis nothing."""

    queryset = CheckpointStorageSnapshot.objects.all()
    view_titles = Titles(titles={"*": "Checkpoint storage"})

    def get_required_permission(self):
        """Ask for the permission to view snapshots."""
        return "ai_ops.view_checkpointstoragesnapshot"

    def get(self, request):
        """Show the page."""
        context = {"view_titles": self.get_view_titles(), **page_context(request.user)}
        return render(request, "ai_ops/checkpoint_storage.html", context)


class CheckpointStorageSampleView(CheckpointStorageView):
    """Have the storage sampled in the background; the page says when it is done."""

    def get(self, request):
        """Send back who had to log in first: there is nothing to ask for in a GET."""
        return redirect("plugins:ai_ops:checkpointstorage")

    def post(self, request):
        """Enqueue the Job."""
        try:
            run = request_run(MaintenanceKindChoices.STORAGE, user=request.user, trigger=RunTriggerChoices.JOB)
        except RunNotPermittedError as refusal:
            raise PermissionDenied(str(refusal)) from refusal
        except RunRefusedError as refusal:
            messages.warning(request, str(refusal))
            return redirect("plugins:ai_ops:checkpointstorage")
        sentence = 'The storage is being <a href="{}">sampled</a>: reload this page in a moment.'
        if schedule := schedule_of(run):
            sentence = 'The sampling waits for <a href="{}">approval</a>.'
        messages.success(request, format_html(sentence, (schedule or run.job_result).get_absolute_url()))
        return redirect("plugins:ai_ops:checkpointstorage")


class MCPServerCheckUIViewSet(ObjectListViewMixin):
    """The history of checks, to be filtered and exported."""

    queryset = MCPServerCheck.objects.all()
    serializer_class = serializers.MCPServerCheckSerializer
    filterset_class = filters.MCPServerCheckFilterSet
    filterset_form_class = forms.MCPServerCheckFilterForm
    table_class = tables.MCPServerCheckTable
    action_buttons = ("export",)


class MCPServerIncidentUIViewSet(
    ObjectDetailViewMixin,
    ObjectListViewMixin,
    ObjectDestroyViewMixin,
    ObjectBulkDestroyViewMixin,
    ObjectChangeLogViewMixin,
    ObjectNotesViewMixin,
):
    """List, detail and deletion of incidents, and their acknowledgement. Health checks open and close them."""

    queryset = MCPServerIncident.objects.select_related("acknowledged_by")
    serializer_class = serializers.MCPServerIncidentSerializer
    filterset_class = filters.MCPServerIncidentFilterSet
    filterset_form_class = forms.MCPServerIncidentFilterForm
    table_class = tables.MCPServerIncidentTable
    action_buttons = ("export",)
    object_detail_content = INCIDENT_DETAIL
    lookup_value_regex = ID_PATTERN

    def get_extra_context(self, request, instance=None):
        """Tell the list whether there is an incident that the user may acknowledge."""
        extra = super().get_extra_context(request, instance)
        if self.action == "list":
            extra["may_acknowledge"] = _acknowledgeable(request.user).exists()
        return extra

    @action(
        detail=True,
        # Who had to log in first comes back with a GET, which acknowledges nothing.
        methods=["get", "post"],
        custom_view_base_action="view",
        custom_view_additional_permissions=["ai_ops.acknowledge_mcpserverincident"],
    )
    def acknowledge(self, request, *args, **kwargs):
        """Note that this user takes care of it."""
        incident = self.get_object()
        confirm_may(request.user, "acknowledge", incident)
        if request.method == "POST":
            _acknowledge(request, incident)
        return redirect(self.get_return_url(request, incident))

    @action(
        detail=False,
        methods=["get", "post"],
        url_path="acknowledge",
        url_name="bulk_acknowledge",
        custom_view_base_action="view",
        custom_view_additional_permissions=["ai_ops.acknowledge_mcpserverincident"],
    )
    def bulk_acknowledge(self, request, *args, **kwargs):
        """Note for each ticked incident that this user takes care of it."""
        if request.method == "POST":
            ticked = [each for each in request.POST.getlist("pk") if is_uuid(each)]
            incidents = _acknowledgeable(request.user).filter(pk__in=ticked)
            if ticked and not incidents:
                raise PermissionDenied("You may not acknowledge these incidents, or they are gone.")
            if not incidents:
                messages.warning(request, "Nothing was acknowledged: tick the incidents first.")
            for incident in incidents:
                _acknowledge(request, incident)
        return redirect("plugins:ai_ops:mcpserverincident_list")


def _acknowledgeable(user):
    return MCPServerIncident.objects.restrict(user, "view").restrict(user, "acknowledge")


def _acknowledge(request, incident):
    try:
        acknowledge(incident, request.user)
        messages.success(request, f"{incident} has been acknowledged.")
    except IncidentError as refusal:
        messages.warning(request, str(refusal))


class MCPServerToolUIViewSet(ObjectDetailViewMixin, ObjectListViewMixin):
    """List and detail of tools. Health checks write them."""

    queryset = MCPServerTool.objects.select_related("server")
    serializer_class = serializers.MCPServerToolSerializer
    filterset_class = filters.MCPServerToolFilterSet
    filterset_form_class = forms.MCPServerToolFilterForm
    table_class = tables.MCPServerToolTable
    action_buttons = ("export",)
    object_detail_content = TOOL_DETAIL
    lookup_value_regex = ID_PATTERN
