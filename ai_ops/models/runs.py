"""Maintenance runs: their records, and the leases that prevent two of a kind at a time.

Neither is change-logged: a run is its own log, and a lease changes every few seconds.
"""

from django.conf import settings
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from nautobot.apps.constants import CHARFIELD_MAX_LENGTH
from nautobot.apps.models import BaseModel, extras_features

from ai_ops.choices import MaintenanceKindChoices, RunStateChoices, RunTriggerChoices
from ai_ops.models.references import LooseForeignKey

KIND_MAX_LENGTH = 20
TRACE_PARENT_LENGTH = 55  # of version 00, which is the one that OpenTelemetry writes


@extras_features("custom_links", "export_templates", "graphql")
class MaintenanceRun(BaseModel):
    """One run of the app's maintenance work, however it was started, from the request to its final state.

    What was asked for is in `options`, by names and ids alone: no credential is in any field.
    """

    name = models.CharField(
        max_length=80, unique=True, help_text="Short name of the run: kind, minute and six characters."
    )
    kind = models.CharField(max_length=KIND_MAX_LENGTH, choices=MaintenanceKindChoices)
    subject = models.CharField(
        max_length=CHARFIELD_MAX_LENGTH, blank=True, help_text="The server or shard, for a run of a part."
    )
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
        help_text="The run of which this one is a part or a redrive.",
    )
    job_result = LooseForeignKey(
        "extras.JobResult",
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        help_text="The JobResult of the latest attempt, with its log; none if Nautobot has deleted it.",
    )
    # NULL where there is none, since any number of runs may have none.
    idempotency_key = models.CharField(max_length=CHARFIELD_MAX_LENGTH, null=True, blank=True)  # noqa: DJ001
    options = models.JSONField(default=dict, blank=True, encoder=DjangoJSONEncoder)
    attempt = models.PositiveSmallIntegerField(default=0, help_text="Attempts that were begun.")
    max_attempts = models.PositiveSmallIntegerField(default=1)
    attempts = models.JSONField(
        default=list, blank=True, encoder=DjangoJSONEncoder, help_text="The end of each attempt before the latest."
    )
    next_attempt = models.DateTimeField(null=True, blank=True, help_text="Time at which a pending run is due.")
    heartbeat = models.DateTimeField(null=True, blank=True)
    fence = models.BigIntegerField(
        null=True, blank=True, help_text="Fence number of its lease, which rises with each holder."
    )
    holder = models.CharField(max_length=CHARFIELD_MAX_LENGTH, blank=True, help_text="Host and process.")
    progress = models.CharField(max_length=CHARFIELD_MAX_LENGTH, blank=True)
    cancel_requested = models.BooleanField(default=False)
    trace_parent = models.CharField(
        max_length=TRACE_PARENT_LENGTH, blank=True, help_text="Trace of the request, as W3C's traceparent."
    )
    discarded = models.DateTimeField(null=True, blank=True, help_text="Time at which a user discarded a dead run.")
    created = models.DateTimeField(auto_now_add=True)
    started = models.DateTimeField(null=True, blank=True)
    finished = models.DateTimeField(null=True, blank=True)
    execution_time_ms = models.PositiveIntegerField(null=True, blank=True)
    counters = models.JSONField(default=dict, blank=True, encoder=DjangoJSONEncoder)
    error = models.TextField(blank=True)
    errors = models.JSONField(
        default=list, blank=True, encoder=DjangoJSONEncoder, help_text="All errors as a list; error has the first."
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
            # With the state, since the overview counts 14 days of runs by it: PostgreSQL then reads the index alone.
            models.Index(fields=["-created"], include=["state"], name="ai_ops_run_created_state"),
            models.Index(fields=["kind", "-created"], name="ai_ops_run_kind_created"),
            # Of many old runs few are of these states, and the supervisor looks for them every minute.
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
        """Return whether the run is retried after an infrastructure failure. A run from a shell is not.

        A part is done again with the run that it is a part of, and the supervisor comes again within a minute.
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
    token = models.UUIDField(null=True, blank=True, help_text="Token of the holder; none while the lease is free.")
    holder = models.CharField(max_length=CHARFIELD_MAX_LENGTH, blank=True)
    run = models.UUIDField(null=True, blank=True, help_text="Id of the holder's run.")
    fence = models.BigIntegerField(default=0, help_text="Rises with each holder.")
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
