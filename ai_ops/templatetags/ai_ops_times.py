"""`{{ run.started|ago }}`, `{{ now|at }}`, `{{ run.execution_time_ms|duration }}`: times in the format of all pages."""

from django import template

from ai_ops.ui import times

register = template.Library()
register.filter("ago", times.ago)
register.filter("at", times.at)
register.filter("duration", times.duration)
