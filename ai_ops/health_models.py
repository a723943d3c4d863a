"""What health checks leave behind: where each server stands, and its history.

None of it is change-logged: a fleet that is checked every ten minutes would fill the change log with what
nobody changed. A change of status is, on the server itself.
"""

from django.db import models
from nautobot.apps.models import BaseModel, extras_features

REASON_MAX_LENGTH = 30


def delete_unread(collector, field, sub_objs, using):
    """Delete what refers to a deleted object in one statement, as ``on_delete``.

    CASCADE would first load all of it, since Nautobot listens to every deletion: 4,320 checks a server.
    """
    collector.fast_deletes.append(sub_objs)


# Django looks at the rows, to see whether there are any, unless this is set.
delete_unread.lazy_sub_objs = True


@extras_features("graphql")
class MCPServerHealth(BaseModel):
    """What the latest check of a server found; one row a server, written by every run.

    It is not part of the server's own row, because whoever edits a server saves all of its columns, and
    would bring back what a check had found before the page was opened.
    """

    server = models.OneToOneField("ai_ops.MCPServer", on_delete=delete_unread, related_name="health")
    checked = models.DateTimeField(help_text="When the latest check was made.")
    ok = models.BooleanField(null=True, verbose_name="OK", help_text="Empty where the check itself could not be made.")
    reason = models.CharField(max_length=REASON_MAX_LENGTH, blank=True)
    message = models.TextField(blank=True, help_text="What was asked, what came back, and what to do about a failure.")
    latency_ms = models.FloatField(null=True, verbose_name="latency (ms)")
    http_status = models.PositiveSmallIntegerField(null=True, verbose_name="HTTP status")
    last_ok = models.DateTimeField(null=True, verbose_name="last OK")
    last_failure = models.DateTimeField(null=True)
    last_failure_reason = models.CharField(max_length=REASON_MAX_LENGTH, blank=True)

    natural_key_field_names = ["pk"]
    is_metadata_associable_model = False
    is_data_compliance_model = False
    is_version_controlled = False

    class Meta:
        """Model options."""

        ordering = ["server"]
        verbose_name = "MCP server health"
        verbose_name_plural = "MCP server health"

    def __str__(self):
        return f"Health of {self.server}"

    def get_absolute_url(self, api=False):
        """Lead to the server's page, which shows it."""
        return super().get_absolute_url(api=True) if api else self.server.get_absolute_url()


@extras_features("graphql")
class MCPServerCheck(BaseModel):
    """One check of one server: of a run's up to three probes the last, which decided."""

    server = models.ForeignKey("ai_ops.MCPServer", on_delete=delete_unread, related_name="checks")
    time = models.DateTimeField(db_index=True)
    ok = models.BooleanField(null=True, verbose_name="OK", help_text="Empty where the check itself could not be made.")
    reason = models.CharField(max_length=REASON_MAX_LENGTH, blank=True)
    latency_ms = models.FloatField(verbose_name="latency (ms)")
    http_status = models.PositiveSmallIntegerField(null=True, verbose_name="HTTP status")
    flipped = models.BooleanField(default=False, help_text="Whether the run changed the server's status.")

    natural_key_field_names = ["pk"]
    is_metadata_associable_model = False
    is_data_compliance_model = False
    is_version_controlled = False

    class Meta:
        """Model options."""

        ordering = ["-time"]
        get_latest_by = "time"
        verbose_name = "MCP server check"
        indexes = [models.Index(fields=["server", "-time"], name="ai_ops_check_server_time")]

    def __str__(self):
        return f"{self.server} at {self.time:%Y-%m-%d %H:%M:%S}"

    def get_absolute_url(self, api=False):
        """Lead to the server's page, which shows its checks."""
        return super().get_absolute_url(api=True) if api else self.server.get_absolute_url()
