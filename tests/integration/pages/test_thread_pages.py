"""The page "Threads", the pages of policies and erasures, and the trend on "Checkpoint storage"."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from ai_ops.celery_tasks import erase_threads, sample_checkpoint_storage
from ai_ops.checkpoints.snapshots import KEPT, KEPT_DAYS, keep_snapshot, trend
from ai_ops.models import CheckpointStorageSnapshot, PinnedThread, RetentionPolicy, ThreadErasure
from langgraph_checkpoint_compact import CompactRedisSaver
from tests.fakes.conversations import days_ago, graph, on

pytestmark = pytest.mark.django_db


@pytest.fixture
def browser():
    client = Client()
    client.force_login(get_user_model().objects.create(username="admin", is_superuser=True))
    return client


@pytest.fixture
def thread(checkpoint_redis):
    """A conversation of long ago that is still live."""
    app = graph(CompactRedisSaver(checkpoint_redis))
    for age in (60, 1):
        with days_ago(age):
            app.invoke({"said": ["hello"]}, on("<b>t</b>"))
    return "<b>t</b>"


def test_a_thread_is_explained_with_buttons_to_pin_and_to_erase(browser, thread):
    page = browser.get(reverse("plugins:ai_ops:threads"), {"thread_id": thread}).content.decode()
    assert "The thread stays; the next cleanup deletes 3 of its checkpoints." in page or "checkpoints." in page
    assert "&lt;b&gt;t&lt;/b&gt;" in page
    assert "<b>t</b>" not in page
    assert page.count(">goes<") > 0
    assert page.count(">stays<") > 0
    assert "Pin…" in page
    assert "was found" in browser.get(reverse("plugins:ai_ops:threads"), {"thread_id": "no"}).content.decode()
    assert browser.get(reverse("plugins:ai_ops:threads")).status_code == 200


def test_the_question_before_an_erasure_names_the_number(browser, thread):
    page = browser.get(reverse("plugins:ai_ops:thread_erase"), {"thread_id": thread}).content.decode()
    assert "2 key(s) with 6 checkpoint(s)" in page or "checkpoint(s) were looked up" in page
    PinnedThread.objects.create(thread_id=thread)
    assert (
        "include_pinned" in browser.get(reverse("plugins:ai_ops:thread_erase"), {"thread_id": thread}).content.decode()
    )


def test_a_user_without_permission_sees_no_threads(thread):
    client = Client()
    client.force_login(get_user_model().objects.create(username="nobody"))
    for name in ("threads", "thread_erase"):
        assert client.get(reverse(f"plugins:ai_ops:{name}"), {"thread_id": thread}).status_code == 403


def test_a_policys_page_says_what_it_matches_and_what_would_go(browser, checkpoint_redis):
    app = graph(CompactRedisSaver(checkpoint_redis))
    for name, age in (("bot-1", 2), ("bot-2", 0), ("other", 40)):
        with days_ago(age):
            app.invoke({"said": ["hello"]}, on(name))
    policy = RetentionPolicy.objects.create(name="Bots", thread_patterns="bot-*", retention="1 day")
    page = browser.get(policy.get_absolute_url()).content.decode()
    assert "Not sampled with this policy yet" in page
    sampled = sample_checkpoint_storage()
    assert sampled["policies"]["Bots"] | {"deleted_count": 0} == {
        "threads_deleted": 1, "threads_kept": 1, "checkpoints_trimmed": 0, "deleted_count": 0
    }  # fmt: skip
    assert sampled["policies"][""]["threads_deleted"] == 1
    assert sampled["states"] == {"idle": 3}
    page = browser.get(policy.get_absolute_url()).content.decode()
    assert "whole threads that would go" in page.lower()
    policy.retention = "2 hours"
    policy.validated_save()
    assert "has changed since the last sampling" in browser.get(policy.get_absolute_url()).content.decode()
    policy.enabled = False
    policy.validated_save()
    assert "is not enabled" in browser.get(policy.get_absolute_url()).content.decode()
    assert "Dry run" in browser.get(policy.get_absolute_url()).content.decode()
    storage = browser.get(reverse("plugins:ai_ops:checkpointstorage")).content.decode()
    assert "Policy Bots" in storage
    assert "trend of memory" in storage.lower()


def test_an_erasure_has_a_page_and_nothing_deletes_it(browser, thread):
    erase_threads([thread], reason="a request")
    record = ThreadErasure.objects.get()
    assert "a request" in browser.get(record.get_absolute_url()).content.decode()
    listed = browser.get(reverse("plugins:ai_ops:threaderasure_list"), headers={"HX-Request": "true"})
    assert str(record) in listed.content.decode()


def test_one_snapshot_a_day_stays_for_a_year_and_more():
    now = timezone.now().replace(hour=12)
    for day in range(0, KEPT_DAYS + 30, 5):
        for hour in (1, 2):
            data = {"success": True, "checkpoint_keys": day, "thread_count": hour, "memory_bytes": 1, "error": None}
            each = CheckpointStorageSnapshot.objects.create(data=data)
            CheckpointStorageSnapshot.objects.filter(pk=each.pk).update(taken=now - timedelta(days=day, hours=3 - hour))
    keep_snapshot({"success": True, "checkpoint_keys": 7, "thread_count": 7, "memory_bytes": None, "error": None})
    days = trend()
    assert len(days) == KEPT_DAYS // 5
    assert all(day["threads"] in (2, 7) for day in days), "the last of each day"
    assert CheckpointStorageSnapshot.objects.count() <= len(days) + KEPT
    assert days[-1]["memory"] is None or days[-1]["memory"] == 1
