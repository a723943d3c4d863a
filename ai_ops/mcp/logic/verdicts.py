"""Verdicts of probes of an MCP server, and the rule for status flips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum

# A lost packet or a restart of a container must not remove a server's tools. A status changes only if this number of
# consecutive checks agree, with a pause between them.
CHECKS_TO_FLIP = 3

# Maximum pause that a server can request. After a day it is probed again.
MAX_RETRY_AFTER_SECONDS = 86400.0


class Verdict(StrEnum):
    """The verdict of one check on a server; UNKNOWN if the check itself could not be made."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


class ProbeKind(StrEnum):
    """Kinds of probes. AUTO requests the health page, and uses MCP if there is none."""

    AUTO = "auto"
    HTTP = "http"
    MCP = "mcp"


class Reason(StrEnum):
    """Reasons of failed probes. CHECKER is a failure of this worker, not of the server."""

    DNS = "DNS"
    CONNECT = "CONNECT"
    TLS = "TLS"
    TIMEOUT = "TIMEOUT"
    HTTP = "HTTP"
    AUTH_REQUIRED = "AUTH_REQUIRED"
    PROTOCOL = "PROTOCOL"
    INCOMPATIBLE = "INCOMPATIBLE"
    POLICY = "POLICY"
    CHECKER = "CHECKER"


class Phase(StrEnum):
    """Phases in which a probe can time out."""

    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    ANSWER = "answer"
    BODY = "body"


@dataclass(frozen=True)
class Probe:
    """The result of a probe of a server.

    Attributes:
        ok: Whether the probe passed.
        reason: The reason of a failure; None if it passed.
        message: A sentence with the request, the answer, and the advice for a failure.
        latency_ms: Milliseconds from the name lookup to the last byte, or to the failure; the end of a session does not
            count.
        http_status: Status code of the last answer, if there was one.
        remedy: The advice for a failure, which is the end of `message`, as a sentence; empty if it passed.
        phase: The step in which a probe with the reason TIMEOUT timed out.
        protocol_version: The newest MCP revision in the server's answer.
        server_name: The server's name in its own answer over MCP.
        server_version: The server's version in its own answer over MCP.
        retry_after: Seconds for which the server asked for no request, with a 429 or 503.
        certificate_ends: Expiry of the server's TLS certificate in UTC; None without TLS.
    """

    ok: bool
    reason: Reason | None
    message: str
    latency_ms: float
    http_status: int | None = None
    remedy: str = ""
    phase: Phase | None = None
    protocol_version: str | None = None
    server_name: str | None = None
    server_version: str | None = None
    retry_after: float | None = None
    certificate_ends: datetime | None = None

    @property
    def verdict(self) -> Verdict:
        """Return the verdict of this probe."""
        if self.ok:
            return Verdict.HEALTHY
        return Verdict.UNKNOWN if self.reason is Reason.CHECKER else Verdict.UNHEALTHY


def retry_after_seconds(value: str, now: float) -> float | None:
    """Read a ``Retry-After`` header, RFC 9110 section 10.2.3: seconds, or a date.

    Args:
        value: The header's value.
        now: Seconds since 1970.

    Returns:
        Seconds from now, from 0 to MAX_RETRY_AFTER_SECONDS; None if it can't be read.
    """
    text = value.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text[:10])
    else:
        try:
            date = parsedate_to_datetime(text)
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return min(max(math.ceil(seconds), 0.0), MAX_RETRY_AFTER_SECONDS)


@dataclass(frozen=True)
class Keep:
    """Keep the status.

    Attributes:
        why: The rest of a sentence that begins "status kept: ".
    """

    why: str


@dataclass(frozen=True)
class ProbeAgain:
    """Not decided yet: probe again after the pause."""


@dataclass(frozen=True)
class Flip:
    """Change the status to the verdict on which all checks agree."""

    to: Verdict


Step = Keep | ProbeAgain | Flip

AS_BEFORE = Keep("the check agrees with it")
NOT_CONFIRMED = Keep("the checks did not agree with each other")
INCONCLUSIVE = Keep("the check itself could not be made")
LEFT_ALONE = Keep("checks change only Healthy and Unhealthy")
ASKED_TO_WAIT = Keep("it asked for a pause, so it was not checked again")
NEXT_RUN = Keep("many servers failed together, which the next run must confirm")
OUR_NETWORK = Keep("many servers and the control failed together, which says nothing about this one")


def next_step_without_probe(history: Sequence[Verdict], earlier: Sequence[Verdict], current: Verdict | None) -> Step:
    """Decide without another probe, because the server asked for a pause with Retry-After.

    Checks of earlier runs replace those that this run may not make. Three that agree change the status as usual.

    Args:
        history: Verdicts of this run, the oldest first.
        earlier: Verdicts of earlier runs, the oldest first.
        current: The verdict of the server's status; None for a status that checks never change.
    """
    step = next_step([*earlier, *history][-CHECKS_TO_FLIP:], current)
    return step if isinstance(step, Flip) else ASKED_TO_WAIT


def next_step(history: Sequence[Verdict], current: Verdict | None) -> Step:
    """Decide the next step after the checks so far.

    Args:
        history: Verdicts of this run on a server, the oldest first; empty before the first probe.
        current: The verdict of the server's status; None for a status that checks never change.

    Returns:
        Flip if at least three checks agree and differ from `current`, ProbeAgain while this is still possible,
        otherwise Keep.
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
