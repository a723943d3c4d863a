"""Pages of incidents."""

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.shortcuts import redirect
from nautobot.apps.utils import is_uuid
from nautobot.apps.views import (
    ObjectBulkDestroyViewMixin,
    ObjectChangeLogViewMixin,
    ObjectDestroyViewMixin,
    ObjectDetailViewMixin,
    ObjectListViewMixin,
    ObjectNotesViewMixin,
)
from rest_framework.decorators import action

from ai_ops import filters, forms, tables
from ai_ops.api import serializers
from ai_ops.details.incidents import INCIDENT_DETAIL
from ai_ops.exceptions import IncidentError
from ai_ops.mcp.incidents import acknowledge, send_test_incident
from ai_ops.models import (
    MCPServerIncident,
)
from ai_ops.runs.permissions import confirm_may
from ai_ops.views.ids import ID_PATTERN
from ai_ops.views.long_names import LongNamesMixin


class MCPServerIncidentUIViewSet(
    LongNamesMixin,
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
        """Add whether there is an incident that the user may acknowledge."""
        extra = super().get_extra_context(request, instance)
        if self.action == "list":
            extra["may_acknowledge"] = _acknowledgeable(request.user).exists()
            extra["may_test"] = request.user.has_perm("ai_ops.add_mcpserverincident")
        return extra

    @action(
        detail=True,
        # After a login the request becomes a GET, which acknowledges nothing.
        methods=["get", "post"],
        custom_view_base_action="view",
        custom_view_additional_permissions=["ai_ops.acknowledge_mcpserverincident"],
    )
    def acknowledge(self, request, *args, **kwargs):
        """Acknowledge the incident for this user."""
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
        """Acknowledge the ticked incidents for this user."""
        if request.method == "POST":
            ticked = [each for each in request.POST.getlist("pk") if is_uuid(each)]
            incidents = _acknowledgeable(request.user).filter(pk__in=ticked)
            if ticked and not incidents:
                raise PermissionDenied("You may not acknowledge these incidents, or they were deleted.")
            if not incidents:
                messages.warning(request, "Nothing was acknowledged: tick the incidents first.")
            for incident in incidents:
                _acknowledge(request, incident)
        return redirect(self.get_return_url(request))

    @action(
        detail=False,
        methods=["get", "post"],
        url_path="test",
        url_name="test",
        custom_view_base_action="add",
        custom_view_additional_permissions=["ai_ops.view_mcpserverincident"],
    )
    def test(self, request, *args, **kwargs):
        """Create a test incident, which triggers webhooks, Job hooks and event brokers."""
        if request.method == "POST":
            with transaction.atomic():
                incident = send_test_incident(request.user)
                confirm_may(request.user, "add", incident)
            messages.success(request, f"{incident} was created: see whether its notification arrives.")
        return redirect("plugins:ai_ops:mcpserverincident_list")


def _acknowledgeable(user):
    return MCPServerIncident.objects.restrict(user, "view").restrict(user, "acknowledge")


def _acknowledge(request, incident):
    try:
        acknowledge(incident, request.user)
        messages.success(request, f"{incident} has been acknowledged.")
    except IncidentError as refusal:
        messages.warning(request, str(refusal))
