"""The page of a run: its panels, with its times, results and attempts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.template import Context
from django.template.loader import render_to_string
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe
from nautobot.apps.templatetags import hyperlinked_object
from nautobot.apps.ui import (
    DataTablePanel,
    ObjectDetailContent,
    ObjectsTablePanel,
    Panel,
    SectionChoices,
)
from nautobot.apps.utils import is_uuid
from nautobot.apps.views import get_obj_from_context
from nautobot.extras.models import JobResult
from nautobot.extras.views import render_jobresult_files

from ai_ops.choices import MaintenanceKindChoices, RunStateChoices
from ai_ops.details.run_advice import meaning, milliseconds_since, what_to_do
from ai_ops.details.run_buttons import RUN_BUTTONS
from ai_ops.models import MaintenanceRun, MCPServer
from ai_ops.tables import MaintenanceRunTable, state_badge
from ai_ops.ui.panels import FactsPanel
from ai_ops.ui.run_summary import summary
from ai_ops.ui.time_markup import ago, duration


def attempt_rows(run: MaintenanceRun, user) -> list[dict[str, Any]]:
    """Return all attempts of `run`, the latest first, with links to the logs that `user` may view."""
    entries = list(run.attempts)
    if run.attempt and run.attempt not in [entry.get("attempt") for entry in entries]:
        entries.append(_latest_attempt(run))
    named = {entry["job_result"] for entry in entries if entry.get("job_result")}
    results = JobResult.objects.restrict(user, "view").in_bulk(named) if named else {}
    logs = {str(key): result.get_absolute_url() for key, result in results.items()}
    return [_attempt_row(entry, logs.get(entry.get("job_result"))) for entry in reversed(entries)]


def _latest_attempt(run: MaintenanceRun) -> dict[str, Any]:
    return {
        "attempt": run.attempt,
        "state": run.state,
        "error": run.error,
        "started": run.started,
        "ended": run.finished,
        "fence": run.fence,
        "holder": run.holder,
        "job_result": str(run.job_result_id) if run.job_result_id else None,
    }


def _attempt_row(entry: Mapping[str, Any], log: str | None) -> dict[str, Any]:
    return {
        "attempt": entry.get("attempt"),
        "state": state_badge(entry["state"]),
        "started": ago(entry.get("started")),
        "ended": ago(entry.get("ended")),
        "holder": entry.get("holder"),
        "fence": entry.get("fence"),
        "error": entry.get("error"),
        "log": format_html('<a href="{}">Log</a>', log) if log else None,
    }


def _subject(run: MaintenanceRun, user: Any) -> Any:
    """Return the run's server if this user may view it, otherwise the text of the record."""
    if run.kind == MaintenanceKindChoices.SERVER and is_uuid(run.subject):
        return MCPServer.objects.restrict(user, "view").filter(pk=run.subject).first() or run.subject
    return run.subject


def _files(run: MaintenanceRun, user: Any) -> str | None:
    """Return links to the files of the run's Job, such as the table of a cleanup, for users who may view its result."""
    result = JobResult.objects.restrict(user, "view").filter(pk=run.job_result_id).first()
    return render_jobresult_files(result.files) or None if result else None


class FollowingPanel(Panel):
    """A line that keeps the page of a run up to date until the run has ended."""

    def should_render(self, context: Context) -> bool:
        """Hide the line for a run that has ended or waits for approval."""
        run = get_obj_from_context(context)
        waits = run.state == RunStateChoices.PENDING and run.next_attempt is None
        return super().should_render(context) and not run.is_final and not waits

    def render(self, context: Context) -> str:
        """Render the line without the frame of a panel."""
        if not self.should_render(context):
            return ""
        following = {"following": f"The run is {get_obj_from_context(context).state}."}
        return render_to_string("ai_ops/inc/following.html", following, request=context["request"])


class RunPanel(FactsPanel):
    """The run in words, from its request to its result."""

    def get_data(self, context: Context) -> dict[str, Any]:
        """Return the known facts, by label."""
        run = get_obj_from_context(context)
        return {
            "State": state_badge(run.state),
            "What that means": meaning(run),
            "Error": run.error or None,
            "What to do": what_to_do(run),
            "Result": format_html_join(mark_safe("<br>"), "{}", ((each,) for each in summary(run))) or None,
            "Files": _files(run, context["request"].user),
            "Progress": run.progress or None,
            "Kind": run.get_kind_display(),
            "Subject": _subject(run, context["request"].user) or None,
            "Started by": run.get_trigger_display(),
            "Owner": run.owner,
            "Parent": run.parent,
            "Job result": hyperlinked_object(run.job_result, "name") if run.job_result else None,
        }


