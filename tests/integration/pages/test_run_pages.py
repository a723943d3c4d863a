"""The pages of maintenance runs, looked at as a user."""

import re
from datetime import timedelta

from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from nautobot.apps.testing import TestCase, ViewTestCases, extract_page_body
from nautobot.extras.models import JobResult
from nautobot.users.models import User

from ai_ops.choices import MaintenanceKindChoices, RunStateChoices, RunTriggerChoices
from ai_ops.details.run_advice import MEANINGS
from ai_ops.models import MaintenanceRun, MCPServer
from ai_ops.ui.time_markup import duration
from tests.fakes import jobs

CLEANUP = MaintenanceKindChoices.CLEANUP


def make_run(name, state, **fields):
    fields = {"kind": CLEANUP, "trigger": RunTriggerChoices.SCHEDULE, "attempt": 1, "max_attempts": 5} | fields
    return MaintenanceRun.objects.create(name=name, state=state, **fields)


def make_runs():
    """One in each state."""
    now = timezone.now()
    owner = User.objects.create(username="Ada")
    for state in RunStateChoices.values():
        over = state in RunStateChoices.FINAL
        make_run(
            f"{state} run",
            state,
            owner=owner,
            started=now - timedelta(minutes=5),
            # However slow the machine: a test of its own lets one fall silent.
            heartbeat=now + timedelta(hours=1),
            finished=now if over else None,
            next_attempt=now + timedelta(minutes=1) if state == RunStateChoices.PENDING else None,
            execution_time_ms=63_000 if over else None,
            error="<i>Redis</i> is away." if state in ("failed", "dead") else "",
            progress="scanned 1,000 keys" if state == RunStateChoices.RUNNING else "",
            options={"retention_days": 30},
            counters={"deleted_count": 249, "dryrun": False},
            holder="worker-1, process 77",
            fence=12,
        )


class MaintenanceRunViewTest(ViewTestCases.GetObjectViewTestCase, ViewTestCases.ListObjectsViewTestCase):
    model = MaintenanceRun
    filter_on_field = "name"

    @classmethod
    def setUpTestData(cls):
        make_runs()


class RunPagesTestCase(TestCase):
    @classmethod
    def setUpTestData(cls):
        make_runs()

    def setUp(self):
        super().setUp()
        self.user.is_superuser = True
        self.user.save()

    def run_of(self, state):
        return MaintenanceRun.objects.get(name=f"{state} run")

    def allow(self, *names):
        """Make the user one who may do these things with runs and nothing else."""
        self.user.is_superuser = False
        self.user.save()
        self.add_permissions(*(f"ai_ops.{name}_maintenancerun" for name in names))

    def page(self, url, **headers):
        response = self.client.get(url, headers=headers)
        self.assertHttpStatus(response, 200)
        return response.content.decode()

    def detail(self, run):
        return extract_page_body(self.page(run.get_absolute_url()))

    def action(self, run, name):
        return reverse(f"plugins:ai_ops:maintenancerun_{name}", kwargs={"pk": run.pk})

    def table(self, **params):
        address = reverse("plugins:ai_ops:maintenancerun_list")
        query = "&".join(f"{name}={value}" for name, value in params.items())
        return self.page(f"{address}?{query}", **{"HX-Request": "true"})


