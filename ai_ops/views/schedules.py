"""The page of the app's schedules, with next run, last result, and reasons for lateness."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from nautobot.apps.ui import Titles
from nautobot.apps.views import GenericView, ObjectPermissionRequiredMixin
from nautobot.extras.models import ScheduledJob

from ai_ops.choices import MaintenanceKindChoices
from ai_ops.exceptions import AiOpsError, ConfigurationError, RunNotPermittedError
from ai_ops.forms import ScheduleTimesForm
from ai_ops.runs.permissions import confirm_may, runnable_job, runnable_kinds
from ai_ops.schedules.control import app_schedules, pause_schedule, resume_schedule, retime_schedule
from ai_ops.schedules.ensure import kind_of
from ai_ops.schedules.lateness import ACTIVE, BROKEN, PAUSED, ScheduleStatus
from ai_ops.schedules.status import statuses_of
from ai_ops.tables import state_badge

SCHEDULES = "plugins:ai_ops:schedules"


def paused(schedule: ScheduledJob, _request: Any) -> str:
    """Pause `schedule`; return the message for the user."""
    pause_schedule(schedule.name)
    return f'"{schedule.name}" is paused. It starts no runs until you resume it.'


def resumed(schedule: ScheduledJob, request: Any) -> str:
    """Resume `schedule`, for a user who may run its Job; return the message for that user."""
    runnable_job(kind_of(schedule), request.user)
    resume_schedule(schedule.name)
    return f'"{schedule.name}" is resumed. It runs at its next time.'


def retimed(schedule: ScheduledJob, request: Any) -> str:
    """Give `schedule` the times of the form, for a user who may run its Job; return the message for that user."""
    runnable_job(kind_of(schedule), request.user)
    form = ScheduleTimesForm(request.POST)
    if not form.is_valid():
        raise ConfigurationError(" ".join(text for texts in form.errors.values() for text in texts))
    given = {name: value for name, value in form.cleaned_data.items() if value not in (None, "")}
    changed = retime_schedule(schedule.name, **given)
    return f'"{schedule.name}" has the crontab {changed.crontab} now.'


class SchedulesView(ObjectPermissionRequiredMixin, GenericView):
    """The schedules of this app's Jobs, which are scheduled Jobs of Nautobot."""

    queryset = app_schedules()
    view_titles = Titles(titles={"*": "Schedules"})
    actions = {"pause": paused, "resume": resumed, "retime": retimed}

    def get_required_permission(self) -> str:
        """Require the permission to view Nautobot's scheduled Jobs."""
        return "extras.view_scheduledjob"

    def get(self, request):
        """Show the page."""
        changeable = set(map(str, self.queryset.restrict(request.user, "change").values_list("pk", flat=True)))
        runnable = runnable_kinds(request.user)
        statuses = statuses_of(self.queryset)
        chosen = [each for each in statuses if each.needs_attention] if "needs_you" in request.GET else statuses
        rows = [_row(status, status.id in changeable, status.kind in runnable) for status in chosen]
        context = {"view_titles": self.get_view_titles(), "rows": rows, "left_out": len(statuses) - len(chosen)}
        return render(request, "ai_ops/schedules.html", context)

    def post(self, request):
        """Pause or resume a schedule, or change its times."""
        done = self.actions.get(request.POST.get("action"))
        if done is None:
            raise PermissionDenied
        schedule = get_object_or_404(self.queryset, name=request.POST.get("name", ""))
        confirm_may(request.user, "change", schedule)
        try:
            messages.success(request, done(schedule, request))
        except RunNotPermittedError as refusal:
            raise PermissionDenied(str(refusal)) from refusal
        except AiOpsError as refusal:
            messages.warning(request, str(refusal))
        return redirect(SCHEDULES)


def _row(status: ScheduleStatus, may_change: bool, may_run_job: bool) -> dict[str, Any]:
    """Return the content of the page for a schedule, with the actions that the user may perform."""
    return {
        "name": status.name,
        "address": reverse("extras:scheduledjob", kwargs={"pk": status.id}),
        "kind": dict(MaintenanceKindChoices.CHOICES).get(status.kind, status.kind),
        "when": status.crontab or "once",
        "time_zone": status.time_zone,
        "next_run": status.next_run,
        "last_run": status.last_run,
        "last_address": _last_address(status),
        "outcome": state_badge(status.last_outcome) if status.last_outcome else None,
        "error": status.last_error,
        "standing": status.standing,
        "late": status.late,
        "why": status.why,
        "may_pause": may_change and status.standing == ACTIVE,
        "may_resume": may_change and may_run_job and status.standing in (PAUSED, BROKEN),
        "may_retime": may_change and may_run_job and status.crontab is not None,
        "misfire_grace_time": status.misfire_grace_time,
    }


def _last_address(status: ScheduleStatus) -> str | None:
    if status.last_run_id:
        return reverse("plugins:ai_ops:maintenancerun", kwargs={"pk": status.last_run_id})
    if status.last_job_result:
        return reverse("extras:jobresult", kwargs={"pk": status.last_job_result})
    return None
