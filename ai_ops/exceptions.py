"""Errors of this app. Each message is a sentence with the action, its object and the advice.

::

    AiOpsError
    ├── ConfigurationError          a setting, an option or a schedule is invalid
    │   └── ScheduleNotFoundError
    ├── CheckpointStoreError        Redis could not be reached, or refused a command
    ├── ErasureError                an erasure could not be completed
    ├── SpoolError                  the worker's disk refused the scanned keys
    ├── AgentCacheError             the shared cache could not be reached
    ├── HealthCheckError            the server can't be checked
    ├── CredentialsError            its secrets can't be read or sent
    ├── IncidentError               the incident is in another state
    ├── ToolApprovalError           its tools can't be approved in this state
    ├── LeaseTakenError             another run holds the lease
    ├── LeaseLostError              this run may not write any more
    ├── RunStoppedError             this run was stopped
    ├── RunRefusedError             the run was refused
    │   ├── RunNotPermittedError
    │   ├── NoWorkerError
    │   ├── RunOptionsError
    │   └── RunConflictError
    └── WorkersUnreachableError     Celery's workers did not answer

The task functions return them as the `error` of their result, and fail the run. Other exceptions are programming errors
and propagate. Errors that never leave their package are defined there: `PinsError` in `checkpoints.pins`, and the
errors of a probe in `mcp.http`.
"""


class AiOpsError(Exception):
    """Base of all errors that this app raises on purpose."""


class ConfigurationError(AiOpsError):
    """A setting or an option is out of its range or contradicts another."""


class CheckpointStoreError(AiOpsError):
    """The checkpoint Redis could not be reached or refused a command."""


class ErasureError(AiOpsError):
    """An erasure could not be completed."""


class SpoolError(AiOpsError):
    """The scanned keys could not be stored on the worker's disk."""


class AgentCacheError(AiOpsError):
    """The shared cache that notifies agents of changed MCP servers could not be reached."""


class IncidentError(AiOpsError):
    """The state of the incident does not allow the action."""


class ToolApprovalError(AiOpsError):
    """The tools of a server can't be approved in their present state."""


class HealthCheckError(AiOpsError):
    """The server can't be checked, or does not exist."""


class CredentialsError(AiOpsError):
    """A secrets group can't be read or sent; the message is the reason as a clause, without any part of the secret."""


class LeaseTakenError(AiOpsError):
    """Another run holds the lease; the message names it."""


class LeaseLostError(AiOpsError):
    """The lease could not be renewed, or another run took it over. This run may not write any more."""


class RunStoppedError(AiOpsError):
    """The run was stopped by a signal, by a user, or at its time limit."""


class RunRefusedError(AiOpsError):
    """The run was refused; the message has the reason and the advice."""


class RunNotPermittedError(RunRefusedError):
    """The user may not run the Job."""


class NoWorkerError(RunRefusedError):
    """No worker listens to the queue of the Job."""


class RunOptionsError(RunRefusedError):
    """An option of the run does not exist or has an invalid value."""


class RunConflictError(RunRefusedError):
    """The state of the run does not allow the action, or another request has the same idempotency key."""


class ScheduleNotFoundError(ConfigurationError):
    """There is no schedule of that name."""


class WorkersUnreachableError(AiOpsError):
    """Celery's workers did not answer."""
