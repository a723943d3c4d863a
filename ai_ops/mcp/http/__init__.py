"""The edge to MCP servers over HTTP: no Django; values of `logic` in and out."""
