"""Settings that no run could use are named before anything runs."""

import pytest
from django.core.management import call_command
from django.core.management.base import SystemCheckError

from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import ConfigurationError
from ai_ops.jobs.checkpoint_cleanup import CleanupCheckpointsJob


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"retention_days": 0}, "retention_days must be a whole number of days from 1 to 3650, not 0."),
        ({"retention_days": "30"}, "not '30'"),
        ({"retention": 30}, "settings this version does not know: retention."),
        ({"provision_schedules": "no"}, "provision_schedules must be True or False, not 'no'."),
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
