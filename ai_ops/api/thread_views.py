"""Threads in the REST API: erased."""

from __future__ import annotations

from collections.abc import Mapping

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import status, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import ParseError, PermissionDenied
from rest_framework.response import Response

from ai_ops.api.errors import as_answers
from ai_ops.api.run_views import RunPermissions
from ai_ops.api.serializers import ErasureRequestSerializer, MaintenanceRunSerializer
from ai_ops.choices import MaintenanceKindChoices
from ai_ops.models import ThreadErasure
from ai_ops.runs.requests import request_run

ERASE = "ai_ops.add_threaderasure"


class ThreadViewSet(viewsets.ViewSet):
    """Conversations in the checkpoint Redis, by their ids."""

    permission_classes = [RunPermissions]
    # The permissions ask for one; threads are in no table.
    queryset = ThreadErasure.objects.none()

    @extend_schema(
        request=ErasureRequestSerializer,
        responses={202: MaintenanceRunSerializer, 400: OpenApiTypes.OBJECT, 403: OpenApiTypes.OBJECT}
        | {409: OpenApiTypes.OBJECT, 503: OpenApiTypes.OBJECT},
    )
    @action(detail=False, methods=["post"])
    def erase(self, request, *args, **kwargs):
        """Ask for an erasure; answers with the run, whose Job has the report."""
        if not request.user.has_perm(ERASE):
            raise PermissionDenied(f"You may not erase conversations: ask for the permission {ERASE}.")
        if not isinstance(request.data, Mapping):
            raise ParseError("Send an object with thread_ids or a thread_pattern, and a reason.")
        with as_answers():
            run = request_run(MaintenanceKindChoices.ERASURE, dict(request.data), request.user)
        data = MaintenanceRunSerializer(run, context={"request": request, "depth": 0}).data
        return Response(data, status=status.HTTP_202_ACCEPTED, headers={"Location": str(data["url"])})
