"""Errors of this app. Each message is a sentence that says what was tried, on what, and what to do."""


class AiOpsError(Exception):
    """Base of all errors raised by this app on purpose."""


class ConfigurationError(AiOpsError):
    """A setting or an option is out of its range or contradicts another."""


class CheckpointStoreError(AiOpsError):
    """The checkpoint Redis could not be reached or refused a command."""


class SpoolError(AiOpsError):
    """The keys that were scanned could not be kept on the worker's disk."""


class AgentCacheError(AiOpsError):
    """The shared cache that tells agents of changed MCP servers could not be reached."""


class IncidentError(AiOpsError):
    """The incident is in a state in which this can't be done to it."""


class ToolApprovalError(AiOpsError):
    """The tools of a server can't be approved as they are now."""


class HealthCheckError(AiOpsError):
    """The server that was named can't be checked, or is none."""


class CredentialsError(AiOpsError):
    """What a secrets group holds can't be read or sent; a clause on why, with nothing of the secret in it."""


class LeaseTakenError(AiOpsError):
    """Another run holds the lease; the message names it."""


class LeaseLostError(AiOpsError):
    """The lease could not be renewed, or another run took it over: this one may write nothing more."""


class RunStoppedError(AiOpsError):
    """The run was told to stop: by a signal, by a person, or because its time is up."""


class RunRefusedError(AiOpsError):
    """There will be no such run; the message says why and what to do."""


class RunNotPermittedError(RunRefusedError):
    """The user may not run the Job."""


class NoWorkerError(RunRefusedError):
    """Nobody is there to run the Job."""


class RunOptionsError(RunRefusedError):
    """The kind of run has no such options, or not with these values."""


class RunConflictError(RunRefusedError):
    """The run is in a state in which this can't be done to it, or its idempotency key is another request's."""


class ScheduleNotFoundError(ConfigurationError):
    """There is no schedule of that name."""


class WorkersUnreachableError(AiOpsError):
    """Celery's workers could not be asked what they are doing."""
