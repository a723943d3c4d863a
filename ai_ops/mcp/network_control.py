"""The control address, which separates an outage of many servers from one of this worker's network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from ai_ops.config import AiOpsSettings
from ai_ops.mcp.http.prober import Prober, Target
from ai_ops.mcp.logic.mass_failure import NETWORK_REASONS, is_suspicious
from ai_ops.mcp.logic.verdicts import ProbeKind, Reason


@dataclass(frozen=True)
class Doubt:
    """The reason to doubt the failures of a run.

    Attributes:
        sentence: For the log, and for the alert where there is one.
        inconclusive: Whether the control failed too, so that the run says nothing; otherwise its flips to Unhealthy
            wait for the next run.
    """

    sentence: str
    inconclusive: bool


def network_trouble(
    previously_healthy: int, reasons: Collection[Reason | None], settings: AiOpsSettings, *, may_ask: bool = True
) -> Doubt | None:
    """Decide whether so many servers newly fail that this worker's network may be the cause; may ask the control.

    Args:
        previously_healthy: Healthy servers that the run probed.
        reasons: Why those of them that newly fail do.
        settings: With the share of servers that is suspicious, and the address of the control.
        may_ask: Whether there is time to ask the control.

    Returns:
        None if the run is to be believed. Any answer of the control will do, since it has come through the network.
    """
    if not is_suspicious(previously_healthy, reasons, settings.mass_failure_percent):
        return None
    named = ", ".join(f"{count} {reason}" for reason, count in Counter(map(str, reasons)).most_common())
    seen = f"{len(reasons)} of {previously_healthy} Healthy servers newly fail ({named})"
    if not settings.control_url or not may_ask:
        return Doubt(
            f"WAITING: {seen}, which may be the fault of this worker's own network. Their statuses change if the next "
            "run finds the same.",
            inconclusive=False,
        )
    with Prober(settings.check_timeout, allow_loopback=settings.allow_loopback) as prober:
        control = prober.probe(Target(settings.control_url, kind=ProbeKind.HTTP, ca_file=settings.ca_file))
    if control.reason not in NETWORK_REASONS:
        return None
    return Doubt(
        f"INCONCLUSIVE: {seen}, and so does the control: {control.message} No status was changed: check this worker's "
        "network.",
        inconclusive=True,
    )
