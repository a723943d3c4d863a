"""Interfaces for agents: their MCP tools, and notice of changed servers.

``ai_ops.agents.mcp_client`` is not imported here: it brings LangChain along, two seconds of import
that a worker which only runs health checks need not spend.
"""

from ai_ops.mcp.generation import clear_mcp_cache, current_generation, publish_generation

__all__ = ["clear_mcp_cache", "current_generation", "publish_generation"]
