"""The record of statuses and schedules that the app has provisioned."""

from django.db import models
from nautobot.apps.constants import CHARFIELD_MAX_LENGTH
from nautobot.apps.models import BaseModel


class ProvisioningRecord(BaseModel):
    """A record that an object was provisioned once, so that an operator's deletion or rename lasts."""

    key = models.CharField(
        max_length=CHARFIELD_MAX_LENGTH,
        unique=True,
        help_text="Kind and name of the provisioned object, such as status:Healthy.",
    )
    created = models.DateTimeField(auto_now_add=True)

    is_metadata_associable_model = False
    is_data_compliance_model = False
    is_version_controlled = False

    class Meta:
        """Model options."""

        ordering = ["key"]

    def __str__(self):
        return self.key
