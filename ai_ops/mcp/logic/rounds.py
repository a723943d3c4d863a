"""Rounds of a check: how many probes must agree, and the pause between two of them."""

from __future__ import annotations

# One lost packet, or one restart of a container, must not take a server's tools away: a status is
# flipped only when this many checks in a row say so, with a pause between them.
CHECKS_TO_FLIP = 3

# Seconds between two checks of a server. All servers of a run share the pause.
PAUSE_SECONDS = 5.0
