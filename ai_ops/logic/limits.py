"""Limits that settings, database columns and decisions share."""

from __future__ import annotations

# For a whole probe: name lookup, connection, TLS handshake, headers and body.
CHECK_TIMEOUT_SECONDS = 10.0

# Servers that each thread of a run probes at the same time. Threads wait for the network, so two hundred dead servers
# take no longer than one.
PROBE_CONCURRENCY = 50

# There are 20 possible changes between 21 probes.
CHECKS_LOOKED_AT = 21

# Tables show the name, the version and the revision that an MCP server reports.
MAX_NAME_CHARACTERS = 100

# The specification recommends at most 128 characters. The name is the key of a row.
MAX_TOOL_NAME_CHARACTERS = 255
