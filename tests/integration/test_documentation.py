"""Settings, options, schedules, reasons and permissions in the documentation, compared with the code."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from ai_ops import jobs
from ai_ops.choices import MCPIncidentKindChoices
from ai_ops.config import AiOpsSettings
from ai_ops.mcp.logic.verdicts import Phase, Reason
from ai_ops.navigation import menu_items
from ai_ops.schedules import DEFAULT_SCHEDULES
from development import reference, reference_rest, screenshots

DOCS = reference.PROJECT / "docs"


def first_cells(path):
    """All names in the first cells of the tables of a page."""
    rows = re.findall(r"^\| (.+?) \|", (DOCS / path).read_text(), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)} | set(rows)


@pytest.mark.parametrize("generated", [reference, reference_rest])
def test_the_reference_is_what_the_code_makes_of_it(generated):
    assert generated.PAGE.read_text() == generated.page(), "Run `python -m development.reference`."


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("admin/settings.md", {field.name for field in fields(AiOpsSettings)}),
        ("user/probing.md", {str(reason) for reason in Reason} | {str(phase) for phase in Phase}),
        ("user/schedules.md", {schedule.name for schedule in DEFAULT_SCHEDULES.values()}),
        (
            "user/app_overview.md",
            {f"{group.name} / {item.name}" for tab in menu_items for group in tab.groups for item in group.items},
        ),
    ],
)
def test_a_page_that_explains_leaves_nothing_out(path, names):
    assert names - first_cells(path) == set()


def test_the_jobs_that_are_not_hidden_are_named():
    page = (DOCS / "user/app_overview.md").read_text()
    sentence = re.search(r"All but (.+?)\s+are hidden Jobs", page, re.DOTALL)
    assert set(re.findall(r'"(.+?)"', sentence[1])) == {job.name for job in jobs.jobs if not job.hidden}


def test_the_glossary_has_its_words_in_order_and_once():
    words = re.findall(r"^\| ([^|]+?) \| ", (DOCS / "user/glossary.md").read_text(), re.MULTILINE)[2:]
    assert words == sorted(set(words), key=str.lower)
    assert {"lease", "fence", "drift", "flapping", "dead letter", "orphan"} <= set(words)


def test_every_address_of_rest_is_on_its_page():
    from ai_ops.api.urls import router

    page = (DOCS / "user/rest_api.md").read_text()
    for prefix, viewset, _ in router.registry:
        assert f"`/api/plugins/ai-ops/{prefix}/" in page
        # Notes are Nautobot's own.
        for action in (each for each in viewset.get_extra_actions() if each.url_path != "notes"):
            assert f"{action.url_path}/`" in page, f"{prefix} {action.url_path}"


def test_the_events_of_the_reference_are_all_that_are_published():
    from ai_ops.mcp import events as mcp_events
    from ai_ops.runs import events as run_events

    for events in (mcp_events, run_events):
        assert {value for name, value in vars(events).items() if name.startswith("TOPIC_")} == set(events.TOPICS)


def test_each_kind_of_incident_is_on_the_page_of_notifications():
    page = (DOCS / "user/notifications.md").read_text()
    for _, name in MCPIncidentKindChoices.CHOICES:
        assert f"| {name} |" in page


def test_every_picture_is_taken_by_the_script_and_shown_on_a_page():
    pictures = {path.stem for path in screenshots.IMAGES.glob("*.png")}
    assert pictures == set(screenshots.PAGES)
    pages = "".join(path.read_text() for path in [*DOCS.rglob("*.md"), reference.PROJECT / "README.md"])
    assert {name for name in pictures if f"images/{name}.png" not in pages} == set()
