"""The page "Threads": one conversation looked up, explained, pinned and erased."""

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.html import format_html
from nautobot.apps.ui import Titles
from nautobot.apps.views import GenericView, ObjectPermissionRequiredMixin

from ai_ops.celery_tasks import explain_thread
from ai_ops.choices import MaintenanceKindChoices, RunTriggerChoices
from ai_ops.exceptions import RunNotPermittedError, RunRefusedError
from ai_ops.models import THREAD_ID_MAX_LENGTH, CheckpointStorageSnapshot, ThreadErasure
from ai_ops.runs.requests import may_run, request_run

ERASE = "ai_ops.add_threaderasure"
VIEW = "ai_ops.view_checkpointstoragesnapshot"


class ThreadsView(ObjectPermissionRequiredMixin, GenericView):
    """A thread by its exact id: what the cleanup sees of it, and what the next run would do."""

    queryset = CheckpointStorageSnapshot.objects.all()
    view_titles = Titles(titles={"*": "Threads"})
    template = "ai_ops/threads.html"

    def get_required_permission(self):
        """Ask for the permission to see what is in the checkpoint Redis."""
        return VIEW

    def get(self, request):
        """Show the page; with a thread_id the thread."""
        thread_id = request.GET.get("thread_id", "")
        context = {"view_titles": self.get_view_titles(), "thread_id": thread_id}
        if thread_id and (len(thread_id) > THREAD_ID_MAX_LENGTH or "\0" in thread_id):
            messages.warning(request, f"No thread has such an id: it has 1 to {THREAD_ID_MAX_LENGTH} characters.")
        elif thread_id:
            found = explain_thread(thread_id)
            context |= {
                "found": found,
                "checkpoint_count": sum(len(space["checkpoints"]) for space in found["namespaces"]),
                "state": _state(found),
                "erasures": ThreadErasure.objects.restrict(request.user, "view").filter(thread_ids__contains=thread_id)[
                    :3
                ],
                "may_pin": request.user.has_perm("ai_ops.add_pinnedthread"),
                "may_erase": request.user.has_perm(ERASE) and may_run(MaintenanceKindChoices.ERASURE, request.user),
            }
        return render(request, self.template, context)


class ThreadEraseView(ThreadsView):
    """Ask before a thread is erased, and have it erased."""

    view_titles = Titles(titles={"*": "Erase a Thread"})
    template = "ai_ops/thread_erase.html"

    def get_required_permission(self):
        """Ask for the permission to erase."""
        return ERASE

    def post(self, request):
        """Enqueue the erasure."""
        if not request.user.has_perm(VIEW):
            raise PermissionDenied(f"You may not look at conversations: ask for the permission {VIEW}.")
        thread_id, reason = request.POST.get("thread_id", ""), request.POST.get("reason", "")
        address = f"{reverse('plugins:ai_ops:threads')}"
        options = {"thread_ids": [thread_id], "reason": reason, "include_pinned": "include_pinned" in request.POST}
        try:
            run = request_run(MaintenanceKindChoices.ERASURE, options, request.user, trigger=RunTriggerChoices.JOB)
        except RunNotPermittedError as refusal:
            raise PermissionDenied(str(refusal)) from refusal
        except RunRefusedError as refusal:
            messages.warning(request, str(refusal))
            return redirect(address)
        sentence = 'The erasure <a href="{}">{}</a> has been requested.'
        messages.success(request, format_html(sentence, run.get_absolute_url(), run))
        return redirect(address)


def _erasures(user, thread_id):
    return ThreadErasure.objects.restrict(user, "view").filter(thread_ids__contains=thread_id)[:3]


def _state(found):
    if not found["found"]:
        return "not found"
    return "pinned" if found["pinned"] else "waiting" if found["waits"] else "idle"
