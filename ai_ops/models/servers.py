"""MCP servers, as configured by operators."""

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models, transaction
from django.db.models.signals import pre_delete
from django.dispatch import receiver
from nautobot.apps.constants import CHARFIELD_MAX_LENGTH
from nautobot.apps.models import PrimaryModel, StatusField, extras_features
from nautobot.extras.models import Status

from ai_ops.choices import MCPProbeChoices, MCPProtocolChoices, MCPServerStatus, MCPTypeChoices
from ai_ops.models.credential_guard import refused_changes
from ai_ops.models.generation import AgentGeneration
from ai_ops.models.health import MCPServerCheckHour
from ai_ops.validators import URL_EXAMPLE, validate_ca_file, validate_path, validate_server_url

# Minutes: a week. To skip a server for longer, give it another status.
MAX_CHECK_INTERVAL = 10_080


def unhealthy_status_pk():
    """Return the primary key of the initial status of a server; None if it was deleted or renamed."""
    return (
        Status.objects.get_for_model(MCPServer)
        .filter(name=MCPServerStatus.UNHEALTHY)
        .values_list("pk", flat=True)
        .first()
    )


# Without the feature GraphQL: ai_ops.graphql.types defines the type.
@extras_features(
    "custom_links",
    "custom_validators",
    "export_templates",
    "statuses",
    "webhooks",
)
class MCPServer(PrimaryModel):
    """A Model Context Protocol server whose tools the agents call."""

    name = models.CharField(max_length=CHARFIELD_MAX_LENGTH, unique=True)
    status = StatusField(
        default=unhealthy_status_pk,
        help_text="A new server is Unhealthy until a check has confirmed otherwise.",
        error_messages={
            "null": f"Choose a status: {MCPServerStatus.UNHEALTHY}, in which a new server starts, is not available."
        },
    )
    protocol = models.CharField(
        max_length=20,
        choices=MCPProtocolChoices,
        default=MCPProtocolChoices.HTTP,
        help_text="Health checks probe HTTP servers. STDIO servers run inside the agent and are not checked.",
    )
    url = models.CharField(
        max_length=CHARFIELD_MAX_LENGTH,
        blank=True,
        verbose_name="URL",
        validators=[validate_server_url],
        help_text=f"Scheme, host and port, without credentials: {URL_EXAMPLE}. Required for HTTP.",
    )
    mcp_endpoint = models.CharField(
        max_length=CHARFIELD_MAX_LENGTH,
        default="/mcp",
        blank=True,
        verbose_name="MCP endpoint",
        validators=[validate_path],
        help_text="Path of the MCP endpoint, appended to the URL.",
    )
    health_check = models.CharField(
        max_length=CHARFIELD_MAX_LENGTH,
        default="/health",
        blank=True,
        validators=[validate_path],
        help_text="Path of the health page, appended to the URL. It answers a GET with a 2xx status while the server "
        "is healthy.",
    )
    probe = models.CharField(
        max_length=20,
        choices=MCPProbeChoices,
        default=MCPProbeChoices.AUTO,
        help_text="How to check the server. Servers built with the SDKs have no health page; health checks then use "
        "MCP.",
    )
    verify_tls = models.BooleanField(
        default=True,
        verbose_name="verify TLS",
        help_text="Without verification any host on the way can impersonate the server and read its credentials.",
    )
    ca_file = models.CharField(
        max_length=CHARFIELD_MAX_LENGTH,
        blank=True,
        verbose_name="CA file",
        validators=[validate_ca_file],
        help_text="Path of a PEM file, on workers and agents, with the CAs to trust; empty for the configured ones.",
    )
    secrets_group = models.ForeignKey(
        to="extras.SecretsGroup",
        # Without its credentials a server would look dead some time after its secrets group was deleted.
        on_delete=models.PROTECT,
        default=None,
        blank=True,
        null=True,
        related_name="mcp_servers",
        help_text="A secrets group with access type HTTP(S) and either a Token (sent as bearer token) or a Key (the "
        "header's name) and a Secret (its value).",
    )
    check_interval = models.PositiveIntegerField(
        blank=True,
        null=True,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_CHECK_INTERVAL)],
        verbose_name="check interval (minutes)",
        help_text="Minutes between two checks. Leave empty to check the server in every run of the Job.",
    )
    mcp_type = models.CharField(
        max_length=20,
        choices=MCPTypeChoices,
        default=MCPTypeChoices.INTERNAL,
        verbose_name="MCP type",
        help_text="Whether your own organisation runs the server.",
    )
    description = models.CharField(max_length=CHARFIELD_MAX_LENGTH, blank=True)

    clone_fields = [
        "status",
        "protocol",
        "url",
        "mcp_endpoint",
        "health_check",
        "probe",
        "verify_tls",
        "ca_file",
        "secrets_group",
        "check_interval",
        "mcp_type",
    ]

    class Meta:
        """Model options."""

        ordering = ["name"]
        verbose_name = "MCP server"
        verbose_name_plural = "MCP servers"

    def __str__(self):
        return self.name

    @property
    def health_check_url(self):
        """Return the address of the health page."""
        return f"{self.url.rstrip('/')}{self.health_check}"

    @property
    def mcp_url(self):
        """Return the address to which agents connect."""
        return f"{self.url.rstrip('/')}{self.mcp_endpoint}"

    def why_not_checked(self) -> str | None:
        """Return the reason why health checks skip this server, as a sentence; None if they do not."""
        if self.protocol != MCPProtocolChoices.HTTP:
            kind = self.get_protocol_display()
            return f"{self} is not checked: a {kind} server runs inside the agent and has no address."
        if self.status.name == MCPServerStatus.VULNERABLE:
            return f"{self} is not checked while its status is {self.status}: give it another status first."
        return None

    def clean_fields(self, exclude=None):
        """Normalise URL and paths first, so that the saved lengths are validated."""
        self._normalize()
        super().clean_fields(exclude=exclude)

    def clean(self):
        """Require the fields of the protocol, and the permission to send credentials to a new destination."""
        super().clean()
        if self.protocol == MCPProtocolChoices.HTTP and not self.url:
            raise ValidationError({"url": f"Enter the URL of the HTTP server, such as {URL_EXAMPLE}."})
        if refusals := refused_changes(self):
            raise ValidationError(refusals)

    def save(self, *args, **kwargs):
        """Normalise URL and paths, even without validation, and notify the agents."""
        self._normalize()
        # Without a savepoint, as Django saves a row.
        with transaction.atomic(savepoint=False):
            AgentGeneration.bump()
            super().save(*args, **kwargs)

    def _normalize(self):
        for name, into_shape in _SHAPES.items():
            setattr(self, name, into_shape((getattr(self, name) or "").strip()))


@receiver(pre_delete, sender=MCPServer)
def _follow_a_deletion(**_):
    """Notify the agents, and delete the sums of hours, because the server's checks are deleted with it."""
    # The signal is sent inside the transaction of the deletion, of one server or many. The sums are deleted under the
    # lock on the generation, so that no process computes one from checks that are being deleted.
    AgentGeneration.bump()
    MCPServerCheckHour.forget()


def _with_leading_slash(path: str) -> str:
    return path if not path or path.startswith("/") else f"/{path}"


def _with_lower_case_scheme(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{scheme.lower()}{separator}{rest}"


_SHAPES = {
    "url": _with_lower_case_scheme,
    "mcp_endpoint": _with_leading_slash,
    "health_check": _with_leading_slash,
}
