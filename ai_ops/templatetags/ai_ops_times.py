"""`{{ run.started|ago }}` and `{{ run.execution_time_ms|duration }}`: times and durations as every page shows them."""

from django import template

from ai_ops.ui import times

register = template.Library()
register.filter("ago", times.ago)
register.filter("duration", times.duration)
