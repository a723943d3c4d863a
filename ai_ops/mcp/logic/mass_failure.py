"""Decide whether the servers or this worker's own network cause many failures at once."""

from __future__ import annotations

from collections.abc import Collection

from ai_ops.mcp.logic.verdicts import Reason

# The reasons in an outage of our own network. TLS is not among them: bytes came back, so the network works.
NETWORK_REASONS = frozenset({Reason.DNS, Reason.CONNECT, Reason.TIMEOUT})

# Two servers may well fail by chance within ten minutes.
FEWEST_FAILURES = 3

# Of fewer Healthy servers "more than half" says nothing.
FEWEST_HEALTHY = 3


def is_suspicious(previously_healthy: int, reasons: Collection[Reason | None], percent: int) -> bool:
    """Return whether so many servers newly fail that this worker's own network may be the cause.

    Args:
        previously_healthy: Healthy servers that the run probed.
        reasons: Why those of them that newly fail do.
        percent: Share of `previously_healthy` from which it is suspicious, 1 to 100. 0 is the default: more than half
            of them, all for reasons of the network. One server that fails otherwise shows that the network works.
    """
    failed = sum(reason in NETWORK_REASONS for reason in reasons)
    if not percent:
        return previously_healthy >= FEWEST_HEALTHY and failed == len(reasons) and 2 * failed > previously_healthy
    return failed >= FEWEST_FAILURES and 100 * failed >= percent * previously_healthy


def shows_no_network_trouble(reason: Reason | None) -> bool:
    """Return whether a new failure for `reason` shows that this worker's network is up."""
    return reason not in NETWORK_REASONS
