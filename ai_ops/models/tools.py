"""The listed and approved tools of MCP servers.

Listings are not in the change log, because no user makes them. Approvals are.
"""

from django.conf import settings
from django.db import models
from nautobot.apps.constants import CHARFIELD_MAX_LENGTH
from nautobot.apps.models import BaseModel, ChangeLoggedModel, extras_features

from ai_ops.choices import MCPToolStateChoices
from ai_ops.logic.limits import MAX_TOOL_NAME_CHARACTERS
from ai_ops.models.health import REASON_MAX_LENGTH, delete_unread

# SHA-256 in hexadecimal.
HASH_LENGTH = 64
# Enough characters to distinguish hashes by eye.
SHORT_HASH_LENGTH = 10


@extras_features("graphql", "webhooks")
class MCPServerToolSet(ChangeLoggedModel, BaseModel):
    """The tool set of a server: the time of the last listing, and the approved list.

    The first list of a server is approved automatically, without an approver, because there is nothing to compare it
    with.
    """

    server = models.OneToOneField("ai_ops.MCPServer", on_delete=delete_unread, related_name="tool_set")
    asked = models.DateTimeField(help_text="Time of the last listing of its tools.")
    listed = models.DateTimeField(null=True, blank=True, help_text="Time of the last successful listing.")
    retry_at = models.DateTimeField(
        null=True, blank=True, help_text="The server asked for no further request before this time."
    )
    reason = models.CharField(
        max_length=REASON_MAX_LENGTH,
        blank=True,
        help_text="Reason why the last listing failed; empty after a successful one.",
    )
    message = models.TextField(blank=True, help_text="Answer of the server, and the advice.")
    listed_hash = models.CharField(max_length=HASH_LENGTH, blank=True, help_text="Hash of all tools as last listed.")
    approved_hash = models.CharField(max_length=HASH_LENGTH, blank=True, help_text="Hash of all tools as approved.")
    approved = models.DateTimeField(null=True, blank=True, help_text="Time of the last approval.")
    approved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        help_text="Empty for the first list, which is approved automatically.",
    )
    approved_changes = models.TextField(blank=True, help_text="The changes in the last approval.")

    natural_key_field_names = ["pk"]
    is_metadata_associable_model = False
    is_data_compliance_model = False
    is_version_controlled = False

    class Meta:
        """Model options."""

        ordering = ["server"]
        verbose_name = "MCP server tool set"

    def __str__(self):
        return f"Tools of {self.server}"

    @property
    def drifted(self):
        """Return whether the tools as last listed differ from the approved ones."""
        return self.listed_hash != self.approved_hash

    def get_absolute_url(self, api=False):
        """Return the address of the server's page, which shows the health."""
        return super().get_absolute_url(api=True) if api else self.server.get_absolute_url()

    def to_objectchange(self, action, *, related_object=None, **kwargs):
        """Return a change that appears in the server's change log too."""
        return super().to_objectchange(action, related_object=related_object or self.server, **kwargs)


@extras_features("graphql")
class MCPServerTool(BaseModel):
    """A tool of a server, as last listed and as approved."""

    server = models.ForeignKey("ai_ops.MCPServer", on_delete=delete_unread, related_name="tools")
    name = models.CharField(max_length=MAX_TOOL_NAME_CHARACTERS)
    state = models.CharField(max_length=20, choices=MCPToolStateChoices, db_index=True)
    since = models.DateTimeField(help_text="Time of the last change of its state or listed definition.")
    first_seen = models.DateTimeField()
    hash = models.CharField(
        max_length=HASH_LENGTH, blank=True, help_text="SHA-256 of the listed definition; empty for a removed tool."
    )
    approved_hash = models.CharField(
        max_length=HASH_LENGTH, blank=True, help_text="SHA-256 of the approved definition; empty for an added tool."
    )
    description = models.CharField(
        max_length=CHARFIELD_MAX_LENGTH, blank=True, help_text="Beginning of its description."
    )
    definition = models.TextField(blank=True, help_text="Definition as last listed.")
    approved_definition = models.TextField(
        blank=True, help_text="Approved definition, if it differs from the listed one."
    )
    rejected = models.DateTimeField(
        null=True, blank=True, help_text="Time of the rejection. Agents do not get the tool until it is approved."
    )
    rejected_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )

    natural_key_field_names = ["pk"]
    is_metadata_associable_model = False
    is_data_compliance_model = False
    is_version_controlled = False

    class Meta:
        """Model options."""

        ordering = ["server", "name"]
        verbose_name = "MCP server tool"
        constraints = [models.UniqueConstraint(fields=["server", "name"], name="ai_ops_tool_server_name")]

    def __str__(self):
        return self.name

    @property
    def short_hash(self):
        """Return the beginning of the hash of the listed definition, or of the last definition of a removed tool."""
        return (self.hash or self.approved_hash)[:SHORT_HASH_LENGTH]
