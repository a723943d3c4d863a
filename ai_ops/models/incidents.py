"""Incidents: outages of MCP servers, and other problems that need operators. They are in the change log."""

from datetime import timedelta

from django.conf import settings
from django.db import models
from django.utils import timezone
from nautobot.apps.constants import CHARFIELD_MAX_LENGTH
from nautobot.apps.models import OrganizationalModel, extras_features

from ai_ops.choices import MCPIncidentKindChoices
from ai_ops.models.health import REASON_MAX_LENGTH


@extras_features("custom_links", "custom_validators", "export_templates", "graphql", "webhooks")
class MCPServerIncident(OrganizationalModel):
    """An outage of one server, or of many at once, from the flip to Unhealthy until all have recovered.

    A server is in at most one open outage. If it fails again while its incident is open, it stays in that incident.
    Runs without results and changed tools are incidents of other kinds.
    """

    # Set when it opens, so that it is readable after servers were renamed or deleted.
    name = models.CharField(max_length=CHARFIELD_MAX_LENGTH)
    kind = models.CharField(max_length=20, choices=MCPIncidentKindChoices, default=MCPIncidentKindChoices.OUTAGE)
    servers = models.ManyToManyField("ai_ops.MCPServer", related_name="incidents", blank=True)
    reason = models.CharField(
        max_length=REASON_MAX_LENGTH, help_text="Reason why the first of its servers failed its checks."
    )
    message = models.TextField(blank=True, help_text="The answer, and the advice.")
    opened = models.DateTimeField()
    closed = models.DateTimeField(null=True, blank=True)
    acknowledged = models.DateTimeField(null=True, blank=True)
    acknowledged_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    escalated = models.DateTimeField(null=True, blank=True)

    natural_key_field_names = ["pk"]

    class Meta:
        """Model options."""

        # Open incidents first, since they wait for a user.
        ordering = [models.F("closed").desc(nulls_first=True), "-opened"]
        verbose_name = "MCP server incident"
        indexes = [models.Index(fields=["closed", "-opened"], name="ai_ops_incident_closed_opened")]

    def __str__(self):
        return self.name

    @property
    def duration(self):
        """Return the duration until the end or until now, as a timedelta of whole seconds."""
        return timedelta(seconds=int(((self.closed or timezone.now()) - self.opened).total_seconds()))
