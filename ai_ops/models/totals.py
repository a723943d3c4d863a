"""Totals that only increase, and remain when the counted rows are deleted."""

from django.db import models
from nautobot.apps.constants import CHARFIELD_MAX_LENGTH
from nautobot.apps.models import BaseModel

BUCKETS = 8


class Total(BaseModel):
    """The number of events, the sum of their sizes, and the number of events in each of eight ranges of sizes.

    The ranges are those of `ai_ops.logic.histogram_buckets`. A bucket counts only its own range.
    """

    key = models.CharField(max_length=CHARFIELD_MAX_LENGTH, unique=True)
    count = models.BigIntegerField(default=0)
    size = models.FloatField(default=0)
    bucket_1 = models.BigIntegerField(default=0)
    bucket_2 = models.BigIntegerField(default=0)
    bucket_3 = models.BigIntegerField(default=0)
    bucket_4 = models.BigIntegerField(default=0)
    bucket_5 = models.BigIntegerField(default=0)
    bucket_6 = models.BigIntegerField(default=0)
    bucket_7 = models.BigIntegerField(default=0)
    bucket_8 = models.BigIntegerField(default=0)

    is_metadata_associable_model = False
    is_data_compliance_model = False
    is_version_controlled = False
    natural_key_field_names = ["key"]

    class Meta:
        """Model options."""

        ordering = ["key"]

    def __str__(self):
        return self.key