class ListTest(RunPagesTestCase):
    def test_it_shows_state_attempt_duration_progress_and_error(self):
        page = self.table()
        for text in ("1 of 5", "1 min 3 s", "scanned 1,000 keys", "&lt;i&gt;Redis&lt;/i&gt; is away.", "Ada"):
            with self.subTest(text):
                assert text in page
        for state, name in RunStateChoices.CHOICES:
            with self.subTest(state):
                assert f">{name}</span>" in page

    def test_the_newest_come_first(self):
        MaintenanceRun.objects.filter(name="lost run").update(created=timezone.now() + timedelta(minutes=1))
        page = self.table()
        assert page.index("lost run") < page.index("succeeded run")

    def test_a_server_is_named_to_those_who_may_view_it(self):
        server = MCPServer.objects.create(name="Tickets", url="http://mcp.example.com")
        run = make_run("of one", RunStateChoices.FAILED, kind=MaintenanceKindChoices.SERVER, subject=str(server.pk))
        assert server.get_absolute_url() in self.table()
        assert server.get_absolute_url() in self.detail(run)
        self.allow("view")
        for page in (self.table(), self.detail(run)):
            assert "Tickets" not in page
            assert str(server.pk) in page

    def test_passes_that_found_nothing_are_left_out_unless_asked_for(self):
        quiet = {"kind": MaintenanceKindChoices.SUPERVISOR, "counters": {"quiet": True}}
        make_run("quiet pass", RunStateChoices.SUCCEEDED, **quiet)
        make_run("pass that did something", RunStateChoices.SUCCEEDED, **quiet | {"counters": {"fixed": 2}})
        make_run("pass that failed", RunStateChoices.FAILED, **quiet)
        page = self.page("/plugins/ai-ops/runs/")
        assert "found no work are hidden" in page
        assert "quiet pass" not in self.table()
        for name in ("pass that did something", "pass that failed", "succeeded run"):
            assert name in self.table()
        for asked in ({"kind": MaintenanceKindChoices.SUPERVISOR}, {"is_quiet": "true"}):
            with self.subTest(asked):
                assert "quiet pass" in self.table(**asked)
        assert "succeeded run" not in self.table(is_quiet="true")
        assert "quiet pass" not in self.table(is_quiet="false", kind=MaintenanceKindChoices.SUPERVISOR)

    def test_it_is_filtered_from_its_page(self):
        page = self.table(state="dead", is_dead_letter="true")
        assert "dead run" in page
        assert "succeeded run" not in page

    def test_it_takes_no_more_queries_for_more_runs(self):
        self.table()
        with CaptureQueriesContext(connection) as few:
            self.table()
        owner = User.objects.create(username="Grace")
        for number in range(20):
            make_run(f"more {number}", RunStateChoices.SUCCEEDED, owner=owner)
        with CaptureQueriesContext(connection) as many:
            self.table()
        assert len(many) <= len(few)

    def test_no_user_adds_edits_or_deletes_runs(self):
        page = self.page(reverse("plugins:ai_ops:maintenancerun_list"))
        for address in ("/runs/add/", "/runs/edit/", "/runs/delete/", "/runs/import/"):
            assert address not in page
            self.assertHttpStatus(self.client.get(f"/plugins/ai-ops{address}"), 404)
        for name in ("mcpserverincident", "mcpservertool"):
            page = reverse(f"plugins:ai_ops:{name}_list")
            self.assertHttpStatus(self.client.get(f"{page}add/"), 404)


