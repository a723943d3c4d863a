"""Beat's sign of life, which tells whether it lives where no schedule does."""

from __future__ import annotations

import pytest
from django.core.cache import cache
from django.db import connection
from nautobot.extras.models import ScheduledJob

from ai_ops.schedules import ensure_schedule
from ai_ops.schedules.beat import ALIVE_KEY, SEEN_KEY, Heartbeat, follow_beat
from ai_ops.schedules.control import pause_schedule
from ai_ops.schedules.status import get_scheduler_status, is_scheduler_running

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def no_sign(db):
    """A thread that is not beat's, and no sign of an earlier one."""
    forget_beat()
    yield
    forget_beat()


def forget_beat():
    connection.execute_wrappers[:] = [each for each in connection.execute_wrappers if not isinstance(each, Heartbeat)]
    cache.delete_many([ALIVE_KEY, SEEN_KEY])


def a_round_of_beat():
    ScheduledJob.objects.exists()


def test_beat_lives_though_all_schedules_are_paused():
    ensure_schedule("health")
    pause_schedule("health")
    assert not is_scheduler_running()
    follow_beat(), follow_beat()
    a_round_of_beat()
    status = get_scheduler_status()
    assert (status["running"], status["why"], status["active_count"]) == (True, None, 0)
    assert status["last_sign"] is not None
    assert len([each for each in connection.execute_wrappers if isinstance(each, Heartbeat)]) == 1


def test_beat_that_gave_its_last_sign_long_ago_does_not_live_whatever_it_started():
    follow_beat()
    a_round_of_beat()
    cache.delete(ALIVE_KEY)
    assert not is_scheduler_running()
    assert "Beat's last heartbeat was at 20" in get_scheduler_status()["why"]


def test_a_sign_is_given_no_more_often_than_needed(monkeypatch):
    follow_beat()
    a_round_of_beat()
    cache.delete(SEEN_KEY)
    for _ in range(5):
        a_round_of_beat()
    assert cache.get(SEEN_KEY) is None


def test_a_cache_that_is_away_ends_no_round_of_beat(settings, caplog):
    follow_beat()
    settings.CACHES = settings.CACHES | {"default": settings.CACHES["default"] | {"LOCATION": "redis://127.0.0.1:1/0"}}
    a_round_of_beat()
    assert "Beat could not write its heartbeat: the cache is unavailable" in caplog.text
    assert get_scheduler_status()["running"] is False
