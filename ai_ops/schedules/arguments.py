"""Checks of the types and lengths of arguments that scripts pass to the functions for schedules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth import get_user_model
from nautobot.extras.models import ScheduledJob

from ai_ops.exceptions import ConfigurationError
from ai_ops.logic.arguments import FLAG, Rule, refusal, text

_TEXT = text(ScheduledJob._meta.get_field("name").max_length)
_VARIABLES = Rule(
    lambda value: isinstance(value, Mapping) and all(map(_TEXT.is_valid, value)),
    "a dictionary of the Job's variables by name",
)
_USER = Rule(lambda value: isinstance(value, get_user_model()), 'a user, such as User.objects.get(username="alice")')
_RULES = {
    **dict.fromkeys(("job", "name", "crontab", "time_zone", "queue"), _TEXT),
    "enabled": FLAG,
    "job_kwargs": _VARIABLES,
    "user": _USER,
}


def check_arguments(**arguments: Any) -> None:
    """Check the arguments of a function for schedules by their names; None stands for a default, and is valid.

    Raises:
        ConfigurationError: One has the wrong type, or a text is too long or contains a NUL.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    if sentence := refusal(_RULES, given):
        raise ConfigurationError(sentence)
