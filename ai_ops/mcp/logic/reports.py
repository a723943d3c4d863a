"""Reports of health checks: frozen values whose ``as_dict()`` is the public contract."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

# A fleet may have thousands of errors. The log has all of them.
MAX_ERRORS = 20


@dataclass(frozen=True)
class ServerReport:
    """The report of a run about an MCP server.

    Attributes:
        server: The server's name, or the argument if there is no such server.
        server_id: The server's id; None if there is no such server.
        status_before: The status at the start of the check; None without a server.
        status_after: The status at its end; None if the server was deleted.
        changed: Whether this run flipped the status.
        ok: Whether the last probe passed; None if it was not probed.
        reason: The reason of a failure, one of `ai_ops.mcp.logic.verdicts.Reason`.
        message: A sentence about the last probe, with the advice for a failure.
        latency_ms: Duration of the last probe in milliseconds.
        http_status: Status code of the last answer.
        remedy: The advice for a failure, as a sentence.
        phase: The step in which a probe timed out, one of `ai_ops.mcp.logic.verdicts.Phase`.
        protocol_version: The MCP revision in the server's answer, for a probe over MCP.
        server_name: The server's name in its own answer, for a probe over MCP.
        server_version: The server's version in its own answer, for a probe over MCP.
        retry_after: Seconds for which the server asked for no request.
        certificate_ends: Expiry of the server's TLS certificate in UTC; None without TLS.
        error: The reason why the check could not be made or its result not be saved, as a sentence.
        checked_at: End of the last probe in UTC; None if it was not probed.
        inconclusive: Whether many servers and the control failed, so that the network is the likely cause.
        verdicts: The verdicts of the probes, the oldest first: 1 for passed, 0 for failed.
    """

    server: str
    server_id: str | None = None
    status_before: str | None = None
    status_after: str | None = None
    changed: bool = False
    ok: bool | None = None
    reason: str | None = None
    message: str | None = None
    latency_ms: float | None = None
    http_status: int | None = None
    remedy: str | None = None
    phase: str | None = None
    protocol_version: str | None = None
    server_name: str | None = None
    server_version: str | None = None
    retry_after: float | None = None
    certificate_ends: datetime | None = None
    error: str | None = None
    checked_at: datetime | None = None
    inconclusive: bool = False
    verdicts: str = ""

    @property
    def failed(self) -> bool:
        """Return whether the server failed its check, or the check itself failed."""
        return self.ok is False or self.error is not None

    def as_dict(self) -> dict[str, Any]:
        """Return the result of `check_mcp_server_health`: `success`, and every attribute by name; times in ISO 8601."""
        values = {
            name: value.isoformat() if isinstance(value, datetime) else value for name, value in vars(self).items()
        }
        return {"success": self.error is None, **values}


@dataclass(frozen=True)
class HealthReport:
    """The report of a run of health checks.

    Attributes:
        servers: An entry for each probed server.
        worker_count: Number of threads that probed at the same time.
        cache_cleared: Whether agents were notified to drop their MCP clients.
        error: The failure of the run or of a part of it, as a sentence.
        errors: All failures.
    """

    servers: tuple[ServerReport, ...] = ()
    worker_count: int = 0
    cache_cleared: bool = False
    error: str | None = None
    errors: tuple[str, ...] = ()

    @property
    def changed_count(self) -> int:
        """Return the number of servers with a changed status."""
        return sum(server.changed for server in self.servers)

    @property
    def failed_count(self) -> int:
        """Return the number of servers with a failed check."""
        return sum(server.failed for server in self.servers)

    def as_dict(self) -> dict[str, Any]:
        """Return the result of `perform_mcp_health_checks`: only counts, as a large fleet would fill the JobResult."""
        return {
            "success": self.error is None,
            "checked_count": len(self.servers),
            "changed_count": self.changed_count,
            "failed_count": self.failed_count,
            "worker_count": self.worker_count,
            "cache_cleared": self.cache_cleared,
            "error": self.error,
            "errors": list(self.errors[:MAX_ERRORS] or [self.error] if self.error else []),
        }
