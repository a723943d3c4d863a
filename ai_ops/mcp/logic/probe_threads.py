"""The threads that probe MCP servers: how many, their name, and how many probes one server gets at once."""

from __future__ import annotations

THREAD_NAME = "mcp-probe"

# Threads that probe at once: enough that a dead server does not hold up the others, few enough for a Celery worker that
# shares its cores.
MAX_WORKERS = 4

# Of a fleet many may live on one host, behind one proxy: what is meant to see whether it is well must not be its load.
MAX_AT_ONE_PORT = 8
