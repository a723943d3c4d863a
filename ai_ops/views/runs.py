"""Pages of maintenance runs: the list, the page of a run, and dead letters. Users can't add or edit runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.http import HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.html import format_html
from django_tables2 import RequestConfig
from nautobot.apps.ui import Titles
from nautobot.apps.utils import is_uuid
from nautobot.apps.views import (
    EnhancedPaginator,
    GenericView,
    ObjectDetailViewMixin,
    ObjectListViewMixin,
    ObjectPermissionRequiredMixin,
    get_paginate_count,
)
from rest_framework.decorators import action

from ai_ops import filters, forms, tables
from ai_ops.api import serializers
from ai_ops.details.runs import RUN_DETAIL
from ai_ops.exceptions import RunNotPermittedError, RunRefusedError
from ai_ops.models import MaintenanceRun
from ai_ops.runs.dead_letters import dead_letters, is_redriven
from ai_ops.runs.permissions import confirm_may_decide, permitted_runs, with_rights
from ai_ops.runs.quiet_passes import PASSES, without_quiet_passes
from ai_ops.runs.requests import cancel_run, discard_run, redrive_run, repeat_run
from ai_ops.views.ids import ID_PATTERN
from ai_ops.views.long_names import LongNamesMixin

DEAD_LETTERS = "plugins:ai_ops:deadletters"
DISCARDING = "Its work is not done. It stays in the list of runs, but no longer needs a decision."
DELETING = (
    "A cleanup with the same options deletes everything that is past its retention when it runs, including "
    "checkpoints that passed it since the dry run. This can't be undone."
)


def cancelled(run: MaintenanceRun, user: Any) -> str:
    """Cancel `run`; return the message for the user."""
    cancel_run(run, user)
    return format_html("{} stops after its current batch, or does not start.", run)


def redriven(run: MaintenanceRun, user: Any) -> str:
    """Redrive `run`; return the message for the user."""
    child = redrive_run(run, user)
    return format_html('<a href="{1}">{2}</a> redrives {0}.', run, child.get_absolute_url(), child)


def repeated(run: MaintenanceRun, user: Any) -> str:
    """Run the work of `run` again; return the message for the user."""
    child = repeat_run(run, user)
    return format_html('<a href="{1}">{2}</a> repeats {0}.', run, child.get_absolute_url(), child)


def deleted_now(run: MaintenanceRun, user: Any) -> str:
    """Run the cleanup of `run`, a dry run, as a real run; return the message for the user."""
    child = repeat_run(run, user, dryrun=False)
    return format_html('<a href="{}">{}</a> deletes the conversations of {}.', child.get_absolute_url(), child, run)


def discarded(run: MaintenanceRun, user: Any) -> str:
    """Discard `run`; return the message for the user."""
    discard_run(run, user)
    return format_html("{} was discarded.", run)


def act(request: Any, run: MaintenanceRun, done: Callable[[MaintenanceRun, Any], str]) -> None:
    """Perform an action on `run`, and show the user its result."""
    try:
        messages.success(request, done(run, request.user))
    except RunNotPermittedError as refusal:
        raise PermissionDenied(str(refusal)) from refusal
    except RunRefusedError as refusal:
        messages.warning(request, str(refusal))


def confirm(request: Any, question: str, sentences: Sequence[str], return_url: str, **context: Any) -> HttpResponse:
    """Ask for confirmation; the form of the page posts to its own address."""
    context |= {"question": question, "sentences": sentences, "return_url": return_url}
    return render(request, "ai_ops/maintenancerun_confirm.html", context)


def _plain(query: QueryDict) -> dict[str, Any]:
    """Return the query of a list without its page number."""
    return {name: values for name, values in query.lists() if name != "page"}


class MaintenanceRunUIViewSet(LongNamesMixin, ObjectDetailViewMixin, ObjectListViewMixin):
    """List and detail of runs, and the actions on a run."""

    queryset = MaintenanceRun.objects.all()
    serializer_class = serializers.MaintenanceRunSerializer
    filterset_class = filters.MaintenanceRunFilterSet
    filterset_form_class = forms.MaintenanceRunFilterForm
    table_class = tables.MaintenanceRunTable
    action_buttons = ("export",)
    object_detail_content = RUN_DETAIL
    lookup_value_regex = ID_PATTERN

    def get_queryset(self) -> QuerySet[MaintenanceRun]:
        """Add the database's time to the run on its page, for the ages of its times."""
        queryset = super().get_queryset()
        if self.action == "list" and self._hides_quiet_passes():
            return without_quiet_passes(queryset)
        if self.action == "retrieve":
            return queryset.select_related("owner", "parent", "job_result").annotate(
                database_now=Now(), is_redriven=is_redriven()
            )
        return queryset

    def get_extra_context(self, request, instance=None):
        """Add whether the list hides quiet passes, and the address of their list."""
        extra = super().get_extra_context(request, instance)
        if self.action == "list":
            extra["quiet_hidden"] = self._hides_quiet_passes()
            extra["show_quiet"] = f"?{urlencode({**_plain(request.GET), 'is_quiet': True}, doseq=True)}"
        return extra

    def _hides_quiet_passes(self) -> bool:
        """Return whether the user has filtered neither for quiet passes nor for one of their kinds."""
        asked = self.request.GET
        return not asked.get("is_quiet") and not set(asked.getlist("kind")) & set(PASSES)

    @action(
        detail=True,
        # After a login the request becomes a GET, which changes nothing.
        methods=["get", "post"],
        custom_view_base_action="view",
        custom_view_additional_permissions=["ai_ops.cancel_maintenancerun"],
    )
    def cancel(self, request, *args, **kwargs):
        """Cancel a pending or running run."""
        return self._act("cancel", cancelled)

    @action(
        detail=True,
        methods=["get", "post"],
        custom_view_base_action="view",
        custom_view_additional_permissions=["ai_ops.redrive_maintenancerun"],
    )
    def redrive(self, request, *args, **kwargs):
        """Redrive a dead run."""
        return self._act("redrive", redriven)

    @action(
        detail=True,
        methods=["get", "post"],
        custom_view_base_action="view",
        custom_view_additional_permissions=["ai_ops.discard_maintenancerun"],
    )
    def discard(self, request, *args, **kwargs):
        """Ask for confirmation, then discard a dead run."""
        return self._act("discard", discarded, "Discard this run?", DISCARDING)

    @action(
        detail=True,
        methods=["get", "post"],
        custom_view_base_action="view",
        custom_view_additional_permissions=["extras.run_job"],
    )
    def repeat(self, request, *args, **kwargs):
        """Ask for confirmation, then repeat a run as a new one."""
        return self._act("repeat", repeated, "Run this again?", "A new run does the same work with the same options.")

    @action(
        detail=True,
        methods=["get", "post"],
        url_path="delete-now",
        url_name="delete_now",
        custom_view_base_action="view",
        custom_view_additional_permissions=["extras.run_job"],
    )
    def delete_now(self, request, *args, **kwargs):
        """Ask for confirmation, then run the cleanup of a dry run as a real run."""
        sentence = f"{self.get_object()} was a dry run and deleted nothing."
        return self._act("delete_now", deleted_now, "Delete these conversations now?", sentence, DELETING)

    def _act(self, name: str, done: Callable[[MaintenanceRun, Any], str], question: str = "", *sentences: str):
        run = self.get_object()
        confirm_may_decide(self.request.user, name, run)
        if self.request.method == "POST":
            act(self.request, run, done)
        elif question:
            return confirm(self.request, question, [str(run), *sentences], self.get_return_url(self.request, run))
        return redirect(self.get_return_url(self.request, run))


