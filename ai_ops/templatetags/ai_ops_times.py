"""`{{ run.started|ago }}`, `{{ now|at }}`, `{{ run.execution_time_ms|duration }}`: times in the format of all pages."""

from django import template

from ai_ops.ui import time_markup

register = template.Library()
register.filter("ago", time_markup.ago)
register.filter("at", time_markup.at)
register.filter("duration", time_markup.duration)
