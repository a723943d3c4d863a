"""Leases, which allow one run of a kind at a time: a row with an owner, an increasing fence number and an expiry.

Acquiring, renewing and releasing are each a conditional UPDATE on name and token. All times are those of the database;
the clocks of workers do not matter. The remaining time of a lease is measured here with a monotonic clock, from before
the request that renewed it.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import F, OuterRef, Q, Subquery
from django.db.models.functions import Now

from ai_ops.exceptions import LeaseLostError, LeaseTakenError
from ai_ops.models.runs import MaintenanceLease, MaintenanceRun
from ai_ops.runs.clock import from_now


@dataclass
class Lease:
    """A held lease.

    Attributes:
        name: Name of the lease.
        token: Identifies this holder.
        fence: Number that increases with each holder.
        seconds: Length of the lease.
        deadline: End of the lease unless it is renewed, by `time.monotonic`.
        acquired: Time of its acquisition, by the database's clock.
        row: Primary key of its row, the same for all holders and unique among installations.
    """

    name: str
    token: uuid.UUID
    fence: int
    seconds: float
    deadline: float
    acquired: datetime | None = None
    row: uuid.UUID | None = None

    def is_stale(self) -> bool:
        """Return whether the lease has expired, so that another run may acquire it."""
        return time.monotonic() >= self.deadline

    def renew(self) -> bool:
        """Renew the lease for its full length; return False if another run holds it."""
        asked = time.monotonic()
        if not self._held_row().update(expires=from_now(timedelta(seconds=self.seconds))):
            return False
        self.deadline = asked + self.seconds
        return True

    def lock(self) -> None:
        """Lock the row, so that no other run takes over before this transaction ends.

        Raises:
            LeaseLostError: Another run holds it.
        """
        if self._held_row().select_for_update().first() is None:
            raise LeaseLostError(f'The lease "{self.name}" was taken over by another run: nothing more was written.')

    def release(self) -> None:
        """Release the lease, unless another run has taken it over."""
        self._held_row().update(token=None, run=None, expires=None)

    def _held_row(self) -> Any:
        return MaintenanceLease.objects.filter(name=self.name, token=self.token)


def acquire(name: str, holder: str, run_id: uuid.UUID, seconds: float) -> Lease:
    """Acquire the lease called `name` if it is free or has expired.

    Args:
        name: Name of the lease.
        holder: Host and process of the run, for messages.
        run_id: Id of the run.
        seconds: Length of the lease.

    Raises:
        LeaseTakenError: Another run holds it; the message names that run.
    """
    lease = Lease(name, uuid.uuid4(), 0, seconds, time.monotonic() + seconds)
    free = Q(token__isnull=True) | Q(expires__lt=Now())
    taken = {
        "token": lease.token,
        "holder": holder,
        "run": run_id,
        "fence": F("fence") + 1,
        "acquired": Now(),
        "expires": from_now(timedelta(seconds=seconds)),
    }
    wanted = MaintenanceLease.objects.filter(free, name=name)
    mine = MaintenanceLease.objects.filter(name=name, token=lease.token).values_list("fence", "acquired", "pk")
    if not wanted.update(**taken):
        found = _look_up(name, free)
        if found is None:
            # The first lease of this name has no row yet. An existing row stays as it is.
            first = MaintenanceLease(name=name, **taken | {"fence": 1})
            MaintenanceLease.objects.bulk_create([first], ignore_conflicts=True)
        elif not found.is_free:
            raise LeaseTakenError(_holder_sentence(found))
        else:
            # It has become free since.
            wanted.update(**taken)
    row = mine.first()
    if row is None:
        raise LeaseTakenError(_holder_sentence(_look_up(name, free)))
    lease.fence, lease.acquired, lease.row = row
    return lease


def holder_of(name: str) -> uuid.UUID | None:
    """Return the id of the run that holds the lease called `name`, even if expired; None if it is free."""
    return MaintenanceLease.objects.filter(name=name).values_list("run", flat=True).first()


def _look_up(name: str, free: Q) -> Any:
    """Return the row of a lease with `is_free` and `run_name`, the name of its holder; None without a row."""
    run_name = MaintenanceRun.objects.filter(pk=OuterRef("run")).values("name")
    return MaintenanceLease.objects.annotate(is_free=free, run_name=Subquery(run_name)).filter(name=name).first()


def _holder_sentence(row: Any) -> str:
    since = f" since {row.acquired:%Y-%m-%d %H:%M:%S} UTC" if row.acquired else ""
    return (
        f'The lease "{row.name}" is held by {row.run_name or "another run"} ({row.holder}){since}: one run at a time.'
    )
