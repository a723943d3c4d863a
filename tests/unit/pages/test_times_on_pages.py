"""Every page takes its times and durations from one place."""

import re
from pathlib import Path

import pytest

APP = Path(__file__).parents[3] / "ai_ops"
TEMPLATES = sorted((APP / "templates").rglob("*.html"))
# Django's and Nautobot's own ways to write a time.
OTHER_FILTERS = re.compile(r"\|\s*(date|time|timesince|timeuntil|naturaltime|naturalday|humanize_\w+)\b|\{%\s*now\b")
# Nautobot's panels show a time or a length of time as Django does.
OTHER_PANELS = re.compile(r"\b(ObjectFieldsPanel|KeyValueTablePanel|EChartsPanel)\b")
PAGES = [*(APP / "details").glob("*.py"), *(APP / "overview").glob("*.py"), *(APP / "views").glob("*.py")]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_template_writes_a_time_in_a_way_of_its_own(path):
    assert not OTHER_FILTERS.search(path.read_text())


@pytest.mark.parametrize("path", PAGES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_panels_of_facts_and_charts_are_those_of_this_app(path):
    assert not OTHER_PANELS.search(path.read_text())


def test_the_patterns_find_what_they_look_for():
    for text in ("{{ run.started|date:'c' }}", "{{ a | timesince }}", "{% now 'Y' %}"):
        assert OTHER_FILTERS.search(text)
    assert not OTHER_FILTERS.search("{{ run.started|ago }} {{ run.execution_time_ms|duration }} updated")
