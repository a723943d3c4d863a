"""Panels of facts, with times and durations in the format of all pages."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.template import Context
from nautobot.apps.ui import KeyValueTablePanel, ObjectFieldsPanel

from ai_ops.ui.time_markup import ago, duration


class TimesMixin:
    """Shows times as ages, and durations in words, instead of in Nautobot's formats."""

    def render_value(self, key: str, value: Any, context: Context) -> Any:
        """Show the value."""
        if isinstance(value, datetime):
            return ago(value)
        if isinstance(value, timedelta):
            return duration(value)
        return super().render_value(key, value, context)


class FieldsPanel(TimesMixin, ObjectFieldsPanel):
    """Fields of an object."""


class FactsPanel(TimesMixin, KeyValueTablePanel):
    """Values by their names."""
