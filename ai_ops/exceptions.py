"""Errors of this app. Each message is a sentence that says what was tried, on what, and what to do.

::

    AiOpsError
    ├── ConfigurationError          a setting, an option or a schedule is not valid
    │   └── ScheduleNotFoundError
    ├── CheckpointStoreError        Redis could not be reached, or refused a command
    ├── ErasureError                an erasure could not be carried out to its end
    ├── SpoolError                  the worker's disk refused the scanned keys
    ├── AgentCacheError             the shared cache could not be reached
    ├── HealthCheckError            the server can't be checked
    ├── CredentialsError            its secrets can't be read or sent
    ├── IncidentError               the incident is in another state
    ├── ToolApprovalError           its tools can't be approved as they are
    ├── LeaseTakenError             another run holds the lease
    ├── LeaseLostError              this run may write nothing more
    ├── RunStoppedError             this run was told to stop
    ├── RunRefusedError             there will be no such run
    │   ├── RunNotPermittedError
    │   ├── NoWorkerError
    │   ├── RunOptionsError
    │   └── RunConflictError
    └── WorkersUnreachableError     Celery's workers did not answer

The task functions turn them into the `error` of their result, and fail the run; other exceptions are errors of the
program and propagate. A few errors never leave their package and are defined there: `PinsError` in `checkpoints.pins`,
those of one probe in `mcp.http`.
"""


class AiOpsError(Exception):
    """Base of all errors that this app raises on purpose."""


class ConfigurationError(AiOpsError):
    """A setting or an option is out of its range or contradicts another."""


class CheckpointStoreError(AiOpsError):
    """The checkpoint Redis could not be reached or refused a command."""


class ErasureError(AiOpsError):
    """An erasure could not be carried out, or not to its end."""


class SpoolError(AiOpsError):
    """The keys that were scanned could not be kept on the worker's disk."""


class AgentCacheError(AiOpsError):
    """The shared cache that tells agents of changed MCP servers could not be reached."""


class IncidentError(AiOpsError):
    """The state of the incident does not allow the action."""


class ToolApprovalError(AiOpsError):
    """The tools of a server can't be approved in their present state."""


class HealthCheckError(AiOpsError):
    """The server can't be checked, or does not exist."""


class CredentialsError(AiOpsError):
    """A secrets group can't be read or sent; the message is a clause on why, without any part of the secret."""


class LeaseTakenError(AiOpsError):
    """Another run holds the lease; the message names it."""


class LeaseLostError(AiOpsError):
    """The lease could not be renewed, or another run took it over: this run may write nothing more."""


class RunStoppedError(AiOpsError):
    """The run was told to stop: by a signal, by a person, or because its time is up."""


class RunRefusedError(AiOpsError):
    """The run was refused; the message says why and what to do."""


class RunNotPermittedError(RunRefusedError):
    """The user may not run the Job."""


class NoWorkerError(RunRefusedError):
    """No worker listens to the queue of the Job."""


class RunOptionsError(RunRefusedError):
    """An option of the run does not exist, or has a value that is not valid."""


class RunConflictError(RunRefusedError):
    """The state of the run does not allow the action, or its idempotency key is that of another request."""


class ScheduleNotFoundError(ConfigurationError):
    """There is no schedule of that name."""


class WorkersUnreachableError(AiOpsError):
    """Celery's workers did not answer."""
