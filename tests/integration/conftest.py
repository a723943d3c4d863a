"""Set-up that all integration tests have in common."""

from __future__ import annotations

from contextlib import ExitStack

import pytest


@pytest.fixture(autouse=True)
def pauses():
    """Let the pauses between two rounds of probes be short; a test of the pause calls this with its seconds."""
    # Here, since a process that only hands tests to others loads this file too, and has no Nautobot.
    from tests.fakes.runs import with_pauses

    with ExitStack() as stack:

        def set_pauses(seconds: float) -> None:
            stack.enter_context(with_pauses(seconds))

        set_pauses(0.02)
        yield set_pauses
