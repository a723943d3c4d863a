"""Decisions on MCP servers: standard library only, time is an argument, nothing is read or written."""
