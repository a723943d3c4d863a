"""Maintenance runs in the REST API: request, watch, cancel, redrive and discard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from nautobot.apps.api import ReadOnlyModelViewSet
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.exceptions import ParseError
from rest_framework.response import Response

from ai_ops.api.actions import ModelPermissions
from ai_ops.api.errors import as_answers
from ai_ops.api.serializers import MaintenanceRunSerializer, RunRequestSerializer
from ai_ops.filters import MaintenanceRunFilterSet
from ai_ops.models import MaintenanceRun
from ai_ops.runs.permissions import confirm_may
from ai_ops.runs.queries import visible_to
from ai_ops.runs.requests import cancel_run, discard_run, redrive_run, request_run

REFUSALS = {
    403: OpenApiTypes.OBJECT,
    404: OpenApiTypes.OBJECT,
    409: OpenApiTypes.OBJECT,
}


class RunPermissions(ModelPermissions):
    """Users may view their own runs; each action on a run needs its permission on that run."""

    perms_map = dict.fromkeys(("GET", "HEAD", "OPTIONS", "POST", "DELETE"), ())


class MaintenanceRunViewSet(ReadOnlyModelViewSet):
    """Maintenance runs, newest first: those of the user, and all others that the user may view."""

    queryset = MaintenanceRun.objects.select_related("owner", "parent", "job_result")
    serializer_class = MaintenanceRunSerializer
    filterset_class = MaintenanceRunFilterSet
    permission_classes = [RunPermissions]

    def restrict_queryset(self, request, *args, **kwargs):
        """Keep the runs that the user may view; each action checks its own permission on the run."""
        self.queryset = visible_to(request.user, self.queryset)

    @extend_schema(
        request=RunRequestSerializer,
        responses={202: MaintenanceRunSerializer, 400: OpenApiTypes.OBJECT, 403: OpenApiTypes.OBJECT}
        | {409: OpenApiTypes.OBJECT, 503: OpenApiTypes.OBJECT},
        parameters=[
            OpenApiParameter(
                "Idempotency-Key",
                str,
                OpenApiParameter.HEADER,
                description="Repeated requests of a user with the same key return the same run.",
            )
        ],
    )
    def create(self, request, *args, **kwargs):
        """Request a run. The response is the run; poll its `url` for its state."""
        kind, options = _requested(request.data)
        with as_answers():
            run = request_run(kind, options, request.user, idempotency_key=request.headers.get("Idempotency-Key"))
        return self._accepted(run)

    @extend_schema(request=None, responses={202: MaintenanceRunSerializer, **REFUSALS})
    @action(detail=True, methods=["post"], filterset_class=None)
    def cancel(self, request, *args, **kwargs):
        """Cancel a pending or running run. The owner of a run may always cancel it."""
        run = self.get_object()
        if run.owner != request.user:
            confirm_may(request.user, "cancel", run)
        with as_answers():
            return self._accepted(cancel_run(run, request.user))

    @extend_schema(request=None, responses={202: MaintenanceRunSerializer, **REFUSALS})
    @action(detail=True, methods=["post"], filterset_class=None)
    def redrive(self, request, *args, **kwargs):
        """Redrive a dead run. The response is the new run."""
        run = self.get_object()
        confirm_may(request.user, "redrive", run)
        with as_answers():
            return self._accepted(redrive_run(run, request.user))

    @extend_schema(request=None, responses={200: MaintenanceRunSerializer, **REFUSALS})
    @action(detail=True, methods=["post"], filterset_class=None)
    def discard(self, request, *args, **kwargs):
        """Discard a dead run, so that it is no longer a dead letter."""
        run = self.get_object()
        confirm_may(request.user, "discard", run)
        with as_answers():
            return Response(self.get_serializer(discard_run(run, request.user)).data)

    def _accepted(self, run: MaintenanceRun) -> Response:
        data = self.get_serializer(run).data
        # WSGI accepts only plain str headers, and a Hyperlink of the REST framework is a subclass.
        return Response(data, status=status.HTTP_202_ACCEPTED, headers={"Location": str(data["url"])})


def _requested(data: Any) -> tuple[Any, Any]:
    if not isinstance(data, Mapping) or not data.get("kind") or set(data) - {"kind", "options"}:
        raise ParseError('Send an object with a "kind" and optionally "options", and no other keys.')
    return data["kind"], data.get("options")
