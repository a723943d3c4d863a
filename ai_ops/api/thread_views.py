"""Threads in the REST API: explained and erased."""

from __future__ import annotations

from collections.abc import Mapping

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import ParseError, PermissionDenied
from rest_framework.response import Response

from ai_ops.api.errors import as_answers
from ai_ops.api.run_views import RunPermissions
from ai_ops.api.serializers import ErasureRequestSerializer, MaintenanceRunSerializer
from ai_ops.celery_tasks import explain_thread
from ai_ops.choices import MaintenanceKindChoices
from ai_ops.models import THREAD_ID_MAX_LENGTH, ThreadErasure
from ai_ops.runs.requests import request_run

VIEW = "ai_ops.view_checkpointstoragesnapshot"
ERASE = "ai_ops.add_threaderasure"


class ThreadViewSet(viewsets.ViewSet):
    """Conversations in the checkpoint Redis, by their ids."""

    permission_classes = [RunPermissions]
    # The permission classes need a queryset, but threads are in no table.
    queryset = ThreadErasure.objects.none()

    @extend_schema(
        parameters=[
            OpenApiParameter(
                "thread_id", str, required=True, description="Thread ID, exactly as in the agent's configuration."
            )
        ],
        responses={200: OpenApiTypes.OBJECT, 400: OpenApiTypes.OBJECT, 403: OpenApiTypes.OBJECT},
    )
    @action(detail=False, methods=["get"])
    def explain(self, request, *args, **kwargs):
        """Explain a thread: the facts that the cleanup sees, and what the next run would do."""
        if not request.user.has_perm(VIEW):
            raise PermissionDenied(f"You may not look at conversations: ask for the permission {VIEW}.")
        thread_id = request.query_params.get("thread_id", "")
        if not thread_id or "\0" in thread_id or len(thread_id) > THREAD_ID_MAX_LENGTH:
            raise ParseError(f"Give a thread_id of 1 to {THREAD_ID_MAX_LENGTH} characters.")
        return Response(explain_thread(thread_id))

    @extend_schema(
        request=ErasureRequestSerializer,
        responses={202: MaintenanceRunSerializer, 400: OpenApiTypes.OBJECT, 403: OpenApiTypes.OBJECT}
        | {409: OpenApiTypes.OBJECT, 503: OpenApiTypes.OBJECT},
    )
    @action(detail=False, methods=["post"])
    def erase(self, request, *args, **kwargs):
        """Request an erasure. The response is the run; its JobResult has the report."""
        if not request.user.has_perm(VIEW):
            raise PermissionDenied(f"You may not look at conversations: ask for the permission {VIEW}.")
        if not request.user.has_perm(ERASE):
            raise PermissionDenied(f"You may not erase conversations: ask for the permission {ERASE}.")
        if not isinstance(request.data, Mapping):
            raise ParseError("Send an object with thread_ids or a thread_pattern, and a reason.")
        with as_answers():
            run = request_run(MaintenanceKindChoices.ERASURE, dict(request.data), request.user)
        data = MaintenanceRunSerializer(run, context={"request": request, "depth": 0}).data
        return Response(data, status=status.HTTP_202_ACCEPTED, headers={"Location": str(data["url"])})
