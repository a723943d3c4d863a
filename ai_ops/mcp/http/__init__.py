"""The HTTP edge to MCP servers: it has no Django, and its arguments and results are values of `logic`."""
