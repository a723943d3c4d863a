"""Results of health checks: the state of each server, and its history.

Checks are not in the change log, because a fleet that is checked every ten minutes would fill it without any change.
Status changes are logged on the server.
"""

from django.db import models
from django.utils import timezone
from nautobot.apps.models import BaseModel, extras_features

from ai_ops.logic.durations import days_left
from ai_ops.logic.limits import CHECKS_LOOKED_AT, MAX_NAME_CHARACTERS

REASON_MAX_LENGTH = 30


def delete_unread(collector, field, sub_objs, using):
    """Delete the rows that refer to a deleted object in one statement, as ``on_delete``.

    CASCADE would first load all 4,320 checks of a server, because Nautobot handles a signal for each deletion.
    """
    collector.fast_deletes.append(sub_objs)


# Without this Django would query the rows to see whether there are any.
delete_unread.lazy_sub_objs = True


@extras_features("graphql")
class MCPServerHealth(BaseModel):
    """The latest check of a server: one row per server, updated by every run.

    It is not part of the server's row. An edit of a server saves all columns, and would restore the result of a check
    made before the form was opened.
    """

    server = models.OneToOneField("ai_ops.MCPServer", on_delete=delete_unread, related_name="health")
    checked = models.DateTimeField(help_text="Time of the latest check.")
    ok = models.BooleanField(null=True, verbose_name="OK", help_text="Empty if the check itself could not be made.")
    reason = models.CharField(max_length=REASON_MAX_LENGTH, blank=True)
    message = models.TextField(blank=True, help_text="The request, the answer, and the advice for a failure.")
    latency_ms = models.FloatField(null=True, verbose_name="latency (ms)")
    http_status = models.PositiveSmallIntegerField(null=True, verbose_name="HTTP status")
    last_ok = models.DateTimeField(null=True, verbose_name="last OK")
    last_failure = models.DateTimeField(null=True)
    last_failure_reason = models.CharField(max_length=REASON_MAX_LENGTH, blank=True)
    recent = models.CharField(
        max_length=CHECKS_LOOKED_AT, blank=True, help_text="The last probes, oldest first: 1 passed, 0 failed."
    )
    change_percent = models.FloatField(default=0, help_text="Weighted share of changes between the last probes.")
    flapping = models.BooleanField(
        default=False, help_text="The server changes its state too often; its alerts are delayed."
    )
    # Also set from a flip until its incident is open. A run that is killed in between leaves it set.
    alert_held = models.BooleanField(default=False, help_text="An alert waits until the server stops flapping.")
    retry_at = models.DateTimeField(null=True, help_text="The server asked for no further request before this time.")
    # The server's own description, from its latest answer over MCP to a check or a listing of its tools.
    protocol_version = models.CharField(
        max_length=MAX_NAME_CHARACTERS, blank=True, help_text="MCP revision of the server's last answer."
    )
    server_name = models.CharField(
        max_length=MAX_NAME_CHARACTERS, blank=True, help_text="Server name in its own answer."
    )
    server_version = models.CharField(
        max_length=MAX_NAME_CHARACTERS, blank=True, help_text="Server version in its own answer."
    )
    certificate_ends = models.DateTimeField(
        null=True, help_text="Expiry of the last seen TLS certificate of the server."
    )

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

    @property
    def certificate_days(self):
        """Return the whole days until the server's certificate expires, negative afterwards; None without one."""
        return days_left(self.certificate_ends, timezone.now()) if self.certificate_ends else None

    def get_absolute_url(self, api=False):
        """Return the address of the server's page, which shows the health."""
        return super().get_absolute_url(api=True) if api else self.server.get_absolute_url()


@extras_features("graphql")
class MCPServerCheck(BaseModel):
    """One check of one server by one run: its last probe, which decides, and the number of failed probes."""

    server = models.ForeignKey("ai_ops.MCPServer", on_delete=delete_unread, related_name="checks")
    time = models.DateTimeField()
    ok = models.BooleanField(null=True, verbose_name="OK", help_text="Empty if the check itself could not be made.")
    reason = models.CharField(max_length=REASON_MAX_LENGTH, blank=True)
    latency_ms = models.FloatField(verbose_name="latency (ms)")
    http_status = models.PositiveSmallIntegerField(null=True, verbose_name="HTTP status")
    flipped = models.BooleanField(default=False, help_text="Whether the run changed the server's status.")
    probes = models.PositiveSmallIntegerField(default=1, help_text="Number of probes with a verdict on the server.")
    failures = models.PositiveSmallIntegerField(default=0, help_text="Number of those probes that failed.")
    # The server's own description; empty if only its health page was requested.
    protocol_version = models.CharField(
        max_length=MAX_NAME_CHARACTERS, blank=True, help_text="MCP revision of the server's answer."
    )
    server_name = models.CharField(
        max_length=MAX_NAME_CHARACTERS, blank=True, help_text="Server name in its own answer."
    )
    server_version = models.CharField(
        max_length=MAX_NAME_CHARACTERS, blank=True, help_text="Server version in its own answer."
    )
    certificate_days = models.IntegerField(
        null=True, help_text="Whole days that the server's TLS certificate was still valid; empty if none was seen."
    )

    natural_key_field_names = ["pk"]
    is_metadata_associable_model = False
    is_data_compliance_model = False
    is_version_controlled = False

    class Meta:
        """Model options."""

        ordering = ["-time"]
        get_latest_by = "time"
        verbose_name = "MCP server check"
        indexes = [
            # It has the columns for uptimes, which lists compute for each row: PostgreSQL then reads only the index.
            models.Index(fields=["server", "-time"], include=["probes", "failures"], name="ai_ops_check_uptime"),
            # It has the columns that the overview counts over a day: PostgreSQL then reads only the index.
            models.Index(fields=["time"], include=["ok", "latency_ms"], name="ai_ops_check_time"),
        ]

    def __str__(self):
        return f"{self.server} at {self.time:%Y-%m-%d %H:%M:%S}"

    def get_absolute_url(self, api=False):
        """Return the address of the server's page, which shows its checks."""
        return super().get_absolute_url(api=True) if api else self.server.get_absolute_url()


class MCPServerCheckHour(BaseModel):
    """The sum of the checks of all servers in one past hour; see `ai_ops.mcp.hourly_checks`.

    A row is a cache for the overview. Any row may be deleted: it is computed again from the checks.
    """

    start = models.DateTimeField(unique=True)
    passed = models.PositiveIntegerField()
    failed = models.PositiveIntegerField()
    unknown = models.PositiveIntegerField()
    p50_ms = models.FloatField(null=True)

    natural_key_field_names = ["start"]
    is_metadata_associable_model = False
    is_data_compliance_model = False
    is_version_controlled = False

    class Meta:
        """Model options."""

        ordering = ["start"]

    def __str__(self):
        return f"{self.start:%Y-%m-%d %H:%M}"

    @classmethod
    def forget(cls, **conditions):
        """Delete the rows in one statement, without signals."""
        rows = cls.objects.filter(**conditions).order_by()
        rows._raw_delete(rows.db)
