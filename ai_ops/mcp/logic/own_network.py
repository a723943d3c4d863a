"""The decision whether servers or this worker's own network cause many failures at the same time."""

from __future__ import annotations

from collections.abc import Collection

from ai_ops.mcp.logic.verdicts import Reason

# The reasons during an outage of our own network. TLS is not one of them, because a TLS failure needs received data.
NETWORK_REASONS = frozenset({Reason.DNS, Reason.CONNECT, Reason.TIMEOUT})

# Two servers may fail by chance within ten minutes.
FEWEST_FAILURES = 3

# With fewer Healthy servers "more than half" has no meaning.
FEWEST_HEALTHY = 3


def is_suspicious(previously_healthy: int, reasons: Collection[Reason | None], percent: int) -> bool:
    """Return whether the number of new failures suggests a failure of this worker's own network.

    Args:
        previously_healthy: Number of Healthy servers that the run probed.
        reasons: The reasons of the new failures.
        percent: Share of `previously_healthy` that is suspicious, 1 to 100. 0 is the default: more than half of them,
            all for reasons of the network. A server that fails for another reason shows that the network works.
    """
    failed = sum(reason in NETWORK_REASONS for reason in reasons)
    if not percent:
        return previously_healthy >= FEWEST_HEALTHY and failed == len(reasons) and 2 * failed > previously_healthy
    return failed >= FEWEST_FAILURES and 100 * failed >= percent * previously_healthy


def shows_no_network_trouble(reason: Reason | None) -> bool:
    """Return whether a new failure for `reason` shows that this worker's network is up."""
    return reason not in NETWORK_REASONS
