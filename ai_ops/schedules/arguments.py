"""Types and lengths of what scripts pass to the functions for schedules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth import get_user_model

from ai_ops.exceptions import ConfigurationError
from ai_ops.logic.foreign_text import shown

# The length of Nautobot's columns for names, crontabs and class paths.
TEXT_LENGTH = 255


def check_arguments(**arguments: Any) -> None:
    """Check the arguments of a function for schedules by their names; None stands for a default, and is valid.

    Raises:
        ConfigurationError: One has the wrong type, or a text is too long or contains a NUL.
    """
    for name, value in arguments.items():
        is_valid, expected = _RULES.get(name, _TEXT)
        if value is not None and not is_valid(value):
            raise ConfigurationError(f"{name} must be {expected}, not {shown(value)}.")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= TEXT_LENGTH and "\0" not in value


def _is_variables(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_text, value))


_TEXT = (_is_text, f"a text of at most {TEXT_LENGTH} characters, none of them NUL")
_RULES = {
    "enabled": (lambda value: isinstance(value, bool), "True or False"),
    "job_kwargs": (_is_variables, "a dictionary of the Job's variables by name"),
    "user": (lambda value: isinstance(value, get_user_model()), 'a user, such as User.objects.get(username="alice")'),
}
