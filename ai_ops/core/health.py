"""What a probe of an MCP server says, and when that is enough to flip the server's status."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

# One lost packet, or one restart of a container, must not take a server's tools away: a status is
# flipped only when this many checks in a row say so, with a pause between them.
CHECKS_TO_FLIP = 3
PAUSE_SECONDS = 5.0

# All of a probe: name lookup, connection, TLS handshake, headers and body.
CHECK_TIMEOUT_SECONDS = 10.0

# Enough that a dead server does not hold up the others, few enough for a Celery worker that shares its cores.
MAX_WORKERS = 4


class Verdict(StrEnum):
    """What one check says about a server; UNKNOWN when the checker itself could not check."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


class Reason(StrEnum):
    """Why a probe failed. CHECKER is our own trouble and says nothing about the server."""

    DNS = "DNS"
    CONNECT = "CONNECT"
    TLS = "TLS"
    TIMEOUT = "TIMEOUT"
    HTTP = "HTTP"
    AUTH_REQUIRED = "AUTH_REQUIRED"
    PROTOCOL = "PROTOCOL"
    CHECKER = "CHECKER"


@dataclass(frozen=True)
class Probe:
    """What came of asking a server once.

    Attributes:
        ok: Whether the server answered as a well server does.
        reason: Why not; None when ok.
        message: One sentence: what was asked, what came back, and for a failure what to do about it.
        latency_ms: Milliseconds from the name lookup to the last byte, or to the failure.
        http_status: Status code, where an HTTP answer came at all.
    """

    ok: bool
    reason: Reason | None
    message: str
    latency_ms: float
    http_status: int | None = None

    @property
    def verdict(self) -> Verdict:
        """What this probe says about the server."""
        if self.ok:
            return Verdict.HEALTHY
        return Verdict.UNKNOWN if self.reason is Reason.CHECKER else Verdict.UNHEALTHY


@dataclass(frozen=True)
class Keep:
    """Leave the status as it is.

    Attributes:
        why: The rest of a sentence that begins "status kept: ".
    """

    why: str


@dataclass(frozen=True)
class ProbeAgain:
    """Not decided yet: probe once more after the pause."""


@dataclass(frozen=True)
class Flip:
    """Change the status to what every check of this run has said."""

    to: Verdict


Step = Keep | ProbeAgain | Flip

AS_BEFORE = Keep("the check agrees with it")
NOT_CONFIRMED = Keep("the checks did not agree with each other")
INCONCLUSIVE = Keep("the check itself could not be made")
LEFT_ALONE = Keep("checks change only Healthy and Unhealthy")


def next_step(history: Sequence[Verdict], current: Verdict | None) -> Step:
    """Decide what follows from the checks made so far.

    Args:
        history: Verdicts of this run on one server, oldest first; empty before the first probe.
        current: What the server's status says; None for a status that checks never change.

    Returns:
        Flip when the last of at least three checks differs from `current` and all agree, ProbeAgain
        while that is still possible, Keep otherwise.
    """
    if not history:
        return ProbeAgain()
    if current is None:
        return LEFT_ALONE
    if Verdict.UNKNOWN in history:
        return INCONCLUSIVE
    if current in history:
        return AS_BEFORE if len(history) == 1 else NOT_CONFIRMED
    if len(history) < CHECKS_TO_FLIP:
        return ProbeAgain()
    return Flip(history[-1])
