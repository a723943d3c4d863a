"""Users with chosen permissions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model
from nautobot.users.models import ObjectPermission

_numbers = itertools.count()


def permit(user: Any, *models: type[Model], actions: Iterable[str], constraints: dict[str, Any] | None = None) -> None:
    """Permit these actions on objects of each model.

    Args:
        user: The user who may do them from now on.
        models: The models of the objects.
        actions: Such as ``view`` and ``change``.
        constraints: The objects that they hold for; all unless given.
    """
    for model in models:
        name = f"{user} {next(_numbers)}: {', '.join(actions)} {model._meta.label}"
        permission = ObjectPermission.objects.create(name=name, actions=list(actions), constraints=constraints)
        permission.users.add(user)
        permission.object_types.add(ContentType.objects.get_for_model(model))


def user_who_may(*permissions: str, constraints: dict[str, Any] | None = None) -> Any:
    """Create a user with these permissions alone.

    Args:
        permissions: As in ``ai_ops.view_mcpserver``.
        constraints: The objects that they hold for; all unless given.
    """
    user = get_user_model().objects.create(username=f"user {next(_numbers)}")
    for each in permissions:
        app_label, rest = each.split(".")
        name, model = rest.rsplit("_", 1)
        permit(user, apps.get_model(app_label, model), actions=[name], constraints=constraints)
    return user
