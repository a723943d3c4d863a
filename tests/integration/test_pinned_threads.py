"""Pinned threads: as pages, in REST and GraphQL, as functions, and what the cleanup leaves alone for them."""

from __future__ import annotations

from django.contrib.auth import get_user_model
from django.urls import reverse
from nautobot.apps.testing import APITestCase, APIViewTestCases, FilterTestCases, TestCase, ViewTestCases
from nautobot.core.graphql import execute_query
from nautobot.extras.models import ObjectChange

from ai_ops.filters import PinnedThreadFilterSet
from ai_ops.models import THREAD_ID_MAX_LENGTH, PinnedThread

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

    def test_a_page_shows_the_blanks_of_an_id(self):
        pin = PinnedThread.objects.create(thread_id="  two blanks")
        self.assertContains(self.client.get(pin.get_absolute_url()), 'pre-wrap">  two blanks<')


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
