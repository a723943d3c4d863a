"""The threads that probe MCP servers: their number, their name, and the limit on parallel probes at one port."""

from __future__ import annotations

THREAD_NAME = "mcp-probe"

# Number of threads: enough that a dead server does not delay the others, and few enough for a Celery worker that shares
# its cores.
MAX_WORKERS = 4

# Many servers may be on one host behind one proxy. Health checks must not overload it.
MAX_AT_ONE_PORT = 8
