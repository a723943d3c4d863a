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


class MCPProbeChoices(ChoiceSet):
    """How a health check asks a server; the same names as `ai_ops.core.health.ProbeKind`."""

    AUTO = "auto"
    HTTP = "http"
    MCP = "mcp"

    CHOICES = (
        (AUTO, "Health page, or MCP where there is none"),
        (HTTP, "Health page"),
        (MCP, "MCP handshake"),
    )


class MCPServerStatus:
    """Names of the statuses provisioned for MCP servers."""

    HEALTHY = "Healthy"
    UNHEALTHY = "Unhealthy"
    VULNERABLE = "Vulnerable"
    MAINTENANCE = "Maintenance"


class MCPIncidentKindChoices(ChoiceSet):
    """What an incident is about."""

    OUTAGE = "outage"
    INCONCLUSIVE = "inconclusive"

    CHOICES = ((OUTAGE, "Outage"), (INCONCLUSIVE, "Inconclusive run"))
