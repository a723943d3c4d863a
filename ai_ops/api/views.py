"""REST API of AI Ops."""

from django.db import transaction
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from nautobot.apps.api import NautobotModelViewSet, NotesViewSetMixin, ReadOnlyModelViewSet
from nautobot.core.api.filter_backends import NautobotFilterBackend, NautobotOrderingFilter
from nautobot.extras.api.serializers import JobResultSerializer, JobRunResponseSerializer, ScheduledJobSerializer
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.exceptions import APIException, PermissionDenied
from rest_framework.response import Response

from ai_ops.api.actions import ActionPermissions, ActionsViewSetMixin, ModelPermissions
from ai_ops.api.errors import as_answers
from ai_ops.api.serializers import (
    MCPServerCheckSerializer,
    MCPServerHealthSerializer,
    MCPServerIncidentSerializer,
    MCPServerSerializer,
    MCPServerToolSerializer,
    MCPServerToolSetSerializer,
    PinnedThreadSerializer,
    RetentionPolicySerializer,
    ThreadErasureSerializer,
    ToolApprovalSerializer,
    ToolDecidedSerializer,
    ToolDecisionSerializer,
)
from ai_ops.exceptions import IncidentError, ToolApprovalError
from ai_ops.filters import (
    MCPServerCheckFilterSet,
    MCPServerFilterSet,
    MCPServerHealthFilterSet,
    MCPServerIncidentFilterSet,
    MCPServerToolFilterSet,
    MCPServerToolSetFilterSet,
    PinnedThreadFilterSet,
    RetentionPolicyFilterSet,
    ThreadErasureFilterSet,
)
from ai_ops.mcp.incidents import acknowledge, send_test_incident
from ai_ops.mcp.on_demand import request_check
from ai_ops.mcp.tool_approval import approve, approve_tool, reject_tool
from ai_ops.models import (
    MCPServer,
    MCPServerCheck,
    MCPServerHealth,
    MCPServerIncident,
    MCPServerTool,
    MCPServerToolSet,
    PinnedThread,
    RetentionPolicy,
    ThreadErasure,
)
from ai_ops.runs.approvals import schedule_of
from ai_ops.runs.permissions import confirm_may


class ServerOrdering(NautobotOrderingFilter):
    """Orders servers by `server_url`, the API's name of their address, such as `sort=-server_url`."""

    def remove_invalid_fields(self, queryset, fields, view, request):
        """Map `server_url` to the model's field `url`, and ignore `url`, the address of the record."""
        terms = [term.replace("server_url", "url") for term in fields if term.lstrip("-") != "url"]
        return super().remove_invalid_fields(queryset, terms, view, request)


class MCPServerViewSet(ActionsViewSetMixin, NautobotModelViewSet):
    """MCP servers."""

    queryset = MCPServer.objects.all()
    serializer_class = MCPServerSerializer
    filterset_class = MCPServerFilterSet
    permission_classes = [ModelPermissions]
    filter_backends = [NautobotFilterBackend, ServerOrdering]

    @extend_schema(request=None, responses={202: JobRunResponseSerializer})
    @action(detail=True, methods=["post"], permission_classes=[ActionPermissions], filterset_class=None)
    def check(self, request, *args, **kwargs):
        """Check this server now. The response has the JobResult to poll."""
        server = self.get_object()
        with as_answers():
            run = request_check(server, request.user)
        return Response(_as_run_response(run, request), status=status.HTTP_202_ACCEPTED)


class PinnedThreadViewSet(NautobotModelViewSet):
    """Pinned threads."""

    queryset = PinnedThread.objects.all()
    serializer_class = PinnedThreadSerializer
    filterset_class = PinnedThreadFilterSet
    permission_classes = [ModelPermissions]


class RetentionPolicyViewSet(NautobotModelViewSet):
    """Retention policies, in the order in which they are matched."""

    queryset = RetentionPolicy.objects.all()
    serializer_class = RetentionPolicySerializer
    filterset_class = RetentionPolicyFilterSet
    permission_classes = [ModelPermissions]


class ThreadErasureViewSet(ReadOnlyModelViewSet):
    """The records of erasures, newest first."""

    queryset = ThreadErasure.objects.select_related("requested_by")
    serializer_class = ThreadErasureSerializer
    filterset_class = ThreadErasureFilterSet
    permission_classes = [ModelPermissions]


class MCPServerHealthViewSet(ReadOnlyModelViewSet):
    """Latest health of MCP servers: the last check, and the times of the last passed and failed one."""

    queryset = MCPServerHealth.objects.select_related("server")
    serializer_class = MCPServerHealthSerializer
    filterset_class = MCPServerHealthFilterSet
    permission_classes = [ModelPermissions]


class MCPServerCheckViewSet(ReadOnlyModelViewSet):
    """The history of checks, newest first."""

    queryset = MCPServerCheck.objects.select_related("server")
    serializer_class = MCPServerCheckSerializer
    filterset_class = MCPServerCheckFilterSet
    permission_classes = [ModelPermissions]


class IncidentRefused(APIException):
    """The state of the incident does not allow an acknowledgement."""

    status_code = status.HTTP_409_CONFLICT
    default_code = "incident_refused"


