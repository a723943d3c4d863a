"""The Job that samples the checkpoint Redis for the page "Checkpoint storage"."""

from __future__ import annotations

from typing import Any

from ai_ops.celery_tasks import sample_checkpoint_storage
from ai_ops.choices import JOB_GROUP
from ai_ops.jobs.base import MaintenanceJob

name = JOB_GROUP


class SampleCheckpointStorageJob(MaintenanceJob):
    """Count the keys of the checkpoint Redis, and delete nothing."""

    class Meta:
        """Job metadata."""

        name = "Sample Checkpoint Storage"
        description = 'Samples the checkpoint Redis for the page "Checkpoint Storage". Deletes nothing.'
        hidden = True
        has_sensitive_variables = False

    def run(self) -> dict[str, Any]:
        """Sample the storage; the facts are the result."""
        result = sample_checkpoint_storage()
        if not result["success"]:
            self.fail("%s", result["error"])
        return result
