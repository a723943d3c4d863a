"""The documentation names the test of every promise: each must be there."""

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PAGES = ("docs/user/runs.md", "docs/dev/promises.md")
TEXT = "".join((PROJECT / page).read_text() for page in PAGES)
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)


def test_promises_name_tests():
    assert len(NAMED) > 20


@pytest.mark.parametrize(("path", "name"), sorted(set(NAMED)))
def test_the_test_of_a_promise_exists(path, name):
    file = PROJECT / path
    assert file.exists(), f"{path} is named by a page of promises and does not exist"
    assert re.search(rf"^\s*def {name}\(", file.read_text(), re.MULTILINE), f"{path} has no {name}"
