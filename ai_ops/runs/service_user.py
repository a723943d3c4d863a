"""The service user: owner of the schedules that the app provisions."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password

# Owner of the provisioned schedules. It is inactive and has no password, so that it can't log in.
SERVICE_USER = "ai-ops-scheduler"


def service_user() -> Any:
    """Return the service user; create it at the first call."""
    user, _ = get_user_model().objects.get_or_create(
        username=SERVICE_USER,
        defaults={"is_active": False, "password": make_password(None)},
    )
    return user
