"""Set-up that all tests of runs have in common."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def short_waits(redis_retries):
    """Let cleanups wait shortly for a Redis that is away."""
    redis_retries(0.01)
