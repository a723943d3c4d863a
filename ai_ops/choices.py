"""Names that several modules share."""

from nautobot.apps.choices import ChoiceSet

from ai_ops import kinds

# The group of the Jobs on the Jobs page.
JOB_GROUP = "AI Agents"


class MCPProtocolChoices(ChoiceSet):
    """Transports from an agent to an MCP server."""

    HTTP = "http"
    STDIO = "stdio"

    CHOICES = ((HTTP, "HTTP"), (STDIO, "STDIO"))


class MCPTypeChoices(ChoiceSet):
    """Operators of an MCP server."""

    INTERNAL = "internal"
    EXTERNAL = "external"

    CHOICES = ((INTERNAL, "Internal"), (EXTERNAL, "External"))


class MCPProbeChoices(ChoiceSet):
    """Kinds of probes of a health check; the same names as `ai_ops.mcp.logic.verdicts.ProbeKind`."""

    AUTO = "auto"
    HTTP = "http"
    MCP = "mcp"

    CHOICES = (
        (AUTO, "Health page, or MCP where there is none"),
        (HTTP, "Health page"),
        (MCP, "MCP handshake"),
    )


class MCPServerStatus:
    """Names of the statuses provisioned for MCP servers."""

    HEALTHY = "Healthy"
    UNHEALTHY = "Unhealthy"
    VULNERABLE = "Vulnerable"
    MAINTENANCE = "Maintenance"


class MCPIncidentKindChoices(ChoiceSet):
    """Subjects of an incident."""

    OUTAGE = "outage"
    INCONCLUSIVE = "inconclusive"
    DRIFT = "drift"
    CERTIFICATE = "certificate"
    LISTING = "listing"
    DEAD_LETTERS = "dead_letters"
    SCHEDULES = "schedules"
    CLEANUP = "cleanup"
    TEST = "test"

    CHOICES = (
        (OUTAGE, "Outage"),
        (INCONCLUSIVE, "Inconclusive run"),
        (DRIFT, "Changed tools"),
        (CERTIFICATE, "Certificate ends"),
        (LISTING, "Tools not listed"),
        (DEAD_LETTERS, "Dead letters"),
        (SCHEDULES, "Late schedules"),
        (CLEANUP, "Failed cleanup"),
        (TEST, "Test"),
    )

    # Failures of maintenance itself. Such an incident has no servers.
    OF_MAINTENANCE = (DEAD_LETTERS, SCHEDULES, CLEANUP)


class MCPToolStateChoices(ChoiceSet):
    """States of a tool: those of `ai_ops.mcp.logic.tools.ToolState`, and rejected by a user."""

    APPROVED = "approved"
    ADDED = "added"
    CHANGED = "changed"
    REMOVED = "removed"
    REJECTED = "rejected"

    CHOICES = (
        (APPROVED, "Approved"),
        (ADDED, "Added"),
        (CHANGED, "Changed"),
        (REMOVED, "Removed"),
        (REJECTED, "Rejected"),
    )

    # These wait for a user to approve or reject them.
    UNDECIDED = (ADDED, CHANGED, REMOVED)

    CSS_CLASSES = {APPROVED: "success", ADDED: "info", CHANGED: "danger", REMOVED: "warning", REJECTED: "secondary"}


class MaintenanceKindChoices(ChoiceSet):
    """Kinds of maintenance work, all of `ai_ops.kinds`."""

    CLEANUP = kinds.CLEANUP
    STORAGE = kinds.STORAGE
    HEALTH = kinds.HEALTH
    SERVER = kinds.SERVER
    INCIDENTS = kinds.INCIDENTS
    ORPHANS = kinds.ORPHANS
    MOVES = kinds.MOVES
    ERASURE = kinds.ERASURE
    SEARCH = kinds.SEARCH
    SUPERVISOR = kinds.SUPERVISOR

    CHOICES = tuple((kind.name, kind.label) for kind in kinds.ALL_KINDS)


class RunTriggerChoices(ChoiceSet):
    """Triggers of a run."""

    JOB = "job"
    SCHEDULE = "schedule"
    REST = "rest"
    SHELL = "shell"
    REDRIVE = "redrive"
    PART = "part"

    CHOICES = (
        (JOB, "Job run by a person"),
        (SCHEDULE, "Schedule"),
        (REST, "REST request"),
        (SHELL, "Python shell"),
        (REDRIVE, "Redrive"),
        (PART, "Part of another run"),
    )


class RunStateChoices(ChoiceSet):
    """States of a run. All but the first two are final."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    INTERRUPTED = "interrupted"
    LOST = "lost"
    DEAD = "dead"

    CHOICES = (
        (PENDING, "Pending"),
        (RUNNING, "Running"),
        (SUCCEEDED, "Succeeded"),
        (FAILED, "Failed"),
        (SKIPPED, "Skipped"),
        (INTERRUPTED, "Interrupted"),
        (LOST, "Lost"),
        (DEAD, "Dead"),
    )
    # A discarded dead letter stays in the state dead. The decision of the user is a field of its own.
    FINAL = (SUCCEEDED, FAILED, SKIPPED, INTERRUPTED, LOST, DEAD)
