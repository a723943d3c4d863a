"""Snapshots of the checkpoint storage, kept in Nautobot's database for the page."""

from __future__ import annotations

from typing import Any

from django.db import Error as DatabaseError
from django.db import transaction

from ai_ops.models import CheckpointStorageSnapshot, PinnedThread

KEPT = 5  # of those that succeeded, and of those that failed


def keep_snapshot(data: dict[str, Any]) -> dict[str, Any]:
    """Keep what `sample_checkpoint_storage` found, and forget all but the last few.

    Returns:
        The data; with `success` False and a sentence in `error` where the database could not keep it.
    """
    snapshots = CheckpointStorageSnapshot.objects.all()
    try:
        with transaction.atomic():
            snapshots.create(data=data)
            kept = [each.pk for success in (True, False) for each in snapshots.filter(data__success=success)[:KEPT]]
            snapshots.exclude(pk__in=kept).delete()
    except DatabaseError as error:
        said = " ".join(str(error).split())
        sentence = f"Nautobot's database could not save the snapshot ({said}): check it; the next sampling tries again."
        return data | {"success": False, "error": data["error"] or sentence}
    return data


def latest_snapshots(queryset=None) -> tuple[CheckpointStorageSnapshot | None, CheckpointStorageSnapshot | None]:
    """The last snapshot that succeeded, and the one that failed after it; None where there is none.

    Args:
        queryset: The snapshots that may be seen; all of them unless given.
    """
    snapshots = CheckpointStorageSnapshot.objects.all() if queryset is None else queryset
    good = snapshots.filter(data__success=True).first()
    failed = snapshots.filter(data__success=False).first()
    if good and failed and failed.taken < good.taken:
        failed = None
    return good, failed


def in_redis(pin: PinnedThread, snapshot: CheckpointStorageSnapshot | None) -> str:
    """Whether a pinned thread was there: "Yes", "No", or "Not known" where no sampling has looked for it."""
    missing = snapshot.data["missing_pins"] if snapshot else None
    if missing is None or snapshot is None or pin.created is None or pin.created > snapshot.taken:
        return "Not known"
    return "No" if pin.thread_id in missing else "Yes"
