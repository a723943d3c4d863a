"""Snapshots of the checkpoint storage in Nautobot's database, for the page."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import Error as DatabaseError
from django.db import transaction
from django.db.models import QuerySet
from django.db.models.fields.json import KT
from django.utils import timezone

from ai_ops.models import CheckpointStorageSnapshot, PinnedThread

KEPT = 5  # successful snapshots, and the same number of failed ones
# Days for which the last snapshot of each day is kept, for a trend over more than a year.
KEPT_DAYS = 400
# The parts of a snapshot that name threads, with their empty values.
WITHOUT_THREADS: dict[str, list[Any]] = {"oldest_threads": [], "largest_threads": []}


def keep_snapshot(data: dict[str, Any]) -> dict[str, Any]:
    """Save the result of `sample_checkpoint_storage`, and delete all but the last few.

    Returns:
        The data; with `success` False and a sentence in `error` if the database could not save it.
    """
    snapshots = CheckpointStorageSnapshot.objects.all()
    try:
        with transaction.atomic():
            snapshots.create(data=data)
            kept = [each.pk for success in (True, False) for each in snapshots.filter(data__success=success)[:KEPT]]
            snapshots.exclude(pk__in=[*kept, *_last_of_each_day()]).delete()
            _forget_threads(snapshots.exclude(pk__in=kept))
    except DatabaseError as error:
        message = " ".join(str(error).split())
        sentence = (
            f"Nautobot's database could not save the snapshot ({message}): check it; the next sampling tries again."
        )
        return data | {"success": False, "error": data["error"] or sentence}
    return data


def _forget_threads(snapshots: QuerySet[CheckpointStorageSnapshot]) -> None:
    """Delete the names of threads, and keep only the numbers for the trend."""
    for snapshot in snapshots.exclude(**{f"data__{name}": empty for name, empty in WITHOUT_THREADS.items()}):
        snapshot.data = snapshot.data | WITHOUT_THREADS | {"missing_pins": None}
        snapshot.save()


def _last_of_each_day() -> list[Any]:
    """Return the ids of the last successful snapshot of each day."""
    since = timezone.now() - timedelta(days=KEPT_DAYS)
    rows = CheckpointStorageSnapshot.objects.filter(data__success=True, taken__gte=since).order_by("taken")
    return list({taken.date(): pk for pk, taken in rows.values_list("pk", "taken")}.values())


def trend(queryset=None) -> list[dict[str, Any]]:
    """Return the numbers of each day, oldest first: `day`, `keys`, `threads`, `memory`, `max_memory`.

    Args:
        queryset: The snapshots that the user may view; all snapshots by default.
    """
    snapshots = CheckpointStorageSnapshot.objects.all() if queryset is None else queryset
    since = timezone.now() - timedelta(days=KEPT_DAYS)
    rows = (
        snapshots.filter(data__success=True, taken__gte=since)
        .order_by("taken")
        .values_list(
            "taken",
            *(KT(f"data__{name}") for name in ("checkpoint_keys", "thread_count", "memory_bytes", "max_memory_bytes")),
        )
    )
    by_day = {}
    for taken, *numbers in rows:
        keys, threads, memory, limit = (int(each) if each is not None else None for each in numbers)
        by_day[taken.date()] = {
            "day": taken.date().isoformat(), "keys": keys, "threads": threads, "memory": memory, "max_memory": limit
        }  # fmt: skip
    return list(by_day.values())


def latest_snapshots(queryset=None) -> tuple[CheckpointStorageSnapshot | None, CheckpointStorageSnapshot | None]:
    """Return the last successful snapshot and a failed one after it; None for each that does not exist.

    Args:
        queryset: The snapshots that the user may view; all snapshots by default.
    """
    snapshots = CheckpointStorageSnapshot.objects.all() if queryset is None else queryset
    good = snapshots.filter(data__success=True).first()
    failed = snapshots.filter(data__success=False).first()
    if good and failed and failed.taken < good.taken:
        failed = None
    return good, failed


def in_redis(pin: PinnedThread, snapshot: CheckpointStorageSnapshot | None) -> str:
    """Return whether the last sampling found a pinned thread: "Yes", "No", or "Not known"."""
    missing = snapshot.data["missing_pins"] if snapshot else None
    if missing is None or snapshot is None or pin.created is None or pin.created > snapshot.taken:
        return "Not known"
    return "No" if pin.thread_id in missing else "Yes"
