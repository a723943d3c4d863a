"""The documentation names the test of every promise: each must be there."""

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (PROJECT / "docs" / "user" / "runs.md").read_text())


def test_promises_name_tests():
    assert len(NAMED) > 20


@pytest.mark.parametrize(("path", "name"), sorted(set(NAMED)))
def test_the_test_of_a_promise_exists(path, name):
    file = PROJECT / path
    assert file.exists(), f"{path} is named by docs/user/runs.md and does not exist"
    assert re.search(rf"^\s*def {name}\(", file.read_text(), re.MULTILINE), f"{path} has no {name}"
