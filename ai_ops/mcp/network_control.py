"""The control address, which distinguishes an outage of many servers from one of this worker's network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from ai_ops.config import AiOpsSettings
from ai_ops.mcp.http.prober import Prober, Target
from ai_ops.mcp.logic.own_network import NETWORK_REASONS, is_suspicious
from ai_ops.mcp.logic.verdicts import ProbeKind, Reason


@dataclass(frozen=True)
class Doubt:
    """The reason to doubt the failures of a run.

    Attributes:
        sentence: Sentence for the log, and for the alert if there is one.
        inconclusive: Whether the control failed too, so that the run has no verdicts; otherwise its flips to Unhealthy
            wait for the next run.
    """

    sentence: str
    inconclusive: bool


def network_trouble(
    previously_healthy: int, reasons: Collection[Reason | None], settings: AiOpsSettings, *, may_ask: bool = True
) -> Doubt | None:
    """Decide whether this worker's network may have caused the new failures; this may ask the control.

    Args:
        previously_healthy: Number of Healthy servers that the run probed.
        reasons: The reasons of the new failures.
        settings: The settings, with the suspicious share of servers and the address of the control.
        may_ask: Whether there is time to ask the control.

    Returns:
        None if the run is reliable. Any answer of the control counts, since it has come through the network.
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
