"""The buttons on a run's page."""

from __future__ import annotations

from django.template import Context
from nautobot.apps.ui import Button, ButtonColorChoices, PostButton
from nautobot.apps.views import get_obj_from_context

from ai_ops.choices import MaintenanceKindChoices, RunStateChoices
from ai_ops.details.run_advice import is_undecided
from ai_ops.kinds import KINDS
from ai_ops.models import MaintenanceRun
from ai_ops.runs.permissions import may_decide


class RunButton(PostButton):
    """A button for an action on a run, for users who may perform it on this run."""

    action = ""

    def should_render(self, context: Context) -> bool:
        """Show the button if the action would succeed."""
        run = get_obj_from_context(context)
        return (
            super().should_render(context) and self.fits(run) and may_decide(context["request"].user, self.action, run)
        )

    def fits(self, run: MaintenanceRun) -> bool:
        """Return whether the run is a dead letter that waits for a decision."""
        return is_undecided(run)


class RepeatButton(RunButton):
    """Run again, after a confirmation, because the run may delete keys."""

    # A link: the page that it opens asks for confirmation.
    template_path = Button.template_path
    action = "repeat"

    def fits(self, run: MaintenanceRun) -> bool:
        """Return whether the run has ended and needs no other decision."""
        return run.is_final and not is_undecided(run) and run.kind in KINDS


class DeleteNowButton(RepeatButton):
    """Run the cleanup that this dry run reported as a real run."""

    action = "delete_now"

    def fits(self, run: MaintenanceRun) -> bool:
        """Return whether the run was a dry run that found something to delete."""
        counters = run.counters
        dry = run.kind == MaintenanceKindChoices.CLEANUP and counters.get("dryrun") is True
        return super().fits(run) and dry and run.state == RunStateChoices.SUCCEEDED and bool(counters["deleted_count"])


class DiscardButton(RunButton):
    """Discard a dead letter, after a confirmation."""

    template_path = Button.template_path


class CancelButton(RunButton):
    """Cancel a run: between two batches, or before it starts."""

    def fits(self, run: MaintenanceRun) -> bool:
        """Return whether the run can be cancelled."""
        return not run.is_final and not run.cancel_requested


RUN_BUTTONS = (
    CancelButton(
        weight=100,
        label="Cancel",
        icon="mdi-stop-circle-outline",
        color=ButtonColorChoices.YELLOW,
        link_name="plugins:ai_ops:maintenancerun_cancel",
        action="cancel",
    ),
    RunButton(
        weight=200,
        label="Redrive",
        icon="mdi-restart",
        color=ButtonColorChoices.BLUE,
        link_name="plugins:ai_ops:maintenancerun_redrive",
        action="redrive",
    ),
    DiscardButton(
        weight=300,
        label="Discard",
        icon="mdi-trash-can-outline",
        color=ButtonColorChoices.DEFAULT,
        link_name="plugins:ai_ops:maintenancerun_discard",
        action="discard",
    ),
    DeleteNowButton(
        weight=400,
        label="Delete these now",
        icon="mdi-delete-outline",
        color=ButtonColorChoices.RED,
        link_name="plugins:ai_ops:maintenancerun_delete_now",
    ),
    RepeatButton(
        weight=500,
        label="Run again",
        icon="mdi-play-circle-outline",
        color=ButtonColorChoices.BLUE,
        link_name="plugins:ai_ops:maintenancerun_repeat",
    ),
)
