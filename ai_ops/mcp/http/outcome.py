"""Outcomes of probes, and their part that a run keeps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from ai_ops.mcp.http.failures import Failure
from ai_ops.mcp.logic.protocol import Identity
from ai_ops.mcp.logic.verdicts import Probe

_NOBODY = Identity("")


@dataclass(frozen=True)
class Outcome:
    """The result of one kind of probe."""

    asked: str
    answered: str
    failure: Failure | None
    status: int | None
    identity: Identity | None
    retry_after: float | None
    certificate_ends: datetime | None = None

    def as_probe(self, latency_ms: float) -> Probe:
        """Return the part that a run keeps."""
        identity = self.identity or _NOBODY
        probe = Probe(
            ok=True,
            reason=None,
            message=f"{self.asked} {self.answered}",
            latency_ms=latency_ms,
            http_status=self.status,
            protocol_version=identity.protocol_version or None,
            server_name=identity.name,
            server_version=identity.version,
            retry_after=self.retry_after,
            certificate_ends=self.certificate_ends,
        )
        if self.failure is None:
            return probe
        return replace(
            probe,
            ok=False,
            reason=self.failure.reason,
            message=f"{self.asked} {self.failure.happened}: {self.failure.remedy}.",
            remedy=as_sentence(self.failure.remedy),
            phase=self.failure.phase,
        )


def as_sentence(clause: str) -> str:
    """Return a clause with a capital letter and a full stop."""
    return f"{clause[0].upper()}{clause[1:]}."
