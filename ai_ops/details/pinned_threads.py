"""The page of a pinned thread."""

from django.utils.html import format_html
from nautobot.apps.ui import ObjectDetailContent, SectionChoices
from nautobot.apps.views import get_obj_from_context

from ai_ops.checkpoints.snapshots import in_redis, latest_snapshots
from ai_ops.ui.panels import FieldsPanel


class PinnedThreadFieldsPanel(FieldsPanel):
    """The fields of a pin, and whether it matches anything."""

    def get_data(self, context):
        """Add the result of the last sampling."""
        pin = get_obj_from_context(context)
        return {**super().get_data(context), "in_redis": in_redis(pin, latest_snapshots()[0])}

    def render_key(self, key, value, context):
        """Keep the spelling of "Redis"."""
        return "In Redis" if key == "in_redis" else super().render_key(key, value, context)

    def render_value(self, key, value, context):
        """Show a thread's id with all its spaces."""
        if key == "thread_id":
            return format_html('<span style="white-space: pre-wrap; word-break: break-all">{}</span>', value)
        return super().render_value(key, value, context)


PINNED_THREAD_DETAIL = ObjectDetailContent(
    panels=(
        PinnedThreadFieldsPanel(
            weight=100,
            section=SectionChoices.LEFT_HALF,
            fields=("thread_id", "is_glob", "note", "pinned_by", "created"),
        ),
    ),
)
