"""AI Ops: keeps the machinery behind Nautobot's AI agents healthy."""

from importlib import metadata

from nautobot.apps import NautobotAppConfig, nautobot_database_ready

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
    searchable_models = ["mcpserver"]

    def ready(self):
        """Register with Nautobot, and provision when the database is ready."""
        super().ready()
        # Models can only be imported once all apps are loaded.
        from ai_ops.provisioning import provision

        nautobot_database_ready.connect(provision, sender=self)


config = AiOpsConfig  # pylint: disable=invalid-name
