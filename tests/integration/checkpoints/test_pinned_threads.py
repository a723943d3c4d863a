"""Pinned threads: as pages, in REST and GraphQL, as functions, and what the cleanup leaves alone for them."""

from __future__ import annotations

import time

import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError, connection
from django.urls import reverse
from nautobot.apps.testing import APITestCase, APIViewTestCases, FilterTestCases, TestCase, ViewTestCases
from nautobot.core.graphql import execute_query
from nautobot.extras.models import ObjectChange

from ai_ops.celery_tasks import cleanup_old_checkpoints, pin_thread, unpin_thread
from ai_ops.checkpoints.cleanup import DELETIONS_PER_BATCH
from ai_ops.checkpoints.pins import pinned_threads
from ai_ops.exceptions import ConfigurationError
from ai_ops.filters import PinnedThreadFilterSet
from ai_ops.models import THREAD_ID_MAX_LENGTH, CheckpointStorageSnapshot, PinnedThread
from tests.fakes.conversations import days_ago, graph, old_id, on

# Ids that agents use, and that forms, parsers and databases like to change.
ODD_IDS = (
    "user:42:session",
    " leading and trailing ",
    "münchen",
    "mu\u0308nchen",
    "会话",
    "🧵",
    "UPPER",
    "upper",
    "a\tb",
    "<b>bold</b>",
    "x" * THREAD_ID_MAX_LENGTH,
)


def pin_some():
    for name, note in (("user:1", "audit"), ("user:2", "a bug report"), ("other", "")):
        PinnedThread.objects.create(thread_id=name, note=note)


class PinnedThreadViewTest(
    ViewTestCases.GetObjectViewTestCase,
    ViewTestCases.GetObjectChangelogViewTestCase,
    ViewTestCases.GetObjectNotesViewTestCase,
    ViewTestCases.CreateObjectViewTestCase,
    ViewTestCases.EditObjectViewTestCase,
    ViewTestCases.DeleteObjectViewTestCase,
    ViewTestCases.ListObjectsViewTestCase,
    ViewTestCases.BulkDeleteObjectsViewTestCase,
):
    model = PinnedThread

    @classmethod
    def setUpTestData(cls):
        pin_some()
        cls.form_data = {"thread_id": " user:3", "note": "until the review"}


class PinnedThreadAPITest(APIViewTestCases.APIViewTestCase):
    model = PinnedThread
    bulk_update_data = {"note": "edited with others"}

    @classmethod
    def setUpTestData(cls):
        pin_some()
        cls.create_data = [{"thread_id": "one"}, {"thread_id": " two "}, {"thread_id": "会话:3", "note": "why"}]


class PinnedThreadFilterTest(FilterTestCases.FilterTestCase):
    queryset = PinnedThread.objects.all()
    filterset = PinnedThreadFilterSet
    generic_filter_tests = [["thread_id"], ["note"]]

    @classmethod
    def setUpTestData(cls):
        pin_some()

    def test_a_search_looks_into_thread_and_note(self):
        for text, found in (("USER:", ["user:1", "user:2"]), ("bug", ["user:2"])):
            assert [pin.thread_id for pin in self.filterset({"q": text}, self.queryset).qs] == found
        assert [pin.thread_id for pin in self.filterset({"thread_id__ic": ["OTH"]}, self.queryset).qs] == ["other"]


