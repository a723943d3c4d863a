"""Users with chosen permissions."""

from __future__ import annotations

import itertools
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from nautobot.users.models import ObjectPermission

_numbers = itertools.count()


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
        permission = ObjectPermission.objects.create(
            name=f"{user.username}: {each}", actions=[name], constraints=constraints
        )
        permission.users.add(user)
        permission.object_types.add(ContentType.objects.get(app_label=app_label, model=model))
    return user
