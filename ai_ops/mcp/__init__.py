"""MCP servers: their health, their tools, their incidents, and the agents that use them."""