class PagesTest(TestCase):
    def setUp(self):
        super().setUp()
        self.user.is_superuser = True
        self.user.save()

    def add(self, thread_id, note=""):
        return self.client.post(reverse("plugins:ai_ops:pinnedthread_add"), {"thread_id": thread_id, "note": note})

    def test_a_pin_remembers_who_made_it_and_the_change_log_has_it(self):
        self.assertHttpStatus(self.add("user:1", "audit"), 302)
        pin = PinnedThread.objects.get()
        assert (pin.thread_id, pin.note, pin.pinned_by) == ("user:1", "audit", self.user)
        assert ObjectChange.objects.get(changed_object_id=pin.pk).user == self.user

    def test_odd_ids_are_kept_as_they_are(self):
        for thread_id in ODD_IDS:
            with self.subTest(thread_id):
                self.assertHttpStatus(self.add(thread_id), 302)
                assert PinnedThread.objects.filter(thread_id=thread_id).exists()
        page = self.client.get(
            reverse("plugins:ai_ops:pinnedthread_list"), headers={"HX-Request": "true"}
        ).content.decode()
        assert "&lt;b&gt;bold" in page
        assert "<b>bold" not in page

    def test_a_thread_is_pinned_once(self):
        self.add("user:1")
        errors = self.add("user:1").context["form"].errors
        assert errors == {"thread_id": ["This thread is pinned already."]}

    def test_an_edit_changes_the_note_and_not_who_pinned(self):
        pin = PinnedThread.objects.create(thread_id="user:1")
        url = reverse("plugins:ai_ops:pinnedthread_edit", kwargs={"pk": pin.pk})
        self.client.post(url, {"thread_id": "user:1", "note": "now known"})
        pin.refresh_from_db()
        assert (pin.note, pin.pinned_by) == ("now known", None)

    def test_an_id_that_is_too_long_is_refused_at_its_field(self):
        assert list(self.add("x" * (THREAD_ID_MAX_LENGTH + 1)).context["form"].errors) == ["thread_id"]

    def test_list_and_page_say_whether_the_last_sampling_has_seen_the_thread(self):
        for name in ("seen", "missing"):
            self.add(name)
        CheckpointStorageSnapshot.objects.create(data={"success": True, "missing_pins": ["missing"]})
        self.add("later")
        page = self.client.get(
            reverse("plugins:ai_ops:pinnedthread_list"), headers={"HX-Request": "true"}
        ).content.decode()
        assert [page.count(f">{text}</td>") for text in ("Yes", "No", "Not known")] == [1, 1, 1]
        pin = PinnedThread.objects.get(thread_id="missing")
        self.assertContains(self.client.get(pin.get_absolute_url()), "In Redis")

    def test_a_page_shows_the_blanks_of_an_id(self):
        pin = PinnedThread.objects.create(thread_id="  two blanks")
        self.assertContains(self.client.get(pin.get_absolute_url()), ">  two blanks<")


class RestTest(APITestCase):
    def test_odd_ids_are_kept_as_they_are_and_found_again(self):
        self.add_permissions("ai_ops.add_pinnedthread", "ai_ops.view_pinnedthread", "users.view_user")
        url = reverse("plugins-api:ai_ops-api:pinnedthread-list")
        for thread_id in ODD_IDS:
            with self.subTest(thread_id):
                response = self.client.post(url, {"thread_id": thread_id}, format="json", **self.header)
                self.assertHttpStatus(response, 201)
                assert response.data["thread_id"] == thread_id
                found = self.client.get(url, {"thread_id": thread_id}, **self.header).data["results"]
                assert [each["thread_id"] for each in found] == [thread_id]
        assert set(PinnedThread.objects.values_list("pinned_by__username", flat=True)) == {self.user.username}


class GraphQLTest(TestCase):
    def test_pins_are_found_by_filter(self):
        pin_some()
        user = get_user_model().objects.create(username="reader", is_superuser=True)
        result = execute_query('{ pinned_threads(thread_id: "user:1") { thread_id note } }', user=user)
        assert result.errors is None
        assert result.data == {"pinned_threads": [{"thread_id": "user:1", "note": "audit"}]}


def threads_in(client):
    return {key.decode().split(":")[1] for key in client.scan_iter("checkpoint:*")}


@pytest.mark.parametrize("thread", ["kept", "user:42:session", " kept ", "会话🧵", "münchen", "a*b?[c]"])
def test_an_old_pinned_thread_survives_a_cleanup_with_everything_it_has(saver, checkpoint_redis, thread):
    app = graph(saver, subgraph=True)
    with days_ago(400):
        app.invoke({"said": ["hello"]}, on(thread))
    before, state = set(checkpoint_redis.scan_iter()), app.get_state(on(thread))
    with days_ago(400):
        app.invoke({"said": ["hello"]}, on("goes"))
    pin_thread(thread, note="audit")

    report = cleanup_old_checkpoints(30)

    assert (report["threads_deleted"], report["threads_kept"]) == (1, 1)
    assert set(checkpoint_redis.scan_iter()) == before
    assert app.get_state(on(thread)) == state
    assert "1 pinned" in report["policy"]
    assert unpin_thread(thread) is True
    assert cleanup_old_checkpoints(30)["threads_deleted"] == 1
    assert not checkpoint_redis.dbsize()


