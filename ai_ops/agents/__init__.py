"""What agents use: their MCP client and how it learns that a server has changed."""
