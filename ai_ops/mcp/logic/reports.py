"""Reports of health checks: frozen values whose ``as_dict()`` is the public contract."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

# A fleet may have thousands; all are in the log.
MAX_ERRORS = 20


@dataclass(frozen=True)
class ServerReport:
    """The report of one run on one MCP server.

    Attributes:
        server: The server's name, or what was asked for where there is none.
        server_id: The server's id; None where there is none.
        status_before: The status at the start of the check; None where there is no server.
        status_after: The status at its end, set by this run or not; None where there is no server any more.
        changed: Whether this run flipped the status.
        ok: Whether the last probe found the server well; None when it was not probed.
        reason: Why not, one of `ai_ops.mcp.logic.verdicts.Reason`.
        message: The last probe in a sentence, with what to do about a failure.
        latency_ms: Milliseconds the last probe took.
        http_status: Status code of the last answer.
        remedy: What to do about a failure, in a sentence.
        phase: What a probe that ran out of time was waiting for, one of `ai_ops.mcp.logic.verdicts.Phase`.
        protocol_version: The revision of MCP the server answered with, where it was asked over MCP.
        server_name: What the server calls itself, likewise.
        server_version: The version it gives, likewise.
        retry_after: Seconds for which the server asked to be left alone.
        certificate_ends: When the TLS certificate that the server showed expires, in UTC; None without TLS.
        error: Why the check could not be made or its result not be kept, in a sentence.
        checked_at: When the last probe ended, in UTC; None when it was not probed.
        inconclusive: Whether so many failed together with the control that the network is to blame.
        verdicts: What each probe said that said something about the server, oldest first: 1 is well, 0 is ill.
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
        """The result of `check_mcp_server_health`: `success`, and every attribute by its name; times in ISO 8601."""
        told = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in vars(self).items()}
        return {"success": self.error is None, **told}


@dataclass(frozen=True)
class HealthReport:
    """The report of one run of the health checks.

    Attributes:
        servers: One entry for each server that was probed.
        worker_count: Threads that probed at the same time.
        cache_cleared: Whether agents were told to drop their MCP clients.
        error: Why the run, or a part of it, came to nothing, in a sentence.
        errors: All of them.
    """

    servers: tuple[ServerReport, ...] = ()
    worker_count: int = 0
    cache_cleared: bool = False
    error: str | None = None
    errors: tuple[str, ...] = ()

    @property
    def changed_count(self) -> int:
        """Servers whose status was flipped."""
        return sum(server.changed for server in self.servers)

    @property
    def failed_count(self) -> int:
        """Servers whose check failed."""
        return sum(server.failed for server in self.servers)

    def as_dict(self) -> dict[str, Any]:
        """The result of `perform_mcp_health_checks`: counts alone, since a fleet would fill the JobResult."""
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
