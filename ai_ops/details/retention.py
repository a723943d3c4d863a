"""Pages of retention policies and erasures: their panels and buttons."""

from __future__ import annotations

from django.utils.html import format_html
from nautobot.apps.ui import ObjectDetailContent, ObjectFieldsPanel, SectionChoices


class RetentionPolicyFieldsPanel(ObjectFieldsPanel):
    """The fields of a policy; what it leaves empty comes from the run."""

    def render_value(self, key, value, context):
        """Show each pattern on a line of its own, and say where an empty field gets its value from."""
        if key == "thread_patterns":
            return format_html('<span style="white-space: pre-wrap; word-break: break-all">{}</span>', value)
        if key in INHERITED and value in ("", None):
            return format_html('<span class="text-secondary">{}</span>', "as the run says")
        return super().render_value(key, value, context)


INHERITED = ("retention", "pending_retention", "trim_live_threads", "keep_last")

RETENTION_POLICY_DETAIL = ObjectDetailContent(
    panels=(
        RetentionPolicyFieldsPanel(
            weight=100,
            section=SectionChoices.LEFT_HALF,
            fields=(
                "name",
                "weight",
                "enabled",
                "thread_patterns",
                "retention",
                "pending_retention",
                "trim_live_threads",
                "keep_last",
                "max_checkpoints",
                "max_thread_mb",
                "description",
            ),
        ),
    ),
)

ERASURE_DETAIL = ObjectDetailContent(
    panels=(
        ObjectFieldsPanel(
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
        ObjectFieldsPanel(
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
