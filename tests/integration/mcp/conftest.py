"""Set-up that all tests of MCP servers have in common."""

from __future__ import annotations

import pytest

from ai_ops.mcp import check


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    """Let the pause between two checks of a server be short; a test of the pause itself sets its own."""
    monkeypatch.setattr(check, "PAUSE_SECONDS", 0.02)