class MCPServerIncidentViewSet(ActionsViewSetMixin, NotesViewSetMixin, ReadOnlyModelViewSet):
    """Incidents, newest first; health checks open and close them."""

    queryset = MCPServerIncident.objects.select_related("acknowledged_by").prefetch_related("servers")
    serializer_class = MCPServerIncidentSerializer
    filterset_class = MCPServerIncidentFilterSet
    permission_classes = [ModelPermissions]

    @extend_schema(request=None, responses={201: MCPServerIncidentSerializer})
    @action(detail=False, methods=["post"], filterset_class=None)
    def test(self, request, *args, **kwargs):
        """Create a test incident, which is closed immediately. This needs the permission to add incidents."""
        if not request.user.has_perm("ai_ops.view_mcpserverincident"):
            raise PermissionDenied("You may not view incidents: ask for the permission to view them.")
        with transaction.atomic():
            incident = send_test_incident(request.user)
            confirm_may(request.user, "add", incident)
        return Response(self.get_serializer(incident).data, status=status.HTTP_201_CREATED)

    @extend_schema(request=None, responses={200: MCPServerIncidentSerializer})
    @action(detail=True, methods=["post"], permission_classes=[ActionPermissions], filterset_class=None)
    def acknowledge(self, request, *args, **kwargs):
        """Acknowledge the incident for this user; the first acknowledgement stays."""
        incident = self.get_object()
        confirm_may(request.user, "acknowledge", incident)
        try:
            acknowledge(incident, request.user)
        except IncidentError as refusal:
            raise IncidentRefused(str(refusal)) from refusal
        return Response(self.get_serializer(incident).data)


class ApprovalRefused(APIException):
    """The tools are not those that the user reviewed, or need no approval."""

    status_code = status.HTTP_409_CONFLICT
    default_code = "approval_refused"


class MCPServerToolViewSet(ActionsViewSetMixin, ReadOnlyModelViewSet):
    """Tools of MCP servers, as last listed and as approved."""

    queryset = MCPServerTool.objects.select_related("server", "rejected_by")
    serializer_class = MCPServerToolSerializer
    filterset_class = MCPServerToolFilterSet
    permission_classes = [ModelPermissions]

    @extend_schema(request=ToolDecisionSerializer, responses={200: ToolDecidedSerializer})
    @action(detail=True, methods=["post"], permission_classes=[ActionPermissions], filterset_class=None)
    def approve(self, request, *args, **kwargs):
        """Approve this tool as last listed; `hash` names the definition that you reviewed."""
        return self._decided(request, approve_tool)

    @extend_schema(request=ToolDecisionSerializer, responses={200: ToolDecidedSerializer})
    @action(detail=True, methods=["post"], permission_classes=[ActionPermissions], filterset_class=None)
    def reject(self, request, *args, **kwargs):
        """Reject this tool as last listed: agents do not get it until it is approved."""
        return self._decided(request, reject_tool)

    def _decided(self, request, decide):
        tool = self.get_object()
        tool_set = get_object_or_404(MCPServerToolSet.objects.restrict(request.user, "view"), server=tool.server_id)
        confirm_may(request.user, "approve", tool_set)
        decision = ToolDecisionSerializer(data=request.data)
        decision.is_valid(raise_exception=True)
        try:
            changes = decide(tool, request.user, decision.validated_data["hash"])
        except ToolApprovalError as refusal:
            raise ApprovalRefused(str(refusal)) from refusal
        return Response({"changes": changes})


class MCPServerToolSetViewSet(ActionsViewSetMixin, ReadOnlyModelViewSet):
    """The tool set of each MCP server: the time of the listing, the approved list and its approver."""

    queryset = MCPServerToolSet.objects.select_related("server", "approved_by")
    serializer_class = MCPServerToolSetSerializer
    filterset_class = MCPServerToolSetFilterSet
    permission_classes = [ModelPermissions]

    @extend_schema(request=ToolApprovalSerializer, responses={200: MCPServerToolSetSerializer})
    @action(detail=True, methods=["post"], permission_classes=[ActionPermissions], filterset_class=None)
    def approve(self, request, *args, **kwargs):
        """Approve the tools as last listed; `listed_hash` names the list that you reviewed."""
        tool_set = self.get_object()
        confirm_may(request.user, "approve", tool_set)
        approval = ToolApprovalSerializer(data=request.data)
        approval.is_valid(raise_exception=True)
        try:
            approve(tool_set, request.user, approval.validated_data["listed_hash"])
        except ToolApprovalError as refusal:
            raise ApprovalRefused(str(refusal)) from refusal
        return Response(self.get_serializer(tool_set).data)


def _as_run_response(run, request) -> dict:
    """Answer in the shape of Nautobot's own ``/jobs/{id}/run/``."""
    context, schedule = {"request": request}, schedule_of(run)
    return {
        "scheduled_job": ScheduledJobSerializer(schedule, context=context).data if schedule else None,
        "job_result": JobResultSerializer(run.job_result, context=context).data if run.job_result else None,
    }
