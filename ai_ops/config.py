"""The app's settings, read once per run, every value checked against its range."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from django.conf import settings

from ai_ops.exceptions import ConfigurationError

MAX_RETENTION_DAYS = 3650  # ten years; more is a slip of the keyboard


@dataclass(frozen=True)
class AiOpsSettings:
    """The values of ``PLUGINS_CONFIG["ai_ops"]``.

    Attributes:
        retention_days: Age in days past which a checkpoint may be deleted, 1 to 3650.
        provision_schedules: Whether a new installation gets the default schedules.

    Raises:
        ConfigurationError: A value is out of its range.
    """

    retention_days: int = 30
    provision_schedules: bool = True

    def __post_init__(self) -> None:
        validated_retention_days(self.retention_days)
        if not isinstance(self.provision_schedules, bool):
            raise ConfigurationError(
                f"provision_schedules must be True or False, not {self.provision_schedules!r}: "
                'change PLUGINS_CONFIG["ai_ops"].'
            )

    @classmethod
    def load(cls) -> AiOpsSettings:
        """Read the settings as they are now."""
        given: dict[str, Any] = settings.PLUGINS_CONFIG.get("ai_ops", {})
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(given) - known):
            raise ConfigurationError(
                f'PLUGINS_CONFIG["ai_ops"] has settings this version does not know: {", ".join(unknown)}. '
                f"Known are: {', '.join(sorted(known))}."
            )
        return cls(**given)


def validated_retention_days(value: object) -> int:
    """Return `value` if it is a usable retention, a whole number of days from 1 to 3650.

    Raises:
        ConfigurationError: It is anything else; True and "30" are.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_RETENTION_DAYS:
        raise ConfigurationError(
            f"retention_days must be a whole number of days from 1 to {MAX_RETENTION_DAYS}, not {value!r}: "
            "nothing was deleted."
        )
    return value
