"""The page "Threads": look up or search for conversations, and explain, pin or erase them."""

from urllib.parse import urlencode

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.html import format_html
from nautobot.apps.ui import Titles
from nautobot.apps.views import GenericView, ObjectPermissionRequiredMixin

from ai_ops.choices import MaintenanceKindChoices, RunTriggerChoices
from ai_ops.details.threads import ERASE, explained, permissions_of, searched, searches
from ai_ops.exceptions import RunNotPermittedError, RunRefusedError
from ai_ops.models import THREAD_ID_MAX_LENGTH, CheckpointStorageSnapshot
from ai_ops.runs.approvals import schedule_of
from ai_ops.runs.requests import request_run

VIEW = "ai_ops.view_checkpointstoragesnapshot"


class ThreadsView(ObjectPermissionRequiredMixin, GenericView):
    """A page for a thread by its exact id, or for the result of a search."""

    queryset = CheckpointStorageSnapshot.objects.all()
    view_titles = Titles(titles={"*": "Threads"})
    template = "ai_ops/threads.html"

    def get_required_permission(self):
        """Require the permission to view the contents of the checkpoint Redis."""
        return VIEW

    def get(self, request):
        """Show the thread with the given thread_id, or the result of the given search."""
        user, thread_id, run_id = request.user, request.GET.get("thread_id", ""), request.GET.get("search", "")
        context = {"view_titles": self.get_view_titles(), "thread_id": thread_id, **permissions_of(user)}
        context["searches"] = searches(user)
        if thread_id and (len(thread_id) > THREAD_ID_MAX_LENGTH or "\0" in thread_id):
            messages.warning(request, f"This is not a thread ID: it must have 1 to {THREAD_ID_MAX_LENGTH} characters.")
        elif thread_id:
            context |= explained(user, thread_id)
        elif run_id and (found := searched(user, run_id)) is not None:
            context |= found
        elif run_id:
            messages.warning(request, "This search does not exist: search again.")
        return render(request, self.template, context)


class ThreadSearchView(ThreadsView):
    """Search for threads in the background; the page shows the result."""

    def get(self, request):
        """Redirect to the page: a GET, which a login may cause, requests no search."""
        return redirect("plugins:ai_ops:threads")

    def post(self, request):
        """Enqueue the search."""
        run = _requested(request, MaintenanceKindChoices.SEARCH, {"pattern": request.POST.get("pattern", "").strip()})
        if run is None:
            return redirect("plugins:ai_ops:threads")
        if schedule := schedule_of(run):
            sentence = 'The search waits for <a href="{}">approval</a>.'
            messages.success(request, format_html(sentence, schedule.get_absolute_url()))
        return redirect(f"{reverse('plugins:ai_ops:threads')}?{urlencode({'search': run.pk})}")


class ThreadEraseView(ThreadsView):
    """Ask for confirmation, then erase threads."""

    view_titles = Titles(titles={"*": "Erase Threads"})
    template = "ai_ops/thread_erase.html"

    def get_required_permission(self):
        """Require the permission to erase."""
        return ERASE

    def post(self, request):
        """Enqueue the erasure."""
        if not request.user.has_perm(VIEW):
            raise PermissionDenied(f"You may not look at conversations: ask for the permission {VIEW}.")
        options = {"reason": request.POST.get("reason", ""), "include_pinned": "include_pinned" in request.POST}
        if pattern := request.POST.get("pattern", ""):
            options["thread_pattern"] = pattern
        else:
            options["thread_ids"] = [request.POST.get("thread_id", "")]
        if run := _requested(request, MaintenanceKindChoices.ERASURE, options):
            sentence = 'The erasure <a href="{}">{}</a> has been requested.'
            messages.success(request, format_html(sentence, run.get_absolute_url(), run))
        return redirect("plugins:ai_ops:threads")


def _requested(request, kind, options):
    """Return the requested run; None if it was refused, with a message for the user."""
    try:
        return request_run(kind, options, request.user, trigger=RunTriggerChoices.JOB)
    except RunNotPermittedError as refusal:
        raise PermissionDenied(str(refusal)) from refusal
    except RunRefusedError as refusal:
        messages.warning(request, str(refusal))
    return None