class DeadLettersView(ObjectPermissionRequiredMixin, GenericView):
    """Dead runs that wait for a decision, with actions for one or several."""

    queryset = dead_letters(MaintenanceRun.objects.all())
    view_titles = Titles(titles={"*": "Dead Letters"})
    actions = {"redrive": redriven, "discard": discarded}

    def get_required_permission(self) -> str:
        """Require the permission to view runs."""
        return "ai_ops.view_maintenancerun"

    def get(self, request):
        """Show the page."""
        runs = with_rights(self.queryset, request.user, *self.actions)
        table = tables.DeadLetterTable(runs, user=request.user)
        paginate = {"paginator_class": EnhancedPaginator, "per_page": get_paginate_count(request)}
        RequestConfig(request, paginate).configure(table)
        permitted = [name for name in self.actions if table.has_row_for(name)]
        context = {"view_titles": self.get_view_titles(), "table": table, "permitted": permitted}
        return render(request, "ai_ops/dead_letters.html", context)

    def post(self, request):
        """Redrive or discard the selected runs."""
        name = request.POST.get("action")
        if name not in self.actions:
            raise PermissionDenied
        ids = [pk for pk in request.POST.getlist("pk") if is_uuid(pk)]
        ticked = self.queryset.filter(pk__in=ids)
        runs = list(ticked.filter(pk__in=permitted_runs(request.user, name).values("pk")))
        if not runs and (ticked.exists() or not self._may_tick(ids, name)):
            raise PermissionDenied
        if not runs:
            messages.warning(request, "Tick the runs first: none of the ticked runs is still a dead letter.")
        elif name == "discard" and "_confirm" not in request.POST:
            question = f"Discard {len(runs)} runs?" if len(runs) > 1 else "Discard this run?"
            sentences = [*map(str, runs), DISCARDING]
            return confirm(request, question, sentences, reverse(DEAD_LETTERS), runs=runs, action=name)
        for run in runs:
            act(request, run, self.actions[name])
        return redirect(DEAD_LETTERS)

    def _may_tick(self, ids: list[str], name: str) -> bool:
        """Return whether the user may perform the action on runs, and view the ticked runs, in any state."""
        seen = MaintenanceRun.objects.restrict(self.request.user, "view").filter(pk__in=ids)
        return self.request.user.has_perm(f"ai_ops.{name}_maintenancerun") and (not ids or seen.exists())
