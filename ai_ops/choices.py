"""Names that more than one module needs, each written once."""

from nautobot.apps.choices import ChoiceSet

# The group under which the Jobs stand on the Jobs page.
JOB_GROUP = "AI Agents"


class MCPProtocolChoices(ChoiceSet):
    """How an agent reaches an MCP server."""

    HTTP = "http"
    STDIO = "stdio"

    CHOICES = ((HTTP, "HTTP"), (STDIO, "STDIO"))


class MCPTypeChoices(ChoiceSet):
    """Who runs an MCP server."""

    INTERNAL = "internal"
    EXTERNAL = "external"

    CHOICES = ((INTERNAL, "Internal"), (EXTERNAL, "External"))


class MCPServerStatus:
    """Names of the statuses provisioned for MCP servers."""

    HEALTHY = "Healthy"
    UNHEALTHY = "Unhealthy"
    VULNERABLE = "Vulnerable"
    MAINTENANCE = "Maintenance"
