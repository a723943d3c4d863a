"""The pause between two checks of a server."""

from __future__ import annotations

# Seconds between two checks of a server. All servers of a run share the pause.
PAUSE_SECONDS = 5.0
