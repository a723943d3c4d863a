"""Permissions: an action on an object needs the view permission and that for the action, and a run that for its Job."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.db.models import Exists, Model, OuterRef, QuerySet
from nautobot.extras.models import Job

from ai_ops.exceptions import RunNotPermittedError, RunRefusedError
from ai_ops.kinds import KINDS, class_path_of
from ai_ops.models.runs import MaintenanceRun
from ai_ops.runs.installed_jobs import find_job

# Nautobot's own actions, which have checkboxes on the form of a permission. Other actions are entered in its field
# "additional actions".
ORDINARY_ACTIONS = frozenset({"view", "add", "change", "delete"})


def may(user: Any, action: str, instance: Model) -> bool:
    """Return whether `user` may view `instance` and perform `action` on it."""
    viewed = type(instance).objects.restrict(user, "view")
    return viewed.restrict(user, action).filter(pk=instance.pk).exists()


def confirm_may(user: Any, action: str, instance: Model) -> None:
    """Raise PermissionDenied unless `user` may perform `action` on this visible object.

    Raises:
        PermissionDenied: The user may not; pages and REST answer 403 with this sentence.
    """
    permitted = type(instance).objects.restrict(user, action)
    if not permitted.filter(pk=instance.pk).exists():
        what = f"the permission on {instance._meta.verbose_name_plural} with the additional action {action}"
        if action in ORDINARY_ACTIONS:
            what = f"the permission to {action} {instance._meta.verbose_name_plural}"
        raise PermissionDenied(f"You may not {action} {instance}: ask for {what}.")


def may_run(kind: str, user: Any) -> bool:
    """Return whether `user` may run the Job of a kind."""
    job = find_job(kind)
    return job is not None and Job.objects.check_perms(user, instance=job, action="run")


def runnable_kinds(user: Any) -> set[str]:
    """Return the kinds whose Jobs `user` may run, from one query for all."""
    permitted = Job.objects.restrict(user, "run").filter(installed=True).order_by()
    paths = {f"{module}.{name}" for module, name in permitted.values_list("module_name", "job_class_name")}
    return {kind for kind in KINDS if class_path_of(kind) in paths}


def runnable_job(kind: str, user: Any) -> Job:
    """Return the Job of a kind if it can be run, by `user` if given.

    Raises:
        RunRefusedError: It can't be run; the message has the reason and the advice.
    """
    job = find_job(kind)
    if job is None or job.job_class is None:
        raise RunRefusedError(f"The Job {class_path_of(kind)} is not installed: run nautobot-server post_upgrade.")
    if user is not None and not Job.objects.check_perms(user, instance=job, action="run"):
        raise RunNotPermittedError(f'You may not run the Job "{job}": ask for the permission to run it.')
    if not job.enabled:
        raise RunRefusedError(f'The Job "{job}" is disabled: enable it on its page under Jobs.')
    return job


# Actions that need the permission to run the Job instead of their own.
RUN_ACTIONS = frozenset({"repeat", "delete_now"})


def may_decide(user: Any, action: str, run: MaintenanceRun) -> bool:
    """Return whether `user` may cancel, redrive, discard or repeat `run`.

    An action that creates a new run needs the permission to run its Job. A repeat needs no other permission.
    """
    if action in RUN_ACTIONS:
        return may(user, "view", run) and run.kind in KINDS and may_run(run.kind, user)
    return may(user, action, run) and (action != "redrive" or run.kind not in KINDS or may_run(run.kind, user))


def confirm_may_decide(user: Any, action: str, run: MaintenanceRun) -> None:
    """Raise PermissionDenied unless `user` may perform the action on this visible run.

    Raises:
        PermissionDenied: The user may not; the message names the missing permission.
    """
    if action not in RUN_ACTIONS:
        confirm_may(user, action, run)
    elif run.kind not in KINDS or not may_run(run.kind, user):
        raise PermissionDenied(f"You may not run {run} again: ask for the permission to run its Job.")


def permitted_runs(user: Any, action: str) -> QuerySet:
    """Return the runs for which `may_decide` permits the action."""
    runs = MaintenanceRun.objects.restrict(user, "view").restrict(user, action).order_by()
    return runs.exclude(kind__in=set(KINDS) - runnable_kinds(user)) if action == "redrive" else runs


def with_rights(runs: QuerySet, user: Any, *actions: str) -> QuerySet:
    """Annotate `runs` with `may_redrive` for the action "redrive", and so on."""
    return runs.annotate(
        **{f"may_{action}": Exists(permitted_runs(user, action).filter(pk=OuterRef("pk"))) for action in actions}
    )
