"""The pause between two checks of a server, and the number of checks that must agree."""

from __future__ import annotations

# One lost packet, or one restart of a container, must not take a server's tools away: a status is
# flipped only when this many checks in a row say so, with a pause between them.
CHECKS_TO_FLIP = 3

# Seconds between two checks of a server. All servers of a run share the pause.
PAUSE_SECONDS = 5.0
