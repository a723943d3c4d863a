"""The pages in a browser: accessibility, errors on its console, narrow screens, and the walks of an operator.

Celery runs in this process, as in all tests here. The walk from a new server to its incident, with a real worker, is in
tests/acceptance/test_demo.py.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.db import connections
from django.test import Client
from django.urls import NoReverseMatch, reverse
from nautobot.apps.utils import construct_cache_key
from nautobot.extras.models import Job, ScheduledJob
from nautobot.extras.utils import get_celery_queues
from playwright.sync_api import Browser, Page, expect

from ai_ops import urls
from ai_ops.kinds import DEFAULT_SCHEDULES
from ai_ops.models import MaintenanceRun, MCPServer, MCPServerTool
from ai_ops.schedules import ensure_schedule, pause_schedule
from tests.fakes.chromium import needs_chromium, running_chromium
from tests.fakes.page_objects import one_of_each
from tests.fakes.runs import recorded
from tests.fakes.users import user_who_may

pytestmark = needs_chromium

PAGES = "plugins:ai_ops:"
OURS = "/plugins/ai-ops/"
NARROW = 800
SERIOUS = ("serious", "critical")
# The frame of a page is Nautobot's: what is looked at is what stands in it.
AXE = {"resultTypes": ["violations"], "preload": False, "iframes": False}
# Of Nautobot's own pages so many that each part which ours are built of is seen: lists, tabs, forms, Jobs.
NAUTOBOTS = ("/dcim/devices/", "/dcim/locations/add/", "/extras/jobs/", "/extras/statuses/")
# Nautobot's messages, badges and buttons, which are on its pages now and then: their colours are those of its theme.
PARTS_OF_NAUTOBOT = "".join(
    f'<div class="alert alert-{color}">A message <a class="alert-link" href="#">a link</a> <a href="#">a link</a></div>'
    f'<span class="badge bg-{color}">a badge</span> <button class="btn btn-{color}">a button</button>'
    f'<div class="card-header"><a class="btn btn-sm btn-{color} active" href="#">a button</a> '
    f'<a class="btn btn-sm btn-{color}" href="#">a button</a></div> <span class="text-{color}">a word</span>'
    for color in ("primary", "secondary", "success", "info", "warning", "danger")
)
# The ends of names of addresses that are no pages of ours: what leads to another page unless it is posted to, the
# documentation, and pages of any object that Nautobot alone makes.
NO_PAGES = re.compile(
    r"(^docs|_sample|_search|_check|_approve_tools|_set_vulnerable|_acknowledge|_test|_try|_cancel|_redrive|_approve|_reject"
    r"|_bulk_\w+|_rename|_notes|_changelog|_data-compliance|_delete|_import)$"
)
KIND_OF_FORM = ("health", "cleanup", "incidents")
# Of a machine that is busy with other tests.
TIMEOUT_MS = 60_000


@pytest.fixture(scope="module")
def chromium(django_db_setup) -> Iterator[Browser]:
    """One browser for all tests of this file.

    Its library runs a loop in this thread. Under one Django asks no database unless told to, and does not see the
    connections that it had before: each such time they are closed, as the database is copied between tests.
    """
    connections.close_all()
    with pytest.MonkeyPatch.context() as patch, running_chromium() as browser:
        patch.setitem(os.environ, "DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        expect.set_options(timeout=TIMEOUT_MS)
        yield browser
        connections.close_all()


@pytest.fixture
def base(chromium, live_server, transactional_db) -> str:
    """The address of Nautobot, whose Jobs may run and have a worker."""
    Job.objects.filter(module_name__startswith="ai_ops.").update(enabled=True)
    ScheduledJob.objects.all().delete()
    cache.set(construct_cache_key(get_celery_queues, branch_aware=False), {"default": 1}, timeout=600)
    return live_server.url


@pytest.fixture
def log_in(chromium, base) -> Iterator[Callable[[Any], Page]]:
    """Opens a tab in which a user has logged in.

    With cookies and connections of its own: those of the test before lead to a database that is gone.
    """
    with contextlib.ExitStack() as tabs:

        def tab_of(user: Any) -> Page:
            client = Client()
            client.force_login(user)
            context = chromium.new_context(viewport={"width": 1400, "height": 900})
            tabs.callback(context.close)
            context.set_default_timeout(TIMEOUT_MS)
            context.add_cookies([{"name": "sessionid", "value": client.cookies["sessionid"].value, "url": base}])
            return context.new_page()

        yield tab_of


@pytest.fixture
def page(log_in) -> Page:
    """A tab in which a superuser has logged in."""
    return log_in(get_user_model().objects.create_superuser("admin", password="secret"))


def opens(page: Page, base: str, name: str, **key: Any) -> None:
    answer = page.goto(base + reverse(PAGES + name, kwargs=key or None))
    assert answer.status == 200, (name, answer.status)


# --------------------------------------------------------------------------------------------
# All pages


@dataclass
class Visitor:
    """Opens pages in one tab, and notes what is wrong with each, so that pages can be compared.

    Attributes:
        page: The tab.
        base: Nautobot's address.
        opened: Where it was; several addresses may lead to one page.
        faults: Rules of axe and the kinds of elements that break them, with an example each.
        said: Errors on the console, likewise.
        too_wide: Pages that are wider than a narrow screen.
    """

    page: Page
    base: str
    opened: set[str] = field(default_factory=set)
    faults: dict[tuple[str, str], str] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    too_wide: list[str] = field(default_factory=list)
    axe: Axe = field(default_factory=Axe)
    more: str = ""

    def look_at(self, paths: list[str], more: str = "") -> None:
        """Open pages wide and narrow, each with more HTML at the end of what stands in it."""
        self.more = more
        heard = {"console": self._heard, "pageerror": self._failed}
        for event, listener in heard.items():
            self.page.on(event, listener)
        for path in paths:
            self._look_at(path)
        for event, listener in heard.items():
            self.page.remove_listener(event, listener)

    def _look_at(self, path: str) -> None:
        self.page.set_viewport_size({"width": 1400, "height": 900})
        answer = self.page.goto(self.base + path)
        if self.page.url in self.opened:
            return
        self.opened.add(self.page.url)
        assert answer.status == 200, (path, answer.status)
        # What a list loads by itself is a part of it.
        self.page.wait_for_function("!document.querySelector('.htmx-request')")
        self.page.evaluate("html => document.querySelector('main').insertAdjacentHTML('beforeend', html)", self.more)
        for violation in self.axe.run(self.page, context="main", options=AXE).response["violations"]:
            if violation["impact"] in SERIOUS:
                for node in violation["nodes"]:
                    fault = (violation["id"], common_part(node))
                    self.faults.setdefault(fault, f"{path}: {node['html'][:300]} {node.get('failureSummary', '')}")
        self.page.set_viewport_size({"width": NARROW, "height": 900})
        width = self.page.evaluate("document.documentElement.scrollWidth")
        if width > NARROW:
            self.too_wide.append(f"{path}: {width} pixels")

    def _heard(self, message: Any) -> None:
        if message.type == "error":
            self.said.setdefault(general(message.text), f"{self.page.url}: {message.text}")

    def _failed(self, error: Any) -> None:
        self.said.setdefault(general(str(error)), f"{self.page.url}: {error}")


def common_part(node: dict[str, Any]) -> str:
    """Return what the faults of two pages can have in common: a pair of colours, or name and classes of an element."""
    data = next((check["data"] for check in node["any"]), None) or {}
    if "fgColor" in data:
        return f"{data['fgColor']} on {data['bgColor']}"
    name, attributes = re.match(r"<([\w-]+)([^>]*)", node["html"]).groups()
    classes = re.search(r'class="([^"]*)"', attributes)
    return ".".join([name, *sorted(set(classes[1].split()) if classes else ())])


def general(text: str) -> str:
    """Return an error without what differs from page to page: ids, numbers, addresses."""
    return re.sub(r"https?://\S+|[0-9a-f]{8}-[0-9a-f-]{27}|\d+", "", text)


def our_pages(objects: dict[Any, Any]) -> list[str]:
    """The addresses of all pages of this app, found by their patterns, so that a new one is looked at by itself."""
    found = []
    for pattern in urls.urlpatterns:
        if NO_PAGES.search(pattern.name):
            continue
        try:
            found.append(reverse(PAGES + pattern.name))
        except NoReverseMatch:
            model = pattern.callback.cls.queryset.model
            if model in objects:
                found.append(reverse(PAGES + pattern.name, kwargs={"pk": objects[model].pk}))
    forms = [DEFAULT_SCHEDULES[kind].class_path for kind in KIND_OF_FORM]
    found += [reverse("extras:job_run_by_class_path", kwargs={"class_path": path}) for path in forms]
    return list(dict.fromkeys(found))


def make_everything() -> dict[Any, Any]:
    for kind in ("health", "cleanup"):
        ensure_schedule(kind)
    pause_schedule("health")
    return one_of_each()


def test_no_page_has_a_fault_that_nautobots_own_pages_do_not_have(page, base):
    paths = our_pages(make_everything())
    theirs, ours = Visitor(page, base), Visitor(page, base)
    theirs.look_at(list(NAUTOBOTS), PARTS_OF_NAUTOBOT)
    ours.look_at(paths)
    new = sorted(set(ours.faults) - set(theirs.faults))
    assert not new, "\n".join(f"{fault}: {ours.faults[fault]}" for fault in new)
    said = sorted(set(ours.said) - set(theirs.said))
    assert not said, [ours.said[each] for each in said]
    assert not ours.too_wide


# --------------------------------------------------------------------------------------------
# Walks


def test_a_cleanup_is_tried_its_list_read_and_then_done_for_real(page, base, checkpoint_redis):
    old, young = "checkpoint:old:2020-01-01T00:00:00+00:00", "checkpoint:young:2999-01-01T00:00:00+00:00"
    for key in (old, young):
        checkpoint_redis.set(key, "{}")
    path = DEFAULT_SCHEDULES["cleanup"].class_path
    page.goto(base + reverse("extras:job_run_by_class_path", kwargs={"class_path": path}))
    page.get_by_role("link", name="Try it first as a dry run").click()
    expect(page.locator("#id_dryrun")).to_be_checked()
    page.get_by_role("button", name="Run Job Now").click()
    page.wait_for_url("**/job-results/**")
    dry = MaintenanceRun.objects.get()
    opens(page, base, "maintenancerun", pk=dry.pk)
    expect(page.get_by_role("main")).to_contain_text("A dry run: nothing was deleted. Of")
    assert checkpoint_redis.exists(old)
    link = page.get_by_role("main").get_by_role("link", name=".csv").first
    table = page.request.get(base + link.get_attribute("href"))
    assert "old" in table.text()
    page.get_by_role("link", name="Delete these now").click()
    page.get_by_role("button", name="Confirm").click()
    page.get_by_role("alert").get_by_role("link").first.click()
    expect(page.get_by_role("main")).to_contain_text("went:")
    assert not checkpoint_redis.exists(old)
    assert checkpoint_redis.exists(young)


def test_a_dead_letter_is_redriven_and_another_one_left(page, base):
    runs = [recorded("incidents", state="dead", error=f"Error {number}", attempt=5) for number in range(2)]
    opens(page, base, "deadletters")
    page.get_by_role("button", name=f"Redrive {runs[0]}").click()
    expect(page.get_by_text(f"{runs[0]} is done again by")).to_be_visible()
    page.get_by_role("link", name=f"Discard {runs[1]}").click()
    page.get_by_role("button", name="Confirm").click()
    expect(page.get_by_text(f"{runs[1]} was discarded")).to_be_visible()
    expect(page.get_by_text("No dead letters")).to_be_visible()
    assert runs[0].children.get().state == "succeeded"


def test_a_schedule_gets_other_times_and_is_paused_and_resumed(page, base):
    name = ensure_schedule("health").name
    opens(page, base, "schedules")
    page.get_by_label(f"Change the times of {name}").first.click()
    page.get_by_label("Crontab").fill("*/7 * * * *")
    page.get_by_label("Time zone").fill("Europe/Berlin")
    page.get_by_role("button", name=f"Change the times of {name}").click()
    expect(page.get_by_role("main")).to_contain_text("*/7 * * * * Europe/Berlin")
    page.get_by_role("button", name=f"Pause {name}").click()
    expect(page.get_by_role("cell", name="Paused")).to_be_visible()
    page.get_by_role("button", name=f"Resume {name}").click()
    expect(page.get_by_role("cell", name="Active")).to_be_visible()


def test_one_tool_is_approved_another_rejected_and_the_server_made_vulnerable(page, base):
    server = one_of_each()[MCPServer]
    changed, added = (MCPServerTool.objects.get(server=server, state=state).name for state in ("changed", "added"))
    opens(page, base, "mcpserver", pk=server.pk)
    page.get_by_role("button", name=f"Approve {changed}").click()
    expect(page.get_by_text(f"Changed: {changed}.").first).to_be_visible()
    page.get_by_role("button", name=f"Reject {added}").click()
    expect(page.get_by_text(f"Rejected: {added}.").first).to_be_visible()
    expect(page.get_by_role("button", name=f"Reject {added}")).to_have_count(0)
    page.get_by_role("button", name="Set Vulnerable").click()
    expect(page.locator("#ai-ops-server-banner")).to_contain_text("Vulnerable")


def test_a_user_with_view_rights_sees_no_button_that_fails(log_in, base):
    objects = make_everything()
    models = [f"ai_ops.view_{model._meta.model_name}" for model in objects]
    more = ("mcpserverhealth", "mcpservercheck", "mcpservertoolset")
    user = user_who_may(*models, *(f"ai_ops.view_{name}" for name in more), "extras.view_scheduledjob")
    page = log_in(user)
    seen, buttons = 0, set()
    for path in our_pages(objects):
        if page.goto(base + path).status != 200:
            continue
        seen += 1
        main = page.get_by_role("main")
        forms = main.locator("form[method=post]:has([type=submit])").evaluate_all("all => all.map(form => form.action)")
        submits = main.locator("button[formaction]").evaluate_all("found => found.map(each => each.formAction)")
        links = main.locator("a.btn[href]").evaluate_all("links => links.map(link => link.href)")
        assert not [action for action in (*forms, *submits) if OURS in action], path
        buttons |= {link.partition("#")[0] for link in links if OURS in link}
    assert seen > 15, "the pages that a user with view rights may open"
    assert {link: page.request.get(link).status for link in buttons} == dict.fromkeys(buttons, 200)
