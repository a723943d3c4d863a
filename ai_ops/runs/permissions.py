"""Rights to actions: to act on an object takes the permission to view it, and then the one of the action."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.db.models import Exists, Model, OuterRef, QuerySet

from ai_ops.kinds import KINDS
from ai_ops.models.runs import MaintenanceRun
from ai_ops.runs.requests import may_run

# Nautobot's own, each a box on the form of a permission; others are written into its field "additional actions".
ORDINARY_ACTIONS = frozenset({"view", "add", "change", "delete"})


def may(user: Any, action: str, instance: Model) -> bool:
    """Tell whether `user` has the permission to view `instance`, and the one of `action` on it."""
    viewed = type(instance).objects.restrict(user, "view")
    return viewed.restrict(user, action).filter(pk=instance.pk).exists()


def confirm_may(user: Any, action: str, instance: Model) -> None:
    """Refuse an action on an object that `user` sees, unless the permission of `action` covers it.

    Raises:
        PermissionDenied: It does not; pages and REST answer 403 with its sentence.
    """
    permitted = type(instance).objects.restrict(user, action)
    if not permitted.filter(pk=instance.pk).exists():
        what = f"the permission on {instance._meta.verbose_name_plural} with the additional action {action}"
        if action in ORDINARY_ACTIONS:
            what = f"the permission to {action} {instance._meta.verbose_name_plural}"
        raise PermissionDenied(f"You may not {action} {instance}: ask for {what}.")


def may_decide(user: Any, action: str, run: MaintenanceRun) -> bool:
    """Tell whether `user` may cancel, redrive or discard `run`; a redrive takes the permission to run the Job too."""
    return may(user, action, run) and (action != "redrive" or run.kind not in KINDS or may_run(run.kind, user))


def permitted_runs(user: Any, action: str) -> QuerySet:
    """Return the runs for which `may_decide` answers yes."""
    runs = MaintenanceRun.objects.restrict(user, "view").restrict(user, action).order_by()
    return runs.exclude(kind__in=[kind for kind in KINDS if not may_run(kind, user)]) if action == "redrive" else runs


def with_rights(runs: QuerySet, user: Any, *actions: str) -> QuerySet:
    """Annotate `runs` with `may_redrive` for an action "redrive", and so on."""
    return runs.annotate(
        **{f"may_{action}": Exists(permitted_runs(user, action).filter(pk=OuterRef("pk"))) for action in actions}
    )
