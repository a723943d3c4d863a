"""What the documentation says of settings, options, schedules, reasons and permissions is what the code has."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from ai_ops.config import AiOpsSettings
from ai_ops.mcp.logic.verdicts import Phase, Reason
from ai_ops.navigation import menu_items
from ai_ops.schedules import DEFAULT_SCHEDULES
from development import reference

DOCS = reference.PROJECT / "docs"


def first_cells(path):
    """All names in the first cells of the tables of a page."""
    rows = re.findall(r"^\| (.+?) \|", (DOCS / path).read_text(), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)} | set(rows)


def test_the_reference_is_what_the_code_makes_of_it():
    assert reference.PAGE.read_text() == reference.page(), "Run `python -m development.reference`."


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