class DetailTest(RunPagesTestCase):
    def test_it_says_what_each_state_means(self):
        for state in RunStateChoices.values():
            run = self.run_of(state)
            with self.subTest(state):
                page = self.detail(run)
                # The rest of a pending run's sentence is in a test of its own.
                assert state == RunStateChoices.PENDING or MEANINGS[state] in page
                for text in ("retention days", "249", "worker-1, process 77", "1 of 5"):
                    assert text in page.lower()

    def test_a_run_that_works_shows_how_old_its_heartbeat_is_and_what_it_is_at(self):
        page = self.detail(self.run_of("running"))
        assert "s ago" in page
        assert "scanned 1,000 keys" in page
        assert "s ago" not in self.detail(self.run_of("succeeded"))

    def test_a_run_that_is_silent_says_for_how_long_and_who_sees_to_it(self):
        run = self.run_of("running")
        MaintenanceRun.objects.filter(pk=run.pk).update(heartbeat=timezone.now() - timedelta(days=1))
        page = self.detail(run)
        # The database's clock stands still within a test's transaction, so not to the second.
        assert re.search(r"Its last heartbeat was (23 h \d+ min|1 d) ago", page)
        assert "The supervisor rescues it" in page

    def test_what_a_run_did_not_do_is_no_red_cross(self):
        page = self.detail(self.run_of("succeeded"))
        assert 'id="counters_value_dryrun">no</span>' in page
        assert "mdi-close-thick" not in page

    def test_an_error_is_text_and_comes_with_what_to_do(self):
        page = self.detail(self.run_of("dead"))
        assert "&lt;i&gt;Redis&lt;/i&gt; is away." in page
        assert "press Redrive" in page

    def test_a_run_that_is_tried_again_says_when_and_why(self):
        run = self.run_of("pending")
        assert "failed attempt 1 of 5; the next is due at" in self.detail(run)
        MaintenanceRun.objects.filter(pk=run.pk).update(attempt=0, next_attempt=timezone.now())
        assert MEANINGS["pending"] in self.detail(run)

    def test_a_run_that_waits_for_approval_says_so(self):
        run = self.run_of("pending")
        MaintenanceRun.objects.filter(pk=run.pk).update(attempt=0, next_attempt=None)
        assert "waits for approval" in self.detail(run)

    def test_each_attempt_has_its_end_and_its_log(self):
        first, second = (JobResult.objects.create(name=f"Job {number}") for number in (1, 2))
        run = self.run_of("running")
        run.attempts = [
            {
                "attempt": 1,
                "state": "lost",
                "error": "Its process died.",
                "started": timezone.now(),
                "ended": timezone.now(),
                "fence": 11,
                "holder": "worker-0",
                "job_result": str(first.pk),
            }
        ]
        run.attempt, run.job_result = 2, second
        run.save()
        page = self.detail(run)
        for text in ("Its process died.", "worker-0", first.get_absolute_url(), second.get_absolute_url(), "Lost"):
            with self.subTest(text):
                assert text in page

    def test_the_log_of_an_attempt_is_linked_for_those_who_may_see_it(self):
        result = JobResult.objects.create(name="a Job")
        run = make_run("linked", RunStateChoices.SUCCEEDED, job_result=result)
        self.allow("view")
        page = self.detail(run)
        assert "linked" in page
        assert f'href="{result.get_absolute_url()}">Log' not in page

    def test_parts_and_redrives_are_listed_with_their_parent(self):
        child = make_run("child", RunStateChoices.SUCCEEDED, parent=self.run_of("dead"))
        assert child.get_absolute_url() in self.detail(self.run_of("dead"))
        assert self.run_of("dead").get_absolute_url() in self.detail(child)


