"""Snapshots of the checkpoint storage."""

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from nautobot.apps.models import BaseModel


class CheckpointStorageSnapshot(BaseModel):
    """The report or the error of one sampling of the checkpoint Redis, for the page."""

    taken = models.DateTimeField(auto_now_add=True)
    data = models.JSONField(
        encoder=DjangoJSONEncoder, help_text="Report of sample_checkpoint_storage(); see the app's documentation."
    )

    is_metadata_associable_model = False
    is_data_compliance_model = False
    is_version_controlled = False

    class Meta:
        """Model options."""

        ordering = ["-taken"]
        get_latest_by = "taken"

    def __str__(self):
        return f"Checkpoint storage, {self.taken}"
