"""The page "Checkpoint storage"."""

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.shortcuts import redirect, render
from django.utils.html import format_html
from nautobot.apps.ui import Titles
from nautobot.apps.views import GenericView, ObjectPermissionRequiredMixin

from ai_ops.choices import MaintenanceKindChoices, RunTriggerChoices
from ai_ops.details.storage import page_context
from ai_ops.exceptions import RunNotPermittedError, RunRefusedError
from ai_ops.models import CheckpointStorageSnapshot
from ai_ops.runs.approvals import schedule_of
from ai_ops.runs.requests import request_run


class CheckpointStorageView(ObjectPermissionRequiredMixin, GenericView):
    """The page of the last sampling of the checkpoint Redis. It sends no commands to Redis."""

    queryset = CheckpointStorageSnapshot.objects.all()
    view_titles = Titles(titles={"*": "Checkpoint storage"})

    def get_required_permission(self):
        """Require the permission to view snapshots."""
        return "ai_ops.view_checkpointstoragesnapshot"

    def get(self, request):
        """Show the page."""
        context = {"view_titles": self.get_view_titles(), **page_context(request.user)}
        return render(request, "ai_ops/checkpoint_storage.html", context)


class CheckpointStorageSampleView(CheckpointStorageView):
    """Sample the storage in the background; the page shows the result."""

    def get(self, request):
        """Redirect a GET, which a login may cause, to the page without requesting a sampling."""
        return redirect("plugins:ai_ops:checkpointstorage")

    def post(self, request):
        """Enqueue the Job."""
        try:
            run = request_run(MaintenanceKindChoices.STORAGE, user=request.user, trigger=RunTriggerChoices.JOB)
        except RunNotPermittedError as refusal:
            raise PermissionDenied(str(refusal)) from refusal
        except RunRefusedError as refusal:
            messages.warning(request, str(refusal))
            return redirect("plugins:ai_ops:checkpointstorage")
        sentence = 'The storage is being <a href="{}">sampled</a>.'
        if schedule := schedule_of(run):
            sentence = 'The sampling waits for <a href="{}">approval</a>.'
        messages.success(request, format_html(sentence, (schedule or run.job_result).get_absolute_url()))
        return redirect("plugins:ai_ops:checkpointstorage")
