"""What Django finds wrong before it serves or migrates."""

from typing import Any

from django.core.checks import CheckMessage, Error

from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import ConfigurationError


def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Name a setting of this app that no run could use, when an administrator is there to change it."""
    try:
        AiOpsSettings.load()
    except ConfigurationError as error:
        return [Error(str(error), hint="Change it in nautobot_config.py.", id="ai_ops.E001")]
    return []
