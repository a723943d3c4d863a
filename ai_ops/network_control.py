"""The control that tells an outage of many servers from one of this worker's own network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from ai_ops.adapters.mcp_http import Prober, Target
from ai_ops.config import AiOpsSettings
from ai_ops.core.health import ProbeKind, Reason
from ai_ops.core.mass_failure import NETWORK_REASONS, is_suspicious


def network_trouble(previously_healthy: int, reasons: Collection[Reason | None]) -> str | None:
    """Ask the control if so many servers newly fail that the network may be to blame.

    Args:
        previously_healthy: Healthy servers that the run probed.
        reasons: Why those of them that newly fail do.

    Returns:
        A sentence for the log and the alert if the control fails too; None if the run is to be believed.
        Any answer of the control will do, since it has come through the network.
    """
    settings = AiOpsSettings.load()
    if not is_suspicious(previously_healthy, reasons, settings.mass_failure_percent):
        return None
    with Prober(settings.check_timeout, allow_loopback=settings.allow_loopback) as prober:
        (control,) = prober.probe_all([Target(settings.control_url, kind=ProbeKind.HTTP, ca_file=settings.ca_file)])
    if control.reason not in NETWORK_REASONS:
        return None
    named = ", ".join(f"{count} {reason}" for reason, count in Counter(map(str, reasons)).most_common())
    return (
        f"INCONCLUSIVE: {len(reasons)} of {previously_healthy} Healthy servers newly fail ({named}), and so does the "
        f"control: {control.message} No status was changed: check this worker's network."
    )