class ActionsTest(RunPagesTestCase):
    def test_buttons_are_there_where_they_do_something(self):
        for state in RunStateChoices.values():
            run = self.run_of(state)
            page = self.detail(run)
            dead, unfinished = state == "dead", state in ("pending", "running")
            for name, there in (("cancel", unfinished), ("redrive", dead), ("discard", dead)):
                with self.subTest(state=state, name=name):
                    assert (self.action(run, name) in page) == there

    def test_buttons_are_for_those_who_may(self):
        self.allow("view")
        for state in ("running", "dead"):
            run = self.run_of(state)
            page = self.detail(run)
            for name in ("cancel", "redrive", "discard"):
                with self.subTest(name):
                    assert self.action(run, name) not in page
                    self.assertHttpStatus(self.client.post(self.action(run, name)), [403, 404])
        run.refresh_from_db()
        assert run.discarded is None

    def test_a_get_changes_nothing(self):
        asks = ("discard", "repeat", "delete_now")
        cases = (("running", "cancel"), ("dead", "redrive"), ("dead", "discard"), ("failed", "repeat"))
        for state, name in (*cases, ("succeeded", "delete_now")):
            run = self.run_of(state)
            answer = self.client.get(self.action(run, name))
            if name in asks:
                self.assertContains(answer, "Confirm")
            else:
                self.assertRedirects(answer, run.get_absolute_url())
            run.refresh_from_db()
            assert not run.cancel_requested
            assert run.discarded is None
        assert MaintenanceRun.objects.count() == len(RunStateChoices.values())

    def test_what_has_ended_is_run_again_but_for_dead_letters(self):
        make_run("a pass", RunStateChoices.SUCCEEDED, kind=MaintenanceKindChoices.ORPHANS)
        discarded = make_run("left alone", RunStateChoices.DEAD, discarded=timezone.now())
        shown = {
            run.name
            for run in MaintenanceRun.objects.all()
            if f'href="{self.action(run, "repeat")}"' in self.detail(run)
        }
        ended = {f"{state} run" for state in RunStateChoices.FINAL if state != RunStateChoices.DEAD}
        assert shown == {*ended, discarded.name}

    def test_a_run_is_done_again_with_its_options_and_a_dry_run_for_real(self):
        jobs.let_jobs_run()
        options = {"dryrun": True, "thread_pattern": "user-42-*"}
        counters = {"dryrun": True, "deleted_count": 7}
        run = make_run("tried", RunStateChoices.SUCCEEDED, options=options, counters=counters)
        assert f'href="{self.action(run, "delete_now")}"' in self.detail(run)
        for name, expected in (("repeat", options), ("delete_now", options | {"dryrun": False})):
            with self.subTest(name):
                page = self.client.post(self.action(run, name), follow=True).content.decode()
                child = run.children.order_by("created").last()
                assert child.get_absolute_url() in page
                assert (child.kind, child.options, child.owner) == (CLEANUP, expected, self.user)
                assert child.state == RunStateChoices.PENDING

    def test_a_shard_is_run_again_as_the_whole(self):
        jobs.let_jobs_run()
        run = make_run("part", RunStateChoices.SUCCEEDED, kind="health", options={"shard": "of an hour ago"})
        self.client.post(self.action(run, "repeat"))
        assert run.children.get().options == {}

    def test_only_a_dry_run_that_found_something_can_be_done_for_real(self):
        for name, state, counters in (
            ("real", "succeeded", {"dryrun": False, "deleted_count": 7}),
            ("found nothing", "succeeded", {"dryrun": True, "deleted_count": 0}),
            ("failed", "failed", {"dryrun": True, "deleted_count": 7}),
            ("of another kind", "succeeded", {"checked_count": 3}),
        ):
            with self.subTest(name):
                run = make_run(name, state, counters=counters)
                assert self.action(run, "delete_now") not in self.detail(run)

    def test_a_running_run_is_told_to_stop(self):
        self.allow("view", "cancel")
        run = self.run_of("running")
        response = self.client.post(self.action(run, "cancel"), follow=True)
        run.refresh_from_db()
        assert run.cancel_requested
        page = response.content.decode()
        assert "it ends after the current batch" in page
        assert self.action(run, "cancel") not in page

    def test_what_is_over_is_not_cancelled(self):
        run = self.run_of("succeeded")
        response = self.client.post(self.action(run, "cancel"), follow=True)
        assert "alert-warning" in response.content.decode()
        run.refresh_from_db()
        assert run.state == RunStateChoices.SUCCEEDED

    def test_a_dead_run_is_discarded_and_no_dead_letter_any_more(self):
        run = self.run_of("dead")
        response = self.client.post(self.action(run, "discard"), follow=True)
        page = response.content.decode()
        assert "no decision is needed" in page
        assert f"&lt;i&gt;Redis&lt;/i&gt; is away. It was discarded by {self.user}." in page
        run.refresh_from_db()
        assert run.discarded is not None
        assert run.state == RunStateChoices.DEAD

    def test_what_was_redriven_has_no_buttons_and_an_older_page_changes_nothing(self):
        run = self.run_of("dead")
        child = make_run("child", RunStateChoices.FAILED, parent=run, trigger=RunTriggerChoices.REDRIVE)
        for name in ("redrive", "discard"):
            with self.subTest(name):
                page = self.client.post(self.action(run, name), follow=True).content.decode()
                assert self.action(run, name) not in page
                assert f"{run} was already redriven: see {child}, which is failed." in page
        run.refresh_from_db()
        assert run.discarded is None
        assert list(run.children.all()) == [child]

    def test_what_is_not_dead_is_not_discarded(self):
        run = self.run_of("succeeded")
        self.client.post(self.action(run, "discard"))
        run.refresh_from_db()
        assert run.discarded is None


