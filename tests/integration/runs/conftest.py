"""Set-up that all tests of runs have in common."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    """Let cleanups wait shortly for a Redis that is away."""
    monkeypatch.setattr("ai_ops.checkpoints.redis.client.RETRY_DELAYS", (0.01,))