def test_a_pinned_live_thread_is_not_trimmed_either(saver, checkpoint_redis):
    app = graph(saver)
    for days in (400, 300, 0):
        with days_ago(days):
            app.invoke({"said": ["hello"]}, on("kept"))
    pin_thread("kept")
    assert cleanup_old_checkpoints(30)["deleted_count"] == 0
    assert len(list(app.get_state_history(on("kept")))) == 12


def test_a_pin_holds_for_that_thread_alone(checkpoint_redis):
    for name in ("a", "ab", "A", "b:a", "{a}", "a-b", " a"):
        checkpoint_redis.set(f"checkpoint:{name}:{old_id(40)}", "{}")
    pin_thread("a")
    cleanup_old_checkpoints(30)
    assert [key.decode().rpartition(":")[0] for key in checkpoint_redis.scan_iter()] == ["checkpoint:a"]


def test_a_pinned_thread_stays_where_its_keys_look_like_another_threads(checkpoint_redis):
    """Plain keys: that of thread "a:b" looks like one of thread "a" in namespace "b"."""
    for name in ("a", "a:b", "c"):
        checkpoint_redis.set(f"checkpoint:{name}:{old_id(40)}", "{}")
    pin_thread("a:b")
    cleanup_old_checkpoints(30)
    (kept,) = checkpoint_redis.keys()
    assert kept.startswith(b"checkpoint:a:b:")


def test_a_pin_set_while_a_run_is_going_counts(checkpoint_redis):
    """After the first batch of deletions a user pins what is left."""
    batch = DELETIONS_PER_BATCH
    checkpoint_redis.mset({f"checkpoint:{number}:{old_id(40)}": "{}" for number in range(3 * batch)})
    gone = []

    def pin_what_is_left(thread):
        gone.append(thread.thread)
        if len(gone) == 1:
            PinnedThread.objects.bulk_create(PinnedThread(thread_id=name) for name in threads_in(checkpoint_redis))
            time.sleep(1.1)

    report = cleanup_old_checkpoints(30, on_thread=pin_what_is_left)

    assert (report["threads_deleted"], report["threads_kept"]) == (batch, 2 * batch)
    assert report["deleted_count"] == batch
    assert len(threads_in(checkpoint_redis)) == 2 * batch


@pytest.mark.parametrize("reads", [0, 1])
def test_without_an_answer_from_the_database_nothing_is_deleted(checkpoint_redis, monkeypatch, reads):
    """The database fails at once, or once the run has begun."""
    checkpoint_redis.mset({f"checkpoint:{number}:{old_id(40)}": "{}" for number in range(10)})
    monkeypatch.setattr("ai_ops.checkpoints.pins.SECONDS_BETWEEN_READS", 0)

    def refuse(execute, sql, params, many, context):
        nonlocal reads
        if "ai_ops_pinnedthread" in sql:
            reads -= 1
            if reads < 0:
                raise OperationalError("server closed the connection unexpectedly")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(refuse):
        report = cleanup_old_checkpoints(30)

    assert report["success"] is False
    assert "from Nautobot's database (server closed the connection unexpectedly)" in report["error"]
    assert report["deleted_count"] == 0
    assert checkpoint_redis.dbsize() == 10


@pytest.mark.django_db
def test_pinning_again_keeps_one_pin_and_replaces_its_note():
    first = pin_thread("user:1", "audit")
    assert pin_thread("user:1").note == "audit"
    assert pin_thread("user:1", "review").note == "review"
    assert PinnedThread.objects.get() == first
    assert unpin_thread("user:1") is True
    assert unpin_thread("user:1") is False


@pytest.mark.django_db
@pytest.mark.parametrize("thread", ODD_IDS)
def test_a_shell_pins_odd_ids_too(thread):
    assert pin_thread(thread).thread_id == thread
    assert pinned_threads() == {thread}
    assert unpin_thread(thread)


@pytest.mark.django_db
@pytest.mark.parametrize("thread", ["", "x" * (THREAD_ID_MAX_LENGTH + 1), "a\x00b", "half \ud83d"])
def test_an_id_that_no_database_can_keep_is_refused_with_a_sentence(thread):
    with pytest.raises(ConfigurationError, match=r"pinned|called"):
        pin_thread(thread)
    assert unpin_thread(thread) is False
