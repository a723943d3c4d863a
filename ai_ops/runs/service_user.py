"""The service user: owner of the schedules that the app provisions."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password

# Owner of what the app schedules by itself. Inactive and without a password, so that no login as it is possible.
SERVICE_USER = "ai-ops-scheduler"


def service_user() -> Any:
    """Return the service user; create it at the first call."""
    user, _ = get_user_model().objects.get_or_create(
        username=SERVICE_USER,
        defaults={"is_active": False, "password": make_password(None)},
    )
    return user
