"""The page "Threads", the pages of policies and erasures, and the trend on "Checkpoint storage"."""

from __future__ import annotations

import re
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.test import Client, override_settings
from django.urls import reverse
from django.utils import timezone
from nautobot.users.models import ObjectPermission

from ai_ops.celery_tasks import cleanup_old_checkpoints, erase_threads, sample_checkpoint_storage
from ai_ops.checkpoints.snapshots import KEPT, KEPT_DAYS, keep_snapshot, trend
from ai_ops.models import CheckpointStorageSnapshot, MaintenanceRun, PinnedThread, RetentionPolicy, ThreadErasure
from langgraph_checkpoint_compact import CompactRedisSaver
from tests.fakes.conversations import days_ago, graph, old_id, on

pytestmark = pytest.mark.django_db


@pytest.fixture
def thread(checkpoint_redis):
    """A conversation of long ago that is still live."""
    app = graph(CompactRedisSaver(checkpoint_redis))
    for age in (60, 1):
        with days_ago(age):
            app.invoke({"said": ["hello"]}, on("<b>t</b>"))
    return "<b>t</b>"


@pytest.fixture
def search(browser, running_jobs, django_capture_on_commit_callbacks):
    """Gives the page of a search, once its Job has done it."""

    def done(pattern, **options):
        with django_capture_on_commit_callbacks(execute=options.pop("execute", True)):
            answer = browser.post(reverse("plugins:ai_ops:thread_search"), {"pattern": pattern})
        assert answer.status_code == 302
        return browser.get(answer.url)

    return done


def said(page):
    """The words of a page, without its tags."""
    return " ".join(re.sub(r"<[^>]*>", " ", page.content.decode()).split())


def test_threads_are_searched_for_in_the_background_and_have_buttons(search, browser, checkpoint_redis):
    saver = CompactRedisSaver(checkpoint_redis)
    RetentionPolicy.objects.create(name="Bots", thread_patterns="*-bot", retention="forever")
    PinnedThread.objects.create(thread_id="user-7-pinned")
    for name, age, asks in (
        ("user-7-a", 3, False),
        ("user-7-asks", 0, True),
        ("user-7-bot", 1, False),
        ("user-7-pinned", 2, False),
        ("other", 0, False),
    ):
        with days_ago(age):
            graph(saver, asks=asks).invoke({"said": ["hello"]}, on(name))
    checkpoint_redis.set(f"checkpoint:user-7-<b>:{old_id(5)}", "{}")
    graph(saver).invoke({"said": ["hello"]}, on("user-7-gone"))
    erase_threads(["user-7-gone"], reason="why")
    page = search("user-7-*")
    words = said(page)
    assert "5 threads match with 9 keys. All 11 keys were scanned" in words, words
    rows = [
        said(SimpleNamespace(content=row.encode()))
        for row in re.findall(r"<tr>.*?</tr>", page.content.decode(), re.DOTALL)
    ]
    order = [
        "user-7-asks waiting",
        "user-7-bot Bots idle",
        "user-7-pinned pinned",
        "user-7-a idle",
        "user-7-&lt;b&gt; idle",
        "user-7-gone erased",
    ]
    found = [row for row in rows if row.startswith("user-7")]
    assert [row[: len(start)] for row, start in zip(found, order, strict=True)] == order
    assert "Bots" in found[1]
    assert "plain keys" in found[4]
    assert [row.count("Erase…") for row in found] == [1, 1, 1, 1, 1, 0]
    assert [row.count("Pin…") for row in found] == [1, 1, 0, 1, 1, 0]
    assert "Erase all matching threads…" in words
    run = MaintenanceRun.objects.get(kind="search")
    question = said(browser.get(reverse("plugins:ai_ops:thread_erase"), {"search": run.pk}))
    assert "Erase all threads that match user-7-* ?" in question
    assert "found 5 threads with 9 keys" in question
    assert f"?search={run.pk}" in browser.get(reverse("plugins:ai_ops:threads")).content.decode()


