"""Every change of a run's state is in one module."""

from __future__ import annotations

import ast
from pathlib import Path

APP = Path(__file__).parents[3] / "ai_ops"
FOLDERS = ("runs", "supervision", "jobs", "checkpoints")


def writes_a_state(node: ast.AST) -> bool:
    """Tell whether `node` is an UPDATE of a state of runs, or sets one on a record."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "update":
        return any(keyword.arg == "state" for keyword in node.keywords)
    targets = node.targets if isinstance(node, ast.Assign) else []
    named = [each for target in targets for each in ast.walk(target) if isinstance(each, ast.Attribute)]
    return any(each.attr == "state" and isinstance(each.value, ast.Name | ast.Attribute) for each in named)


def test_only_transitions_change_the_state_of_a_run():
    found = {
        str(path.relative_to(APP))
        for folder in FOLDERS
        for path in (APP / folder).rglob("*.py")
        if any(map(writes_a_state, ast.walk(ast.parse(path.read_text()))))
    }
    assert found == {"runs/transitions.py"}