class DeadLettersTest(RunPagesTestCase):
    url = "/plugins/ai-ops/dead-letters/"

    def test_it_lists_dead_runs_that_no_operator_has_dealt_with(self):
        make_run("left alone", RunStateChoices.DEAD, discarded=timezone.now())
        page = extract_page_body(self.page(self.url))
        assert "dead run" in page
        assert "left alone" not in page
        assert "failed run" not in page
        for button, name in (("formaction", "redrive"), ("href", "discard")):
            assert f'{button}="{self.action(self.run_of("dead"), name)}' in page
        MaintenanceRun.objects.filter(state=RunStateChoices.DEAD).delete()
        assert "There are no dead letters" in self.page(self.url)

    def test_who_may_only_view_sees_no_buttons_and_can_do_nothing(self):
        self.allow("view")
        page = extract_page_body(self.page(self.url))
        assert "dead run" in page
        assert "formaction" not in page
        assert 'type="checkbox"' not in page
        response = self.client.post(self.url, {"action": "discard", "pk": [str(self.run_of("dead").pk)]})
        self.assertHttpStatus(response, 403)
        assert self.run_of("dead").discarded is None

    def test_many_are_discarded_at_once_and_no_others(self):
        second = make_run("second", RunStateChoices.DEAD)
        left = make_run("third", RunStateChoices.DEAD)
        self.allow("view", "discard")
        assert 'type="checkbox"' in self.page(self.url)
        ticked = [str(self.run_of("dead").pk), str(second.pk), str(self.run_of("succeeded").pk), "no id"]
        response = self.client.post(self.url, {"action": "discard", "pk": ticked})
        self.assertContains(response, "Discard 2 runs?")
        asked = re.findall('name="pk" value="(.*?)"', response.content.decode())
        assert not MaintenanceRun.objects.filter(discarded__isnull=False).exists()
        response = self.client.post(self.url, {"action": "discard", "pk": asked, "_confirm": ""}, follow=True)
        self.assertHttpStatus(response, 200)
        dealt_with = MaintenanceRun.objects.filter(discarded__isnull=False).values_list("name", flat=True)
        assert sorted(dealt_with) == ["dead run", "second"]
        assert left.get_absolute_url() in response.content.decode()

    def test_ticking_nothing_says_what_to_do(self):
        response = self.client.post(self.url, {"action": "discard"}, follow=True)
        self.assertContains(response, "Tick the runs first")

    def test_a_row_is_discarded_and_one_stays_on_the_page(self):
        run = self.run_of("dead")
        response = self.client.post(self.action(run, "discard"), {"return_url": self.url})
        self.assertRedirects(response, self.url)
        response = self.client.post(self.action(run, "discard"), {"return_url": "https://elsewhere.example.com/"})
        self.assertRedirects(response, run.get_absolute_url())

    def test_it_takes_no_more_queries_for_more_runs(self):
        self.page(self.url)
        with CaptureQueriesContext(connection) as few:
            self.page(self.url)
        for number in range(20):
            make_run(f"more {number}", RunStateChoices.DEAD, owner=self.user)
        with CaptureQueriesContext(connection) as many:
            self.page(self.url)
        assert len(many) <= len(few)


class DurationTest(TestCase):
    def test_durations_are_as_people_say_them(self):
        for milliseconds, text in (
            (None, None),
            (0, "0 ms"),
            (412, "412 ms"),
            (3_200, "3.2 s"),
            (59_960, "1 min"),
            (63_000, "1 min 3 s"),
            (7_500_000, "2 h 5 min"),
        ):
            with self.subTest(milliseconds):
                assert duration(milliseconds) == text
