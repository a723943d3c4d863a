"""Interfaces for agents: their MCP tools, and notifications of changed servers.

``ai_ops.agents.mcp_client`` is not imported here. It imports LangChain, which takes two seconds that a worker with only
health checks does not need.
"""

from ai_ops.mcp.generation import clear_mcp_cache, current_generation, publish_generation

__all__ = ["clear_mcp_cache", "current_generation", "publish_generation"]
