"""Preparation of the local Nautobot for its first request, in one process, since importing Nautobot takes seconds."""

from __future__ import annotations

import os
import sys


def main(*arguments: str) -> None:
    """Migrate with ``--migrate``, and create the superuser and its API token if they are missing."""
    import nautobot

    nautobot.setup()
    from django.contrib.auth import get_user_model
    from django.core.management import call_command
    from nautobot.users.models import Token

    if "--migrate" in arguments:
        call_command("migrate", interactive=False, verbosity=0)
    user, created = get_user_model().objects.get_or_create(
        username=os.environ["AI_OPS_DEMO_USER"], defaults={"is_superuser": True, "is_staff": True}
    )
    if created:
        user.set_password(os.environ["AI_OPS_DEMO_PASSWORD"])
        user.save()
    Token.objects.get_or_create(user=user, key=os.environ["AI_OPS_DEMO_TOKEN"])


if __name__ == "__main__":
    main(*sys.argv[1:])