def test_a_search_that_is_not_done_is_followed_and_one_of_another_user_is_not_shown(search):
    page = search("user-*", execute=False).content.decode()
    assert "The search is pending." in page
    run = MaintenanceRun.objects.get(kind="search")
    assert f'hx-get="/plugins/ai-ops/threads/?search={run.pk}"' in page
    other = Client()
    user = get_user_model().objects.create(username="other")
    permission = ObjectPermission.objects.create(name="storage", actions=["view"])
    permission.users.add(user)
    permission.object_types.add(ContentType.objects.get_for_model(CheckpointStorageSnapshot))
    other.force_login(user)
    page = other.get(reverse("plugins:ai_ops:threads"), {"search": run.pk})
    assert "This search does not exist" in page.content.decode()
    assert 'name="pattern"' not in page.content.decode(), "the form takes the permission to run the Job"


def test_a_search_with_no_usable_pattern_or_no_redis_says_so(search, browser, monkeypatch, redis_retries):
    refused = browser.post(reverse("plugins:ai_ops:thread_search"), {"pattern": "*a" * 11}, follow=True)
    assert "use at most 10" in refused.content.decode()
    monkeypatch.setenv("LANGGRAPH_REDIS_URL", "redis://127.0.0.1:1/0")
    redis_retries()
    words = said(search("user-*"))
    assert "The search is pending. " in words
    assert "checkpoint Redis" in words, "and is tried again"


def test_an_erased_thread_is_told_as_that_also_where_records_have_hashes(browser, thread):
    with override_settings(PLUGINS_CONFIG={"ai_ops": {"erasure_ids": "sha256"}}):
        erase_threads([thread], reason="a request")
        words = said(browser.get(reverse("plugins:ai_ops:threads"), {"thread_id": thread}))
    assert "State erased" in words
    assert str(ThreadErasure.objects.get()) in words


def test_the_form_of_an_erasure_asks_for_it(browser, search, thread, django_capture_on_commit_callbacks):
    search("<b>*")
    run = MaintenanceRun.objects.get(kind="search")
    with django_capture_on_commit_callbacks(execute=True):
        browser.post(
            f"{reverse('plugins:ai_ops:thread_erase')}?search={run.pk}", {"pattern": "<b>*", "reason": "all of them"}
        )
    record = ThreadErasure.objects.get()
    assert (record.thread_pattern, record.thread_count, record.verified) == ("<b>*", 1, True)


def test_a_thread_is_explained_with_buttons_to_pin_and_to_erase(browser, thread):
    page = browser.get(reverse("plugins:ai_ops:threads"), {"thread_id": thread}).content.decode()
    assert "The thread stays; the next cleanup deletes 4 of its checkpoints." in page
    assert "&lt;b&gt;t&lt;/b&gt;" in page
    assert "<b>t</b>" not in page
    assert page.count(">deletes<") > 0
    assert page.count(">keeps<") > 0
    assert "Pin…" in page
    assert (
        "No keys of this thread were found."
        in browser.get(reverse("plugins:ai_ops:threads"), {"thread_id": "no"}).content.decode()
    )
    assert browser.get(reverse("plugins:ai_ops:threads")).status_code == 200


def test_the_question_before_an_erasure_names_the_number(browser, thread):
    page = browser.get(reverse("plugins:ai_ops:thread_erase"), {"thread_id": thread}).content.decode()
    assert "It has 2 keys with 8 checkpoints." in " ".join(page.split())
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
    assert "There is no sample with this policy yet" in page
    sampled = sample_checkpoint_storage()
    assert sampled["policies"]["Bots"] | {"deleted_count": 0} == {
        "threads_deleted": 1, "threads_kept": 1, "checkpoints_trimmed": 0, "deleted_count": 0
    }  # fmt: skip
    assert sampled["policies"][""]["threads_deleted"] == 1
    assert sampled["states"] == {"idle": 3}
    page = browser.get(policy.get_absolute_url()).content.decode()
    assert "whole threads to delete" in page.lower()
    policy.retention = "2 hours"
    policy.validated_save()
    assert "has changed since the last sampling" in browser.get(policy.get_absolute_url()).content.decode()
    policy.enabled = False
    policy.validated_save()
    assert "is not enabled" in browser.get(policy.get_absolute_url()).content.decode()
    assert "Dry run" in browser.get(policy.get_absolute_url()).content.decode()
    storage = browser.get(reverse("plugins:ai_ops:checkpointstorage")).content.decode()
    assert "deleted by the last cleanups" not in storage.lower()
    cleanup_old_checkpoints(30)
    storage = browser.get(reverse("plugins:ai_ops:checkpointstorage")).content.decode()
    assert "Policy Bots" in storage
    assert "CompactRedisSaver" in storage
    assert "trend of keys" in storage.lower()
    assert "trend of threads" in storage.lower()
    assert "deleted by the last cleanups" in storage.lower()
    assert "trend of memory" in storage.lower()