class TimesPanel(FactsPanel):
    """The times of request, start and end, and the process of the run."""

    def get_data(self, context: Context) -> dict[str, Any]:
        """Return the known facts, by label. Ages use the clock of the database, which has set the times."""
        run = get_obj_from_context(context)
        running = run.state == RunStateChoices.RUNNING
        now = run.database_now
        return {
            "Asked for": ago(run.created, now),
            "Due": ago(run.next_attempt, now),
            "Attempt": f"{run.attempt} of {run.max_attempts}",
            "Started": ago(run.started, now),
            "Finished": ago(run.finished, now),
            "Duration": duration(milliseconds_since(run.started, now) if running else run.execution_time_ms),
            "Last heartbeat": f"{duration(milliseconds_since(run.heartbeat, now))} ago"
            if running and run.heartbeat
            else None,
            "Holder": run.holder,
            "Fence": run.fence,
            "Idempotency key": run.idempotency_key,
        }


class PlainValuesPanel(FactsPanel):
    """The content of a JSON field of a run."""

    field = ""

    def get_data(self, context: Context) -> dict[str, Any]:
        """Return the field's names and values."""
        return getattr(get_obj_from_context(context), self.field)

    def render_key(self, key: str, value: Any, context: Context) -> str:
        """Show a name as words."""
        return key.replace("_", " ").capitalize()

    def render_value(self, key: str, value: Any, context: Context) -> Any:
        """Show true and false as words, because a red cross would look like an error."""
        return ("yes" if value else "no") if isinstance(value, bool) else super().render_value(key, value, context)


class CountersPanel(PlainValuesPanel):
    """The counters of a run whose result has no words."""

    def should_render(self, context: Context) -> bool:
        """Hide the panel if the run has a result in words."""
        return super().should_render(context) and not summary(get_obj_from_context(context))


class AttemptsPanel(DataTablePanel):
    """The attempts, each with its end and a link to its log."""

    def should_render(self, context: Context) -> bool:
        """Hide the panel if no attempt has begun."""
        return super().should_render(context) and get_obj_from_context(context).attempt > 0

    def get_extra_context(self, context: Context) -> dict[str, Any]:
        """Add the rows."""
        rows = attempt_rows(get_obj_from_context(context), context["request"].user)
        return {**super().get_extra_context(context), "data": rows}


class ChildrenPanel(ObjectsTablePanel):
    """The runs that are parts or redrives of this one."""

    def should_render(self, context: Context) -> bool:
        """Hide the panel without such runs, as for most runs."""
        return super().should_render(context) and get_obj_from_context(context).children.exists()


RUN_DETAIL = ObjectDetailContent(
    panels=(
        FollowingPanel(weight=10, section=SectionChoices.FULL_WIDTH),
        RunPanel(
            weight=100,
            section=SectionChoices.LEFT_HALF,
            label="Run",
            hide_if_unset=("Error", "What to do", "Result", "Files", "Progress", "Subject", "Parent"),
        ),
        TimesPanel(
            weight=100,
            section=SectionChoices.RIGHT_HALF,
            label="Times and lease",
            hide_if_unset=("Due", "Started", "Finished", "Duration", "Last heartbeat", "Fence", "Idempotency key"),
        ),
        PlainValuesPanel(weight=200, section=SectionChoices.LEFT_HALF, label="Options", field="options"),
        CountersPanel(weight=200, section=SectionChoices.RIGHT_HALF, label="Counters", field="counters"),
        AttemptsPanel(
            weight=300,
            section=SectionChoices.FULL_WIDTH,
            label="Attempts",
            context_data_key="attempts",
            columns=["attempt", "state", "started", "ended", "holder", "fence", "error", "log"],
            column_headers=["Attempt", "State", "Started", "Ended", "Holder", "Fence", "Error", "Log"],
        ),
        ChildrenPanel(
            weight=400,
            section=SectionChoices.FULL_WIDTH,
            table_class=MaintenanceRunTable,
            table_filter="parent",
            table_title="Parts and redrives",
            exclude_columns=("owner",),
            order_by_fields=("-created",),
            max_display_count=20,
            add_button_route=None,
            required_permissions=("ai_ops.view_maintenancerun",),
        ),
    ),
    extra_buttons=RUN_BUTTONS,
)
