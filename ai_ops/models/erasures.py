"""The records of erasures."""

from django.conf import settings
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from nautobot.apps.constants import CHARFIELD_MAX_LENGTH
from nautobot.apps.models import BaseModel, extras_features


# Not in GraphQL, which would show all fields, including the names that the guard compares.
@extras_features("custom_links", "export_templates", "webhooks")
class ThreadErasure(BaseModel):
    """The record of an erasure, kept as evidence: its user, threads, time, reason and deletions.

    Erasures create these records. They are never edited.
    """

    natural_key_field_names = ["pk"]

    created = models.DateTimeField(auto_now_add=True)
    finished = models.DateTimeField(null=True, blank=True)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        help_text="Empty for an erasure from a shell, or by a deleted user.",
    )
    requested_by_name = models.CharField(
        max_length=CHARFIELD_MAX_LENGTH, blank=True, help_text="The user's name at the time of the erasure."
    )
    reason = models.CharField(max_length=CHARFIELD_MAX_LENGTH)
    thread_pattern = models.CharField(max_length=CHARFIELD_MAX_LENGTH, blank=True)
    thread_ids = models.JSONField(
        default=list,
        blank=True,
        encoder=DjangoJSONEncoder,
        help_text="The erased threads, in clear text or as SHA-256.",
    )
    thread_count = models.PositiveIntegerField(default=0, help_text="Number of threads with deleted keys.")
    is_hashed = models.BooleanField(default=False, help_text="Whether thread IDs and pattern are kept as SHA-256.")
    store_namespaces = models.JSONField(default=list, blank=True, encoder=DjangoJSONEncoder)
    include_pinned = models.BooleanField(default=False)
    deleted_count = models.PositiveBigIntegerField(default=0, help_text="Keys deleted, late writes included.")
    deleted_by_family = models.JSONField(default=dict, blank=True, encoder=DjangoJSONEncoder)
    late_count = models.PositiveIntegerField(
        default=0, help_text="Keys of the erased threads that were written later and deleted."
    )
    verified = models.BooleanField(default=False, help_text="Whether a final scan found no key left.")
    rounds = models.PositiveSmallIntegerField(default=0)
    seconds = models.FloatField(default=0.0)
    error = models.TextField(blank=True)
    guarded_until = models.DateTimeField(
        help_text="End of the period during which late writes to these threads are deleted."
    )
    guard = models.JSONField(
        default=dict,
        blank=True,
        editable=False,
        encoder=DjangoJSONEncoder,
        help_text="The names that the guard compares; deleted when it ends.",
    )

    is_metadata_associable_model = False
    is_data_compliance_model = False
    is_version_controlled = False

    class Meta:
        """Model options."""

        ordering = ["-created"]
        get_latest_by = "created"
        indexes = [models.Index(fields=["guarded_until"], name="ai_ops_erasure_guarded")]

    def __str__(self):
        when = f"{self.created:%Y-%m-%d %H:%M:%S}" if self.created else "not begun"
        return f"Erasure {when}"