def test_the_page_of_a_policy_follows_its_dry_run(
    browser, running_jobs, checkpoint_redis, django_capture_on_commit_callbacks
):
    with days_ago(2):
        graph(CompactRedisSaver(checkpoint_redis)).invoke({"said": ["hello"]}, on("bot-1"))
    policy = RetentionPolicy.objects.create(name="Bots", thread_patterns="bot-*", retention="1 day", enabled=False)
    with django_capture_on_commit_callbacks(execute=True):
        browser.post(reverse("plugins:ai_ops:retentionpolicy_try", kwargs={"pk": policy.pk}))
        assert "A dry run of this policy is pending." in said(browser.get(policy.get_absolute_url()))
    words = said(browser.get(policy.get_absolute_url()))
    assert "A dry run of this policy" not in words
    assert "Dry run: whole threads to delete 1" in words
    assert checkpoint_redis.dbsize() == 2


def test_an_erasure_has_a_page_and_nothing_deletes_it(browser, thread):
    erase_threads([thread], reason="a request")
    record = ThreadErasure.objects.get()
    words = said(browser.get(record.get_absolute_url()))
    assert "a request" in words
    assert "Thread Ids &lt;b&gt;t&lt;/b&gt;" in words
    assert "2 compact threads" in words
    listed = browser.get(reverse("plugins:ai_ops:threaderasure_list"), headers={"HX-Request": "true"})
    assert str(record) in listed.content.decode()


def test_the_page_warns_when_redis_reaches_its_maxmemory_within_a_month(browser, checkpoint_redis):
    sampled = sample_checkpoint_storage()
    for day in range(5, -1, -1):
        data = sampled | {"memory_bytes": (95 - day) * 1024 * 1024, "max_memory_bytes": 100 * 1024 * 1024}
        each = CheckpointStorageSnapshot.objects.create(data=data)
        CheckpointStorageSnapshot.objects.filter(pk=each.pk).update(taken=timezone.now() - timedelta(days=day))
    page = said(browser.get(reverse("plugins:ai_ops:checkpointstorage")))
    assert page.count("Redis reaches its maxmemory in about 5 days") == 2, "in a warning, and among the facts"
    assert "Shorten a retention" in page


def test_one_snapshot_a_day_stays_for_a_year_and_more():
    # Yesterday's noon is over at each hour of today, and both hours before it are of its day.
    now = timezone.now().replace(hour=12) - timedelta(days=1)
    for day in range(0, KEPT_DAYS + 30, 5):
        for hour in (1, 2):
            data = {"success": True, "checkpoint_keys": day, "thread_count": hour, "memory_bytes": 1, "error": None}
            data |= {"oldest_threads": [{"thread": "user-42"}], "largest_threads": [], "missing_pins": None}
            each = CheckpointStorageSnapshot.objects.create(data=data)
            CheckpointStorageSnapshot.objects.filter(pk=each.pk).update(taken=now - timedelta(days=day, hours=3 - hour))
    keep_snapshot({"success": True, "checkpoint_keys": 7, "thread_count": 7, "memory_bytes": None, "error": None})
    days = trend()
    assert len(days) == KEPT_DAYS // 5 + 1, "and today"
    assert all(day["threads"] in (2, 7) for day in days), "the last of each day"
    assert CheckpointStorageSnapshot.objects.count() <= len(days) + KEPT
    naming = [each for each in CheckpointStorageSnapshot.objects.all() if "user-42" in str(each.data)]
    assert len(naming) == KEPT - 1, "the last few alone name threads"
    assert days[-1]["memory"] is None or days[-1]["memory"] == 1
