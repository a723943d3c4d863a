"""`{% cleanup_forecast %}`: the deletions of a cleanup now, according to the last sample, for the form of the Job."""

from typing import Any

from django import template
from django.contrib.humanize.templatetags.humanize import intcomma
from django.template import Context

from ai_ops.checkpoints.snapshots import latest_snapshots
from ai_ops.models import CheckpointStorageSnapshot

register = template.Library()


@register.inclusion_tag("ai_ops/inc/cleanup_forecast.html", takes_context=True)
def cleanup_forecast(context: Context) -> dict[str, Any]:
    """Return the counts of the last sample that the user may view; no counts without such a sample."""
    request = context["request"]
    snapshot, _ = latest_snapshots(CheckpointStorageSnapshot.objects.restrict(request.user, "view"))
    counts = snapshot.data["cleanup"] if snapshot else None
    forecast = counts and {
        "deletes": bool(counts["deleted_count"]),
        "keys": intcomma(counts["deleted_count"]),
        "threads": intcomma(counts["threads_deleted"]),
        "taken": snapshot.taken,
    }
    return {"request": request, "forecast": forecast}
