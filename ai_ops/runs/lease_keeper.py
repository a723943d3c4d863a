"""The keeper of a working run's lease: a dedicated thread renews it and sends the heartbeat."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from types import TracebackType

from django.db import DatabaseError, InterfaceError, connection
from django.db.models.functions import Now

from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import ConfigurationError, LeaseLostError, RunStoppedError
from ai_ops.models.runs import MaintenanceRun
from ai_ops.runs.context import SHELL, RunRequest
from ai_ops.runs.database_outages import replace_lost_connections
from ai_ops.runs.heartbeat import RENEWALS_PER_LEASE
from ai_ops.runs.lease import Lease
from ai_ops.runs.logs import get_logger
from ai_ops.runs.shutdown import is_worker_stopping

logger = get_logger(__name__)

# Maximum number of seconds for which a wait continues after the run was stopped.
POLL_SECONDS = 0.25
PROGRESS_LENGTH = MaintenanceRun._meta.get_field("progress").max_length


class Keeper:
    """Keep a lease during a ``with`` block; the `ai_ops.runs.hold.Hold` of the run.

    Args:
        lease: The acquired lease.
        run_id: The record that receives the heartbeats; None if it could not be written.
        is_signalled: Returns whether a signal has asked this process to stop.
        time_limit: Seconds after which the run stops by itself; None for no limit.
        request: The request of the run.
        settings: The settings at its start, or the error that makes them unusable.
    """

    def __init__(
        self,
        lease: Lease,
        run_id: uuid.UUID | None,
        is_signalled: Callable[[], bool] = lambda: False,
        time_limit: float | None = None,
        request: RunRequest = SHELL,
        *,
        settings: AiOpsSettings | ConfigurationError,
    ) -> None:
        self.lease = lease
        self.fence = lease.fence
        self.fence_key = f"ai_ops:fence:{lease.row}"
        self.troubles: list[BaseException] = []
        self.run_id = run_id
        self.job_result = request.job_result
        self.owner = request.owner
        self.pause = request.pause
        self.redis_retry_delays = request.redis_retry_delays
        self._settings = settings
        self._is_signalled = is_signalled
        self._ends = time.monotonic() + time_limit if time_limit else None
        self._time_limit = time_limit
        self._line = ""
        self._lost: str | None = None
        self._cancelled = False
        self._done = threading.Event()
        # A daemon, so that a process that ends in the middle of a run does not wait for it.
        self._thread = threading.Thread(target=self._renew, name=f"lease {lease.name}", daemon=True)

    @property
    def settings(self) -> AiOpsSettings:
        """Return the settings at the start of the run.

        Raises:
            ConfigurationError: They are not usable.
        """
        if isinstance(self._settings, ConfigurationError):
            raise self._settings
        return self._settings

    def __enter__(self) -> Keeper:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join(self.lease.seconds)

    def confirm(self) -> None:
        """Raise an error if the run may not continue. This makes no query.

        Raises:
            LeaseLostError: The lease could not be renewed in time, or another run holds it.
            RunStoppedError: The run was stopped.
        """
        self._confirm_lease()
        if self._cancelled:
            raise RunStoppedError("The run was cancelled; the work done until then stays, and the next run continues.")
        if is_worker_stopping() or self._is_signalled():
            raise RunStoppedError("The worker was shut down; the work done stays, and the next run continues.")
        if self._ends and time.monotonic() >= self._ends:
            raise RunStoppedError(f"The run's time limit of {self._time_limit:g} s was reached; the work done stays.")

    def lock(self) -> None:
        """Lock the lease inside a transaction, so that no other run takes over before the commit.

        Raises:
            LeaseLostError: Another run has locked it. A stopped run may still record its work.
        """
        self._confirm_lease()
        self.lease.lock()

    def wait(self, seconds: float) -> None:
        """Wait, but not longer than the run may continue; raises the errors of `confirm`."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.confirm()
            time.sleep(min(POLL_SECONDS, left))
        self.confirm()

    def progress(self, line: str) -> None:
        """Set the progress of the run; the next heartbeat saves it."""
        self._line = line[:PROGRESS_LENGTH]

    def trouble(self, error: BaseException) -> None:
        """Record the infrastructure error that prevented the work."""
        self.troubles.append(error)

    def _confirm_lease(self) -> None:
        if self._lost is None and self.lease.is_stale():
            self._lost = f'The lease "{self.lease.name}" was not renewed for {self.lease.seconds:g} s'
        if self._lost:
            raise LeaseLostError(f"{self._lost}: the run stopped before any further write.")

    def _renew(self) -> None:
        """Renew the lease until the block ends; stop at the first failure."""
        try:
            while not self._done.wait(self.lease.seconds / RENEWALS_PER_LEASE):
                try:
                    replace_lost_connections()
                    self._renew_once()
                except (DatabaseError, InterfaceError) as error:
                    self._lost = f'The lease "{self.lease.name}" could not be renewed ({str(error).strip()})'
                    return
                if self._lost:
                    return
        finally:
            # Each thread has a connection of its own, and only this thread closes it.
            connection.close()

    def _renew_once(self) -> None:
        if not self.lease.renew():
            self._lost = f'The lease "{self.lease.name}" was taken over by another run'
            return
        if self.run_id is None:
            return
        run = MaintenanceRun.objects.filter(pk=self.run_id, fence=self.lease.fence)
        run.update(heartbeat=Now(), progress=self._line)
        self._cancelled = run.filter(cancel_requested=True).exists()
