"""The last probes of a server as a bar, in lists and on its page."""

from __future__ import annotations

from django.utils.html import format_html, format_html_join

from ai_ops.mcp.logic.flapping import WELL


def probes_bar(recent: str | None) -> str | None:
    """Return probes as a bar of green and red, with the numbers in words for screen readers.

    Args:
        recent: One character per probe, the oldest first, in the format of `MCPServerHealth.recent`.
    """
    if not recent:
        return None
    well = recent.count(WELL)
    words = f"Last {len(recent)} probes: {well} well, {len(recent) - well} failed"
    parts = format_html_join(
        "",
        '<span class="bg-{}" style="width: 4px; height: {}"></span>',
        (("success", "0.7rem") if probe == WELL else ("danger", "1rem") for probe in recent),
    )
    return format_html(
        '<span role="img" aria-label="{}" title="{}" class="d-inline-flex align-items-end" style="gap: 1px">{}</span>',
        words,
        words,
        parts,
    )
