"""Schedules by interval, how long a late run may begin, and whether beat lives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.utils import timezone
from nautobot.apps.testing import TestCase
from nautobot.extras.models import ScheduledJob

from ai_ops.exceptions import ConfigurationError
from ai_ops.schedules import ensure_schedule, next_start
from ai_ops.schedules.status import get_schedule_status, get_scheduler_status, is_scheduler_running
from tests.fakes.jobs import enable_jobs

SCHEDULES = Path(__file__).parents[3] / "docs/user/schedules.md"


class ScheduleTest(TestCase):
    def setUp(self):
        super().setUp()
        enable_jobs()

    def test_an_interval_in_seconds_is_a_crontab(self):
        schedule = ensure_schedule("health", interval=300)
        assert (schedule.crontab, schedule.celery_kwargs["expires"]) == ("*/5 * * * *", 300)
        assert ensure_schedule("health", interval=60) == schedule
        assert ScheduledJob.objects.get().crontab == "* * * * *"

    def test_what_no_crontab_says_is_refused_and_changes_nothing(self):
        for arguments, sentence in (
            ({"interval": 90}, "Give 60 or 120, or a crontab"),
            ({"interval": 300, "crontab": "* * * * *"}, "not both"),
            ({"interval": 300, "misfire_grace_time": 301}, "from 1 to 300"),
            ({"misfire_grace_time": 0}, "from 1 to 600"),
            ({"misfire_grace_time": True}, "from 1 to 600"),
        ):
            with self.subTest(arguments), pytest.raises(ConfigurationError, match=sentence):
                ensure_schedule("health", **arguments)
        assert not ScheduledJob.objects.exists()

    def test_a_late_run_may_begin_for_as_long_as_the_schedule_says(self):
        schedule = ensure_schedule("health", misfire_grace_time=120)
        assert schedule.celery_kwargs["expires"] == 120
        (row,) = get_schedule_status(ask_workers=False)
        assert row["misfire_grace_time"] == 120

    def test_beat_lives_while_it_starts_what_is_due(self):
        assert get_scheduler_status()["why"].startswith("No schedule of this app is active")
        ensure_schedule("supervisor"), ensure_schedule("cleanup")
        assert not is_scheduler_running()
        assert get_scheduler_status()["why"].startswith("Beat has not started any active schedule")
        now = timezone.now()
        begun = ScheduledJob.objects.filter(name="AI Ops: supervise maintenance runs")
        begun.update(last_run_at=now - timedelta(seconds=50), start_time=now - timedelta(days=1))
        assert is_scheduler_running()
        status = get_scheduler_status()
        assert (status["last_schedule"], status["active_count"], status["why"]) == (begun.get().name, 2, None)
        begun.update(last_run_at=now - timedelta(minutes=10))
        assert not is_scheduler_running()
        assert get_scheduler_status()["why"].startswith("Beat has not started a schedule that was due at")

    def test_no_run_is_predicted_for_the_hour_that_summer_time_skips(self):
        schedule = ensure_schedule("health", time_zone="Europe/Berlin")
        last, times = datetime(2027, 3, 28, 0, 30, tzinfo=UTC), []
        for _ in range(6):
            last = next_start(schedule, last)
            times.append(f"{last:%H:%M}")
            assert last.astimezone(UTC).astimezone(last.tzinfo).hour == last.hour
        assert times == ["01:40", "01:50", "03:00", "03:10", "03:20", "03:30"]

    def test_the_old_example_is_refused_as_the_documentation_says(self):
        line = next(
            line for line in SCHEDULES.read_text().splitlines() if line.startswith("ScheduledJob.objects.create")
        )
        with pytest.raises(ValueError, match='must be a "Job" instance'):
            eval(line, {"ScheduledJob": ScheduledJob})
