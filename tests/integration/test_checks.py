"""Settings that no run could use are named before anything runs."""

import pytest
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator

from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import ConfigurationError
from ai_ops.jobs.checkpoint_cleanup import CleanupCheckpointsJob


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"retention_days": 0}, "retention_days must be a number of days from 1/24, which is an hour, to 3650, not 0."),
        ({"retention_days": "30"}, 'not "30"'),
        ({"retention": 30}, "settings this version does not know: retention."),
        ({"provision_schedules": "no"}, 'provision_schedules must be True or False, not "no".'),
        ({"memory_limit_mb": 100}, "set both or neither"),
    ],
)
def test_a_setting_out_of_its_range_is_named(settings, given, sentence):
    settings.PLUGINS_CONFIG = {"ai_ops": given}
    with pytest.raises(ConfigurationError) as refusal:
        AiOpsSettings.load()
    assert sentence in str(refusal.value)
    assert 'PLUGINS_CONFIG["ai_ops"]' in str(refusal.value)
    with pytest.raises(SystemCheckError, match=r"ai_ops\.E001"):
        call_command("check", "ai_ops")


@pytest.mark.django_db
def test_the_jobs_form_opens_with_a_setting_that_no_run_could_use(settings):
    settings.PLUGINS_CONFIG = {"ai_ops": {"retention_days": 0}}
    assert "retention_days" in CleanupCheckpointsJob.as_form().fields


class OfFieldsWithOurNames(SchemaGenerator):
    """The schema of our API, and of all others that have choices in a field that is called as one of ours."""

    def _get_paths_and_endpoints(self):
        endpoints = super()._get_paths_and_endpoints()
        ours = {name for *_, view in endpoints if is_ours(view) for name in fields_with_choices(view)}
        return [each for each in endpoints if is_ours(each[3]) or ours & fields_with_choices(each[3])]


def is_ours(view):
    return type(view).__module__.startswith("ai_ops.")


def fields_with_choices(view):
    model = getattr(getattr(view, "queryset", None), "model", None)
    return {field.name for field in model._meta.get_fields() if getattr(field, "choices", None)} if model else set()


@pytest.mark.django_db
def test_the_schema_brings_no_warning_of_ours():
    """As `check --deploy` makes it, which takes three times as long for all of Nautobot."""
    GENERATOR_STATS.reset()
    with GENERATOR_STATS.silence():
        schema = OfFieldsWithOurNames().get_schema(request=None, public=True)
    warnings = [str(each) for each in [*GENERATOR_STATS._warn_cache, *GENERATOR_STATS._error_cache]]
    assert "kind" in schema["components"]["schemas"]["MaintenanceRun"]["properties"]
    assert [each for each in warnings if "collision" in each or "ai_ops" in each or "ai-ops" in each] == []
