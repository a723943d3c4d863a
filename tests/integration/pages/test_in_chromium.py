"""The pages in a browser: accessibility, errors on its console, narrow screens, and the walks of an operator.

Celery runs in this process, as in all tests here. The walk from a new server to its incident, with a real worker, is in
tests/acceptance/test_demo.py.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from django.contrib.auth import get_user_model
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.db import connections
from django.test import Client
from django.urls import NoReverseMatch, reverse
from nautobot.extras.models import Status
from nautobot.extras.registry import registry
from playwright.sync_api import Browser, Page, expect

from ai_ops import urls
from ai_ops.kinds import DEFAULT_SCHEDULES
from ai_ops.models import MaintenanceRun, MCPServer, MCPServerTool
from ai_ops.schedules import ensure_schedule, pause_schedule
from development.database import nautobot_version
from development.oldest_nautobot import OLDEST
from tests.fakes import jobs
from tests.fakes.chromium import needs_chromium, running_chromium
from tests.fakes.page_objects import one_of_each
from tests.fakes.runs import recorded
from tests.fakes.users import user_who_may

pytestmark = needs_chromium

PAGES = "plugins:ai_ops:"
# Of the menu only our tab is shown, except on a page of Nautobot's own: the others had four tenths of all elements.
MENU, TAB = registry["nav_menu"]["tabs"], "AI Ops"
OURS = "/plugins/ai-ops/"
WIDE, NARROW, HEIGHT = 1400, 800, 900
# Neither rules whose faults are never serious are tried, nor those that axe leaves out unless asked. Titles, messages,
# tabs and the forms of filters stand outside of `main`, and are looked at. A part of what frames the pages is looked at
# once in each tab, as long as its HTML is the same.
RUN_AXE = """async () => {
    const isKnown = part => {
        const known = sessionStorage.getItem(part.outerHTML) !== null;
        sessionStorage.setItem(part.outerHTML, "");
        return known;
    };
    const frame = [...document.querySelectorAll("#sidenav li, #header_search, footer, body > .modal")];
    const isLeftOut = tag => axe._audit.tagExclude.includes(tag);
    const isTried = rule =>
        rule.enabled && !rule.tags.some(isLeftOut) && !["minor", "moderate"].includes(rule.impact);
    const tried = axe._audit.rules.filter(isTried).map(rule => rule.id);
    const options = { resultTypes: ["violations"], preload: false, iframes: false, selectors: false, runOnly: tried };
    return (await axe.run({ include: document, exclude: frame.filter(isKnown) }, options)).violations;
}"""
# A part that is folded away when a page opens: the form of filters.
UNFOLD = "document.querySelector('#id__filterbtn')?.click()"
# Opens a page with or without fields to post; setTimeout, as the script may not be answered any more once it has begun.
OPEN = """([path, fields]) => setTimeout(() => {
    if (!fields) return location.assign(path);
    const form = document.createElement("form");
    for (const [name, value] of Object.entries({ csrfmiddlewaretoken: nautobot_csrf_token, ...fields }))
        form.append(Object.assign(document.createElement("input"), { type: "hidden", name, value }));
    Object.assign(form, { method: "post", action: path });
    document.body.append(form);
    form.submit();
})"""
# Of Nautobot's own pages so many that each part which ours are built of is seen: lists, tabs, forms, Jobs.
NAUTOBOTS = ("/dcim/devices/", "/dcim/locations/add/", "/extras/jobs/?per_page=5", "/extras/statuses/")
# Nautobot's messages, badges and buttons, which are on its pages now and then: their colours are those of its theme.
PARTS_OF_NAUTOBOT = "".join(
    f'<div class="alert alert-{color}">A message <a class="alert-link" href="#">a link</a> <a href="#">a link</a></div>'
    f'<span class="badge bg-{color}">a badge</span> <button class="btn btn-{color}">a button</button>'
    f'<div class="card-header"><a class="btn btn-sm btn-{color} active" href="#">a button</a> '
    f'<a class="btn btn-sm btn-{color}" href="#">a button</a></div> <span class="text-{color}">a word</span>'
    for color in ("primary", "secondary", "success", "info", "warning", "danger")
)
# What each of the looks is for.
PLANTED = """
    <img src="/static/img/nautobot_icon_32x32.png"><button class="p-8"></button>
    <p style="color: #eeeeee; background: #ffffff; width: 3000px">Words</p>
    <img alt="" src="data:," onerror="console.error('planted')">
