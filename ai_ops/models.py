"""What AI Ops keeps in Nautobot's database."""

from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.db import models
from nautobot.apps.constants import CHARFIELD_MAX_LENGTH
from nautobot.apps.models import LaxURLField, PrimaryModel, StatusField, extras_features
from nautobot.extras.models import Status

from ai_ops.choices import MCPProtocolChoices, MCPServerStatus, MCPTypeChoices


def unhealthy_status_pk():
    """Primary key of the status a new server starts in; None before statuses are provisioned."""
    return (
        Status.objects.get_for_model(MCPServer)
        .filter(name=MCPServerStatus.UNHEALTHY)
        .values_list("pk", flat=True)
        .first()
    )


@extras_features(
    "custom_links",
    "custom_validators",
    "export_templates",
    "graphql",
    "statuses",
    "webhooks",
)
class MCPServer(PrimaryModel):
    """A Model Context Protocol server whose tools the agents call."""

    name = models.CharField(max_length=CHARFIELD_MAX_LENGTH, unique=True)
    status = StatusField(
        default=unhealthy_status_pk,
        help_text="A new server is Unhealthy until a check has confirmed otherwise.",
    )
    protocol = models.CharField(
        max_length=20,
        choices=MCPProtocolChoices,
        default=MCPProtocolChoices.HTTP,
        help_text="HTTP servers are checked; STDIO servers run inside the agent and are not.",
    )
    url = LaxURLField(
        max_length=CHARFIELD_MAX_LENGTH,
        blank=True,
        verbose_name="URL",
        help_text="Scheme, host and port, without credentials: http://mcp.example.com:8000. Required for HTTP.",
    )
    mcp_endpoint = models.CharField(
        max_length=CHARFIELD_MAX_LENGTH,
        default="/mcp",
        blank=True,
        verbose_name="MCP endpoint",
        help_text="Path of the MCP endpoint, appended to the URL.",
    )
    health_check = models.CharField(
        max_length=CHARFIELD_MAX_LENGTH,
        default="/health",
        blank=True,
        help_text="Path that answers a GET with a 2xx status while the server is well, appended to the URL.",
    )
    mcp_type = models.CharField(
        max_length=20,
        choices=MCPTypeChoices,
        default=MCPTypeChoices.INTERNAL,
        verbose_name="MCP type",
        help_text="Whether your own organisation runs the server.",
    )
    description = models.CharField(max_length=CHARFIELD_MAX_LENGTH, blank=True)

    class Meta:
        """Model options."""

        ordering = ["name"]
        verbose_name = "MCP server"
        verbose_name_plural = "MCP servers"

    def __str__(self):
        return self.name

    @property
    def health_check_url(self):
        """The address a health check asks."""
        return f"{self.url.rstrip('/')}{self.health_check}"

    @property
    def mcp_url(self):
        """The address an agent connects to."""
        return f"{self.url.rstrip('/')}{self.mcp_endpoint}"

    def clean(self):
        """Bring the paths into shape and validate the URL; every error names its field."""
        super().clean()
        self.mcp_endpoint = _with_leading_slash(self.mcp_endpoint)
        self.health_check = _with_leading_slash(self.health_check)
        if self.protocol == MCPProtocolChoices.HTTP and not self.url:
            raise ValidationError({"url": "An HTTP server needs a URL, such as http://mcp.example.com:8000."})
        if self.url:
            self._validate_url()

    def _validate_url(self):
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValidationError({"url": "Enter a URL that starts with http:// or https:// and names a host."})
        if parts.username is not None or parts.password is not None:
            # A URL is shown on pages, in change logs and in webhooks: no place for a secret.
            raise ValidationError({"url": "Leave user name and password out of the URL: it is shown to everybody."})
        if parts.query or parts.fragment:
            raise ValidationError({"url": "Leave ? and # out of the URL: the paths below are appended to it."})


def _with_leading_slash(path):
    path = path.strip()
    return path if not path or path.startswith("/") else f"/{path}"
