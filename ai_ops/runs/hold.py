"""The hold of a run, with which its work confirms, before each write, that it may continue."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ai_ops.config import AiOpsSettings


class Hold(Protocol):
    """The right of a run to write, for as long as it lasts.

    Attributes:
        fence: Number that increases with each run that takes over.
        fence_key: Name under which other stores than the database may keep the fence; the same for all runs of a kind.
        run_id: The id of the run's record; None if it could not be written.
        job_result: The JobResult of the run's Job; None from a shell.
        owner: The user of the run; None from a shell.
        pause: Seconds between two rounds of probes; None for the default.
        redis_retry_delays: Seconds before each retry of the checkpoint Redis; None for the default.
    """

    fence: int
    fence_key: str
    run_id: uuid.UUID | None
    job_result: Any
    owner: Any
    pause: float | None
    redis_retry_delays: tuple[float, ...] | None

    @property
    def settings(self) -> AiOpsSettings:
        """Return the settings at the start of the run; the run uses only these.

        Raises:
            ConfigurationError: They are not usable.
        """

    def confirm(self) -> None:
        """Return if the run may continue; makes no query.

        Raises:
            LeaseLostError: The run may not write any more.
            RunStoppedError: The run was stopped.
        """

    def lock(self) -> None:
        """Lock the lease inside a transaction, so that no other run takes over before the commit.

        Raises:
            LeaseLostError: Another run has taken over. A stopped run may still write.
        """

    def wait(self, seconds: float) -> None:
        """Wait, but not longer than the run may continue; raises the errors of `confirm`."""

    def progress(self, line: str) -> None:
        """Set the progress of the run for its page; the next heartbeat saves it."""

    def trouble(self, error: BaseException) -> None:
        """Record that `error` prevented the work. If it is an infrastructure error, the run is retried."""
