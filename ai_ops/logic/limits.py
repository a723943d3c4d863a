"""Bounds that settings or database columns share with decisions."""

from __future__ import annotations

# All of a probe: name lookup, connection, TLS handshake, headers and body.
CHECK_TIMEOUT_SECONDS = 10.0

# Servers that each thread of a run asks at once: what they wait for is the network, and two hundred dead ones take no
# longer than one.
PROBE_CONCURRENCY = 50

# 21 probes have 20 possible changes between them.
CHECKS_LOOKED_AT = 21

# The name, the version and the revision that an MCP server gives are shown in tables.
MAX_NAME_CHARACTERS = 100

# The specification recommends at most 128; it is the key of a row.
MAX_TOOL_NAME_CHARACTERS = 255
