"""A server's check is changed by its own methods alone."""

from __future__ import annotations

import ast
from pathlib import Path

MCP = Path(__file__).parents[3] / "ai_ops" / "mcp"
FIELDS = {"settled", "status_after", "changed", "checked_at", "our_network", "waits", "earlier"}


def test_no_other_module_sets_a_field_of_a_check():
    found = {
        path.name
        for path in MCP.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr in FIELDS
    }
    assert found == {"server_check.py"}
