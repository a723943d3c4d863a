"""The records of maintenance runs, and the leases that prevent two runs of a kind at the same time.

Neither is in the change log: a run is its own log, and a lease changes every few seconds.
"""

from django.conf import settings
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from nautobot.apps.constants import CHARFIELD_MAX_LENGTH
from nautobot.apps.models import BaseModel, extras_features

from ai_ops.choices import MaintenanceKindChoices, RunStateChoices, RunTriggerChoices
from ai_ops.models.references import LooseForeignKey

KIND_MAX_LENGTH = 20
TRACE_PARENT_LENGTH = 55  # version 00, which OpenTelemetry writes


@extras_features("custom_links", "export_templates", "graphql")
class MaintenanceRun(BaseModel):
    """A run of the app's maintenance work, from the request to its final state.

    `options` has the request, with names and ids only. No field has a credential.
    """

    name = models.CharField(
        max_length=80, unique=True, help_text="Short name of the run: kind, minute and six characters."
    )
    kind = models.CharField(max_length=KIND_MAX_LENGTH, choices=MaintenanceKindChoices)
    subject = models.CharField(max_length=CHARFIELD_MAX_LENGTH, blank=True, help_text="The server or shard of the run.")
    trigger = models.CharField(max_length=20, choices=RunTriggerChoices)
    state = models.CharField(max_length=20, choices=RunStateChoices, default=RunStateChoices.PENDING)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    parent = models.ForeignKey(
        "self",
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="children",
        help_text="The run of which this run is a part or a redrive.",
    )
    job_result = LooseForeignKey(
        "extras.JobResult",
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        help_text="JobResult of the latest attempt, with its log; empty if Nautobot has deleted it.",
    )
    # NULL without a key, since many runs have none.
    idempotency_key = models.CharField(max_length=CHARFIELD_MAX_LENGTH, null=True, blank=True)  # noqa: DJ001
    options = models.JSONField(default=dict, blank=True, encoder=DjangoJSONEncoder)
    attempt = models.PositiveSmallIntegerField(default=0, help_text="Number of attempts started.")
    max_attempts = models.PositiveSmallIntegerField(default=1)
    attempts = models.JSONField(
        default=list, blank=True, encoder=DjangoJSONEncoder, help_text="Ends of the earlier attempts."
    )
    next_attempt = models.DateTimeField(null=True, blank=True, help_text="Time at which a pending run is due.")
    heartbeat = models.DateTimeField(null=True, blank=True)
    fence = models.BigIntegerField(
        null=True, blank=True, help_text="Fence number of its lease, which increases with each holder."
    )
    holder = models.CharField(max_length=CHARFIELD_MAX_LENGTH, blank=True, help_text="Host and process of the worker.")
    progress = models.CharField(max_length=CHARFIELD_MAX_LENGTH, blank=True)
    cancel_requested = models.BooleanField(default=False)
    trace_parent = models.CharField(
        max_length=TRACE_PARENT_LENGTH, blank=True, help_text="Trace of the request, as a W3C traceparent."
    )
    discarded = models.DateTimeField(null=True, blank=True, help_text="Time at which a user discarded a dead run.")
    created = models.DateTimeField(auto_now_add=True)
    started = models.DateTimeField(null=True, blank=True)
    finished = models.DateTimeField(null=True, blank=True)
    execution_time_ms = models.PositiveIntegerField(null=True, blank=True)
    counters = models.JSONField(default=dict, blank=True, encoder=DjangoJSONEncoder)
    error = models.TextField(blank=True)
    errors = models.JSONField(
        default=list, blank=True, encoder=DjangoJSONEncoder, help_text="List of all errors; error has the first."
    )

    is_metadata_associable_model = False
    is_data_compliance_model = False
    is_version_controlled = False
    natural_key_field_names = ["name"]

    class Meta:
        """Model options."""

        ordering = ["-created"]
        get_latest_by = "created"
        indexes = [
            # With the state, by which the overview counts the runs of 14 days: PostgreSQL then reads only the index.
            models.Index(fields=["-created"], include=["state"], name="ai_ops_run_created_state"),
            models.Index(fields=["kind", "-created"], name="ai_ops_run_kind_created"),
            # Few of many old runs are in these states, and the supervisor searches for them every minute.
            models.Index(
                fields=["state", "next_attempt"],
                condition=models.Q(state__in=[RunStateChoices.PENDING, RunStateChoices.RUNNING]),
                name="ai_ops_run_unfinished",
            ),
            models.Index(fields=["-created"], condition=models.Q(state=RunStateChoices.DEAD), name="ai_ops_run_dead"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["owner", "idempotency_key"], name="ai_ops_run_idempotency"),
        ]

    def __str__(self):
        return self.name

    @property
    def is_retried(self):
        """Return whether the run is retried after an infrastructure failure. A run started in a shell is not.

        A part is retried with the run that it belongs to, and the supervisor runs again within a minute.
        """
        if self.kind == MaintenanceKindChoices.SUPERVISOR:
            return False
        return self.trigger not in (RunTriggerChoices.SHELL, RunTriggerChoices.PART)

    @property
    def is_final(self):
        """Return whether the state of the run is final."""
        return self.state in RunStateChoices.FINAL


class MaintenanceLease(BaseModel):
    """The lease of one kind of work, held by at most one process; see `ai_ops.runs.lease`."""

    name = models.CharField(max_length=CHARFIELD_MAX_LENGTH, unique=True)
    token = models.UUIDField(null=True, blank=True, help_text="Token of the holder; empty while the lease is free.")
    holder = models.CharField(max_length=CHARFIELD_MAX_LENGTH, blank=True)
    run = models.UUIDField(null=True, blank=True, help_text="ID of the holder's run.")
    fence = models.BigIntegerField(default=0, help_text="Number that increases with each holder.")
    acquired = models.DateTimeField(null=True, blank=True)
    expires = models.DateTimeField(null=True, blank=True)

    is_metadata_associable_model = False
    is_data_compliance_model = False
    is_version_controlled = False

    class Meta:
        """Model options."""

        ordering = ["name"]

    def __str__(self):
        return self.name
