"""Unit tests need no Django, not even a configured one."""

import os

import ai_ops  # noqa: F401

if "AI_OPS_TEST_DATABASE" not in os.environ:
    # Importing Nautobot, as the package does, names a settings module that pytest-django would look for.
    os.environ.pop("DJANGO_SETTINGS_MODULE", None)
