"""The page of an erasure: its panels."""

from __future__ import annotations

from datetime import timedelta

from django.utils.html import format_html
from nautobot.apps.templatetags import placeholder
from nautobot.apps.ui import ObjectDetailContent, SectionChoices

from ai_ops.ui.panels import FieldsPanel

SHOWN_NAMES = 100


class ErasureFieldsPanel(FieldsPanel):
    """The fields of an erasure. Lists have a line for each name, and counts are shown as text."""

    def render_value(self, key, value, context):
        """Show lists and counts as text rather than as JSON."""
        if key in ("thread_ids", "store_namespaces") and value:
            lines = [str(each) for each in value[:SHOWN_NAMES]]
            lines += [f"and {len(value) - SHOWN_NAMES:,} more"] if len(value) > SHOWN_NAMES else []
            return format_html('<span style="white-space: pre-wrap; word-break: break-all">{}</span>', "\n".join(lines))
        if key == "deleted_by_family" and value:
            return ", ".join(f"{count:,} {family}" for family, count in sorted(value.items()))
        if key == "seconds":
            value = timedelta(seconds=value)
        if isinstance(value, list | dict) and not value:
            # Nautobot shows an empty list as JSON.
            return placeholder(None)
        return super().render_value(key, value, context)


ERASURE_DETAIL = ObjectDetailContent(
    panels=(
        ErasureFieldsPanel(
            weight=100,
            section=SectionChoices.LEFT_HALF,
            fields=(
                "created",
                "finished",
                "requested_by",
                "requested_by_name",
                "reason",
                "thread_pattern",
                "thread_ids",
                "is_hashed",
                "store_namespaces",
                "include_pinned",
            ),
        ),
        ErasureFieldsPanel(
            weight=100,
            section=SectionChoices.RIGHT_HALF,
            label="Result",
            fields=(
                "verified",
                "thread_count",
                "deleted_count",
                "deleted_by_family",
                "late_count",
                "rounds",
                "seconds",
                "guarded_until",
                "error",
            ),
        ),
    ),
)