"""
# The ends of names of addresses that are no pages of ours: what leads to another page unless it is posted to, the
# documentation, and pages of any object that Nautobot alone makes. Its pages of notes and changes, and that which asks
# before a deletion, are the same for all objects but for the name, and are looked at for a server.
NO_PAGES = re.compile(
    r"(^docs|_sample|_search|_check|_approve_tools|_set_vulnerable|_acknowledge|_test|_try|_cancel|_redrive|_approve|_reject"
    r"|_bulk_\w+|_rename|(?<!mcpserver)_(notes|changelog|delete)|_data-compliance|_import)$"
)
BULK = ("mcpserver_bulk_edit", "mcpserver_bulk_delete", "retentionpolicy_bulk_edit", "pinnedthread_bulk_delete")
KIND_OF_FORM = ("health", "cleanup", "incidents")
# Where the buttons of a page post to, and where those that are links lead. The browser fetches and parses the page,
# with the parts that it loads by itself, and runs none of its scripts: they make no button.
BUTTONS = """async path => {
    const read = async (address, headers) => {
        const answer = await fetch(address, { headers });
        return [answer, new DOMParser().parseFromString(await answer.text(), "text/html")];
    };
    const [{ status, url }, page] = await read(path, {});
    const main = page.querySelector("main") ?? page.body;
    for (const part of main.querySelectorAll("[hx-get][hx-trigger=load]")) {
        const address = new URL(part.getAttribute("hx-get"), url);
        for (const value of Object.entries(JSON.parse(part.getAttribute("hx-vals") ?? "{}")))
            address.searchParams.append(...value);
        const [, loaded] = await read(address, { "HX-Request": "true" });
        part.append(...loaded.querySelectorAll(part.getAttribute("hx-select")));
    }
    const leads = (selector, attribute) =>
        [...main.querySelectorAll(selector)].map(each => new URL(each.getAttribute(attribute) ?? "", url).href);
    return {
        status,
        url,
        forms: leads("form[method=post]:has([type=submit])", "action"),
        buttons: leads("button[formaction]", "formaction"),
        links: leads("a.btn[href]", "href"),
    };
}"""
# Of a machine that is busy with other tests.
TIMEOUT_MS = 60_000
# By default a page is asked at each frame, which has it drawn.
POLLING_MS = 50


@pytest.fixture(scope="module")
def chromium(django_db_setup) -> Iterator[Browser]:
    """One browser for all tests of this file.

    Its library runs a loop in this thread. Under one Django asks no database unless told to, and does not see the
    connections that it had before: each such time they are closed, as the database is copied between tests.
    """
    connections.close_all()
    with pytest.MonkeyPatch.context() as patch, running_chromium() as browser:
        patch.setitem(os.environ, "DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        patch.setattr(StaticFilesHandler, "serve", kept_by_the_browser(StaticFilesHandler.serve))
        patch.setitem(registry["nav_menu"], "tabs", {TAB: MENU[TAB]})
        expect.set_options(timeout=TIMEOUT_MS)
        yield browser
        connections.close_all()


def kept_by_the_browser(serve: Callable[..., Any]) -> Callable[..., Any]:
    """Let static files be asked for once, as a server in front of Nautobot does, and not by each page."""

    def answer(handler: Any, request: Any) -> Any:
        response = serve(handler, request)
        response["Cache-Control"] = "max-age=3600"
        return response

    return answer


@pytest.fixture
def base(chromium, live_server, transactional_db) -> str:
    """The address of Nautobot, whose Jobs may run and have a worker."""
    jobs.let_jobs_run()
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
            context = chromium.new_context(viewport={"width": WIDE, "height": HEIGHT}, reduced_motion="reduce")
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


@dataclass(frozen=True)
class Address:
    """A page: its path, and what is posted to it, if anything is."""

    path: str
    fields: dict[str, str] | None = None


def visit(tabs: Iterable[Page], base: str, addresses: Iterable[Address]) -> Iterator[tuple[Page, Address, int]]:
    """Open pages in turn; give the tab, the address and the status of each.

    While one is looked at, another tab loads the next: the browser and Nautobot work at the same time.
    """

    def begin(tab: Page, address: Address) -> Callable[[], tuple[Page, Address, int]]:
        loading = contextlib.ExitStack()
        answer = loading.enter_context(tab.expect_navigation())
        tab.evaluate(OPEN, [base + address.path, address.fields])

        def end() -> tuple[Page, Address, int]:
            loading.close()
            # What a list loads by itself is a part of it.
            tab.wait_for_function("!document.querySelector('.htmx-request')", polling=POLLING_MS)
            return tab, address, answer.value.status

        return end

    ahead = None
    for tab, address in zip(itertools.cycle(tabs), addresses, strict=False):
        following = begin(tab, address)
        if ahead:
            yield ahead()
        ahead = following
    if ahead:
        yield ahead()


@dataclass
class Visitor:
    """Opens pages in two tabs, and notes what is wrong with each, so that pages can be compared.

    Attributes:
        tabs: The tabs.
        base: Nautobot's address.
        opened: Where it was; several addresses may lead to one page.
        faults: Rules of axe and the kinds of elements that break them, with an example each.
        said: Errors on the console, likewise.
        too_wide: Pages that are wider than a narrow screen.
    """

    tabs: tuple[Page, Page]
    base: str
    opened: set[str] = field(default_factory=set)
    faults: dict[tuple[str, str], str] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    too_wide: list[str] = field(default_factory=list)

    def look_at(self, addresses: list[Address], more: str = "") -> None:
        """Look at pages wide and narrow, each with more HTML at the end of what stands in it."""
        with contextlib.ExitStack() as listeners:
            for tab in self.tabs:
                for event, listener in (("console", self._heard), ("pageerror", partial(self._failed, tab))):
                    tab.on(event, listener)
                    listeners.callback(tab.remove_listener, event, listener)
            for tab, address, status in visit(self.tabs, self.base, addresses):
                assert status == 200, (address, status)
                if tab.url not in self.opened:
                    self._look_at(tab, more)
                self.opened.add(tab.url)

    def _look_at(self, tab: Page, more: str) -> None:
        tab.evaluate("html => document.querySelector('main').insertAdjacentHTML('beforeend', html)", more)
        tab.evaluate(UNFOLD)
        for violation in tab.evaluate(RUN_AXE):
            for node in violation["nodes"]:
                fault = (violation["id"], common_part(node))
                self.faults.setdefault(fault, f"{tab.url}: {node['html'][:300]} {node.get('failureSummary', '')}")
        tab.set_viewport_size({"width": NARROW, "height": HEIGHT})
        width = tab.evaluate("document.documentElement.scrollWidth")
        if width > NARROW:
            self.too_wide.append(f"{tab.url}: {width} pixels")
        # Nautobot's scripts fold tabs away on a narrow page, some time after it became narrow.
        tab.set_viewport_size({"width": WIDE, "height": HEIGHT})

    def _heard(self, message: Any) -> None:
        if message.type == "error":
            self.said.setdefault(general(message.text), f"{message.page.url}: {message.text}")

    def _failed(self, tab: Page, error: Any) -> None:
        self.said.setdefault(general(str(error)), f"{tab.url}: {error}")


def tabs_with_axe(page: Page) -> tuple[Page, Page]:
    """Give the tab and another one, both with axe in each page that they open."""
    page.context.add_init_script(AXE_SCRIPT)
    return page, page.context.new_page()


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


def bulk_pages(objects: dict[Any, Any]) -> list[Address]:
    """The addresses of forms for several objects at once, as a list opens them."""
    models = {model._meta.model_name: each for model, each in objects.items()}
    return [Address(reverse(PAGES + name), {"pk": str(models[name.split("_")[0]].pk)}) for name in BULK]


# Some of the components of the oldest have links without names and badges with too little contrast.
@pytest.mark.skipif(nautobot_version() == OLDEST, reason=f"the components of Nautobot {OLDEST} have faults themselves")
def test_no_page_has_a_fault_that_nautobots_own_pages_do_not_have(page, base, monkeypatch):
    objects = make_everything()
    tabs = tabs_with_axe(page)
    theirs, ours = Visitor(tabs, base), Visitor(tabs, base)
    status = Status.objects.get_for_model(MCPServer).first()
    of_an_object = [reverse(f"extras:status_{page}", kwargs={"pk": status.pk}) for page in ("changelog", "delete")]
    first, *others = map(Address, [*NAUTOBOTS, *of_an_object])
    for menu, addresses in (({name: tab for name, tab in MENU.items() if name != TAB}, [first]), ({}, others)):
        monkeypatch.setitem(registry["nav_menu"], "tabs", menu)
        theirs.look_at(addresses, PARTS_OF_NAUTOBOT)
    monkeypatch.undo()
    ours.look_at([*map(Address, our_pages(objects)), *bulk_pages(objects)])
    new = sorted(set(ours.faults) - set(theirs.faults))
    assert not new, "\n".join(f"{fault}: {ours.faults[fault]}" for fault in new)
    said = sorted(set(ours.said) - set(theirs.said))
    assert not said, [ours.said[each] for each in said]
    assert not ours.too_wide


def test_faults_that_are_planted_are_found(page, base):
    faulty, path = Visitor(tabs_with_axe(page), base), reverse(f"{PAGES}threads")
    faulty.look_at([Address(path)])
    assert not faulty.said
    before = dict(faulty.faults)
    faulty.look_at([Address(f"{path}?again")], PLANTED)
    found = {rule for rule, _ in set(faulty.faults) - set(before)}
    # Nautobot 3.2.0 has pictures without a text itself.
    missing = {"button-name", "color-contrast", "image-alt"} ^ found
    assert missing <= {rule for rule, _ in before}
    assert any("planted" in each for each in faulty.said)
    assert len(faulty.too_wide) == 1


# --------------------------------------------------------------------------------------------
# Walks


def test_a_cleanup_is_tried_its_list_read_and_then_done_for_real(page, base, checkpoint_redis):
    old, young = "checkpoint:old:2020-01-01T00:00:00+00:00", "checkpoint:young:2999-01-01T00:00:00+00:00"
    for key in (old, young):
        checkpoint_redis.set(key, "{}")
    path = DEFAULT_SCHEDULES["cleanup"].class_path
    page.goto(base + reverse("extras:job_run_by_class_path", kwargs={"class_path": path}))
    page.get_by_role("link", name="Start with a dry run").click()
    expect(page.locator("#id_dryrun")).to_be_checked()
    page.get_by_role("button", name="Run Job Now").click()
    page.wait_for_url("**/job-results/**")
    dry = MaintenanceRun.objects.get()
    opens(page, base, "maintenancerun", pk=dry.pk)
    expect(page.get_by_role("main")).to_contain_text("nothing was deleted. A real run would delete 1 key of 2")
    assert checkpoint_redis.exists(old)
    link = page.get_by_role("main").get_by_role("link", name=".csv").first
    table = page.request.get(base + link.get_attribute("href"))
    assert "old" in table.text()
    page.get_by_role("link", name="Delete these now").click()
    page.get_by_role("button", name="Confirm").click()
    page.get_by_role("alert").get_by_role("link").first.click()
    expect(page.get_by_role("main")).to_contain_text("It deleted 1 key of 2")
    assert not checkpoint_redis.exists(old)
    assert checkpoint_redis.exists(young)


def test_a_dead_letter_is_redriven_and_another_one_left(page, base):
    runs = [recorded("incidents", state="dead", error=f"Error {number}", attempt=5) for number in range(2)]
    opens(page, base, "deadletters")
    page.get_by_role("button", name=f"Redrive {runs[0]}").click()
    expect(page.get_by_text(f"redrives {runs[0]}.")).to_be_visible()
    page.get_by_role("link", name=f"Discard {runs[1]}").click()
    page.get_by_role("button", name="Confirm").click()
    expect(page.get_by_text(f"{runs[1]} was discarded")).to_be_visible()
    expect(page.get_by_text("There are no dead letters")).to_be_visible()
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
    opens(page, base, "overview")
    seen, buttons = set(), set()
    # Forms that change something are not for this user, which tests of rights look at.
    paths = [path for path in our_pages(objects) if not path.endswith(("/add/", "/edit/", "/delete/"))]
    for path in paths:
        found = page.evaluate(BUTTONS, path)
        if found["status"] == 200:
            seen.add(found["url"])
            assert not [action for action in found["forms"] + found["buttons"] if OURS in action], path
            buttons |= {link.partition("#")[0] for link in found["links"] if OURS in link}
    assert len(seen) > 15, "the pages that a user with view rights may open"
    unseen = buttons - seen
    assert {link: page.request.get(link).status for link in unseen} == dict.fromkeys(unseen, 200)
