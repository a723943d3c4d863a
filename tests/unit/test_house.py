"""The house: its rooms, and the files that the documentation names for likely changes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ai_ops import exceptions

PROJECT = Path(__file__).parents[2]
APP = PROJECT / "ai_ops"
MOST_FILES_AT_THE_ROOT = 20

CHANGES = re.findall(
    r"^\| ([^|]+) \| `([\w/.]+)` \| `([^`]+)` \|$", (PROJECT / "docs/dev/arch_decision.md").read_text(), re.MULTILINE
)
NAMED = sorted(set(re.findall(r"`((?:[\w-]+/)+[\w-]+\.(?:py|html))`", "".join(
    (PROJECT / "docs/dev" / name).read_text() for name in ("arch_decision.md", "extending.md")
))))  # fmt: skip


def test_the_root_has_few_files():
    assert len(list(APP.glob("*.py"))) <= MOST_FILES_AT_THE_ROOT
    # An older checkout may still have the compiled files of what was there.
    assert not [*(APP / "core").rglob("*.py"), *(APP / "adapters").rglob("*.py")]


def test_there_are_likely_changes():
    assert len(CHANGES) >= 10


@pytest.mark.parametrize(("change", "file", "name"), CHANGES, ids=[change for change, _, _ in CHANGES])
def test_a_likely_change_has_its_file(change, file, name):
    assert name in (APP / file).read_text(), f"{file} has no {name}: correct the table in docs/dev/arch_decision.md"


@pytest.mark.parametrize("file", NAMED)
def test_a_file_that_the_developers_pages_name_exists(file):
    assert any((folder / file).exists() for folder in (APP, PROJECT, PROJECT / "langgraph_checkpoint_compact"))


def test_the_tree_of_exceptions_is_the_one_in_the_docstring():
    drawn = re.findall(r"^    ([│├└─ ]*)(\w+Error)", exceptions.__doc__, re.MULTILINE)
    parents: dict[int, str] = {}
    for branch, name in drawn:
        depth = len(branch) // 4
        error = getattr(exceptions, name)
        assert depth == 0 or error.__bases__ == (getattr(exceptions, parents[depth - 1]),), name
        parents[depth] = name
    defined = [name for name, each in vars(exceptions).items() if isinstance(each, type)]
    assert sorted(name for _, name in drawn) == sorted(defined)
