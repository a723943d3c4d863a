"""AI Ops: keeps the machinery behind Nautobot's AI agents healthy."""

from importlib import metadata

from nautobot.apps import NautobotAppConfig

__version__ = metadata.version("nautobot-app-ai-ops")


class AiOpsConfig(NautobotAppConfig):
    """What Nautobot needs to know of the app."""

    name = "ai_ops"
    verbose_name = "AI Ops"
    version = __version__
    author = "AI Ops maintainers"
    description = "Keeps LangGraph checkpoints and MCP servers healthy."
    base_url = "ai-ops"
    min_version = "3.2.0"
    max_version = "3.99.99"


config = AiOpsConfig  # pylint: disable=invalid-name
