"""Schedules in the REST API: Nautobot's ScheduledJobs of this app's Jobs, with their status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils.dateparse import parse_datetime
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from nautobot.core.api.filter_backends import NautobotFilterBackend
from nautobot.core.api.pagination import OptionalLimitOffsetPagination
from nautobot.extras.models import ScheduledJob
from rest_framework import status, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound, ParseError, PermissionDenied
from rest_framework.response import Response

from ai_ops.api.errors import as_answers
from ai_ops.api.run_views import RunPermissions
from ai_ops.api.serializers import ScheduleRequestSerializer, ScheduleSerializer
from ai_ops.exceptions import RunOptionsError, RunRefusedError
from ai_ops.filters import ScheduleFilterSet
from ai_ops.kinds import DEFAULT_SCHEDULES, KINDS
from ai_ops.logic.foreign_text import shown
from ai_ops.runs.options import checked_options, checked_text
from ai_ops.runs.permissions import confirm_may, runnable_job
from ai_ops.schedules.control import (
    app_schedules,
    pause_schedule,
    remove_schedule,
    resume_schedule,
    schedule_once,
    schedule_runs,
)
from ai_ops.schedules.ensure import kind_of
from ai_ops.schedules.status import get_schedule_status

FIELDS = frozenset(ScheduleRequestSerializer().fields)
FILTERS = [OpenApiParameter(name, str) for name in (*ScheduleFilterSet.base_filters, "limit", "offset")]
REFUSALS = dict.fromkeys((403, 404, 409), OpenApiTypes.OBJECT)


@extend_schema_view(
    list=extend_schema(responses=ScheduleSerializer(many=True), parameters=FILTERS),
    retrieve=extend_schema(responses={200: ScheduleSerializer, 404: OpenApiTypes.OBJECT}),
)
class ScheduleViewSet(viewsets.ViewSet):
    """Schedules and their status; with the permissions for Nautobot's scheduled jobs, and to run the Job."""

    queryset = ScheduledJob.objects.all()
    filterset_class = ScheduleFilterSet
    permission_classes = [RunPermissions]
    lookup_value_regex = "[0-9a-f-]{36}"

    def list(self, request):
        """List the schedules that the user may view, by name."""
        visible = app_schedules().restrict(request.user, "view")
        chosen = NautobotFilterBackend().filter_queryset(request, visible, self)
        pages = OptionalLimitOffsetPagination()
        page = pages.paginate_queryset(chosen.order_by("name"), request)
        rows = get_schedule_status(visible.filter(pk__in=[schedule.pk for schedule in page]))
        return pages.get_paginated_response(self._as_answer(rows))

    def retrieve(self, request, pk=None):
        """Return one schedule."""
        return Response(self._status_of(self._visible(request, pk)))

    @extend_schema(
        request=ScheduleRequestSerializer,
        responses={200: ScheduleSerializer, 201: ScheduleSerializer, 400: OpenApiTypes.OBJECT, **REFUSALS},
    )
    def create(self, request):
        """Create a schedule, or update the existing schedule of that name."""
        asked = _requested_values(request.data)
        with as_answers(), transaction.atomic():
            kind = asked.pop("kind")
            checked_options(kind, asked.get("options"), request.user)
            runnable_job(kind, request.user)
            known = _known(kind, asked.get("name"))
            _confirm_may_make(request.user, known)
            if "at" in asked:
                schedule = schedule_once(kind, asked.pop("at"), user=request.user, **asked)
            else:
                # An existing schedule keeps its owner: changing a schedule does not take it over.
                schedule = schedule_runs(kind, user=None if known else request.user, **asked)
            # The permission may be limited to some schedules, and can only be checked once this one exists.
            confirm_may(request.user, "change" if known else "add", schedule)
        code = status.HTTP_200_OK if known else status.HTTP_201_CREATED
        return Response(self._status_of(schedule), status=code)

    @extend_schema(responses={204: None, **REFUSALS})
    def destroy(self, request, pk=None):
        """Remove a schedule."""
        schedule = self._visible(request, pk)
        confirm_may(request.user, "delete", schedule)
        with as_answers():
            remove_schedule(schedule.name)
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(request=None, responses={200: ScheduleSerializer, **REFUSALS})
    @action(detail=True, methods=["post"])
    def pause(self, request, pk=None):
        """Stop a schedule without removing it."""
        schedule = self._visible(request, pk)
        confirm_may(request.user, "change", schedule)
        with as_answers():
            return Response(self._status_of(pause_schedule(schedule.name)))

    @extend_schema(request=None, responses={200: ScheduleSerializer, **REFUSALS})
    @action(detail=True, methods=["post"])
    def resume(self, request, pk=None):
        """Resume a paused schedule; its next run starts at its next time."""
        schedule = self._visible(request, pk)
        confirm_may(request.user, "change", schedule)
        with as_answers():
            runnable_job(kind_of(schedule), request.user)
            return Response(self._status_of(resume_schedule(schedule.name)))

    def _visible(self, request, pk) -> ScheduledJob:
        schedule = app_schedules().restrict(request.user, "view").filter(pk=pk).first()
        if schedule is None:
            raise NotFound("There is no such schedule.")
        return schedule

    def _status_of(self, schedule: ScheduledJob) -> dict[str, Any]:
        (row,) = self._as_answer(get_schedule_status(ScheduledJob.objects.filter(pk=schedule.pk)))
        return row

    def _as_answer(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return ScheduleSerializer(rows, many=True, context={"request": self.request}).data


def _known(kind: str, name: Any) -> ScheduledJob | None:
    """Return the existing schedule of that name; None for a new one."""
    name = name or (DEFAULT_SCHEDULES[kind].name if kind in DEFAULT_SCHEDULES else None)
    known = ScheduledJob.objects.filter(name=name).first()
    if known and kind_of(known) not in KINDS:
        raise RunRefusedError(
            f'There is another schedule "{name}", which does not belong to this app: give another name.'
        )
    return known


def _confirm_may_make(user: Any, known: ScheduledJob | None) -> None:
    """Confirm the permission to view and change the schedule of that name, or to add one."""
    if known is not None:
        confirm_may(user, "view", known)
        confirm_may(user, "change", known)
    elif not user.has_perm("extras.add_scheduledjob"):
        raise PermissionDenied("You may not add schedules: ask for the permission to add scheduled jobs.")


def _requested_values(data: Any) -> dict[str, Any]:
    """Return the values of the request, each of its type."""
    with as_answers():
        if not isinstance(data, Mapping) or set(data) - FIELDS or not data.get("kind"):
            raise RunOptionsError(f"Send an object with kind, and optionally {', '.join(sorted(FIELDS))}.")
        asked = {name: value for name, value in data.items() if value is not None}
        # The other values are checked elsewhere, with a sentence.
        for name in FIELDS - {"options", "kind", "interval", "misfire_grace_time"}:
            if not isinstance(asked.get(name, ""), str):
                raise RunOptionsError(f"{name} must be a text, not {shown(asked[name])}.")
            if name in asked:
                checked_text(name, asked[name])
        if "at" in asked:
            if {"crontab", "interval", "time_zone"} & set(asked):
                raise RunOptionsError(
                    "Give at for one run, or a crontab or an interval with a time_zone for recurrent runs: not both."
                )
            asked["at"] = _time(asked["at"])
    return asked


def _time(text: str) -> datetime:
    try:
        at = parse_datetime(text)
    except ValueError:
        at = None
    if at is None:
        raise ParseError(f'at must be a time such as "2030-01-31T03:00:00Z", not {shown(text)}.')
    return at
