"""Leases: one run of a kind at a time, as a row with an owner, a rising fence number, and an expiry.

Acquiring, renewing and releasing are one conditional UPDATE each, on name and token. All times are the
database's: what the clocks of workers say does not matter, and how long a lease has left is measured here
from before the request that renewed it, with a clock that is never set.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import F, Q
from django.db.models.functions import Now

from ai_ops.exceptions import LeaseLostError, LeaseTakenError
from ai_ops.models.runs import MaintenanceLease, MaintenanceRun
from ai_ops.runs.clock import from_now


@dataclass
class Lease:
    """A lease that is held.

    Attributes:
        name: What it is on.
        token: Tells this holder from all others.
        fence: Rises with each holder.
        seconds: Its length.
        deadline: When it ends unless it is renewed, by `time.monotonic`.
        acquired: When it was taken, by the database's clock.
        row: Primary key of its row, the same for all holders, and of no other installation.
    """

    name: str
    token: uuid.UUID
    fence: int
    seconds: float
    deadline: float
    acquired: datetime | None = None
    row: uuid.UUID | None = None

    def is_stale(self) -> bool:
        """Return whether the lease has expired, so that another run may take it."""
        return time.monotonic() >= self.deadline

    def renew(self) -> bool:
        """Renew the lease for its full length; return False if another run holds it."""
        asked = time.monotonic()
        if not self._mine().update(expires=from_now(timedelta(seconds=self.seconds))):
            return False
        self.deadline = asked + self.seconds
        return True

    def lock(self) -> None:
        """Lock the row, so that no other run takes over before this transaction ends.

        Raises:
            LeaseLostError: Another run has it.
        """
        if self._mine().select_for_update().first() is None:
            raise LeaseLostError(f'The lease "{self.name}" was taken over by another run: nothing more was written.')

    def release(self) -> None:
        """Release the lease, unless another run has taken it over."""
        self._mine().update(token=None, run=None, expires=None)

    def _mine(self) -> Any:
        return MaintenanceLease.objects.filter(name=self.name, token=self.token)


def acquire(name: str, holder: str, run_id: uuid.UUID, seconds: float) -> Lease:
    """Take the lease called `name` if it is free or has expired.

    Args:
        name: What it is on.
        holder: Host and process that take it, for messages.
        run_id: The run that takes it.
        seconds: After which it is stale unless it is renewed.

    Raises:
        LeaseTakenError: Another run has it; the message names it.
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
    if not wanted.update(**taken):
        if not MaintenanceLease.objects.filter(name=name).exists():
            MaintenanceLease.objects.bulk_create([MaintenanceLease(name=name)], ignore_conflicts=True)
        # Also where it was there: it may have become free since.
        if not wanted.update(**taken):
            raise LeaseTakenError(_who_has(name))
    row = MaintenanceLease.objects.values_list("fence", "acquired", "pk").get(name=name, token=lease.token)
    lease.fence, lease.acquired, lease.row = row
    return lease


def holder_of(name: str) -> uuid.UUID | None:
    """Return the id of the run that holds the lease called `name`, even if expired; None if it is free."""
    return MaintenanceLease.objects.filter(name=name).values_list("run", flat=True).first()


def _who_has(name: str) -> str:
    row = MaintenanceLease.objects.get(name=name)
    run = MaintenanceRun.objects.filter(pk=row.run).values_list("name", flat=True).first()
    since = f" since {row.acquired:%Y-%m-%d %H:%M:%S} UTC" if row.acquired else ""
    return f'"{name}" is being done by {run or "another run"} ({row.holder}){since}: one at a time.'
