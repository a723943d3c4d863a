"""Retention policies, read from Nautobot's database for a run of the cleanup."""

from __future__ import annotations

from django.db import Error as DatabaseError
from django.db.models import Q

from ai_ops.exceptions import AiOpsError
from ai_ops.logic.policies import PolicyIndex
from ai_ops.models import RetentionPolicy


class PoliciesError(AiOpsError):
    """Nautobot's database could not be read for policies: nothing may be deleted."""


def read_policies(trial: str | None = None) -> PolicyIndex | None:
    """Return the enabled policies; None without any.

    Args:
        trial: The name or the id of a policy to treat as enabled; None for no policy.

    Raises:
        ConfigurationError: There is no policy of that name or id.
        PoliciesError: The database failed, or a policy in it can't be applied.
    """
    try:
        chosen = Q(enabled=True)
        if trial is not None:
            chosen |= Q(pk=RetentionPolicy.find(trial).pk)
        policies = [policy.as_policy() for policy in RetentionPolicy.objects.filter(chosen)]
    except ValueError as error:
        raise PoliciesError(
            f"A retention policy can't be applied ({error}): nothing is deleted without it. Correct it on its page, "
            "or disable it."
        ) from error
    except DatabaseError as error:
        message = " ".join(str(error).split())
        raise PoliciesError(
            f"The retention policies could not be read from Nautobot's database ({message}), so nothing is deleted. "
            "Check the database, and that nautobot-server migrate has run; the next run tries again."
        ) from error
    return PolicyIndex(policies) if policies else None
