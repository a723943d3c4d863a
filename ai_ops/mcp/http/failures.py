"""The map from HTTP answers and errors of httpx to a reason, a clause on the event, and a remedy."""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import httpx

from ai_ops.mcp.http.connections import Answer
from ai_ops.mcp.http.transports import AddressRefused, HandshakeTimeout, ResolveError, ResolveTimeout
from ai_ops.mcp.logic.credentials import Credentials
from ai_ops.mcp.logic.protocol import ProtocolViolation
from ai_ops.mcp.logic.verdicts import Phase, Reason

# Characters of foreign text in logs: enough to recognise it, too few to flood them.
MAX_SHOWN_CHARACTERS = 200

# This machine has run out of a resource, which says nothing about the server.
CHECKER_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
RUN_OUT = "this worker has run out of files, ports or memory, which says nothing about the server"


# A check of the Host header answers with one of these statuses, and the word in the body. 421 has no other meaning.
HOST_STATUSES = frozenset({400, 403, 421})
_HOST_CHECK = re.compile(
    rb"""
    (?:invalid|unknown|unrecogni[sz]ed|unexpected|disallowed|blocked|untrusted|bad|not\s+allowed|non-local)
        \s+['"]?(?:http_)?host(?:s|names?)?\b
    # A full stop inside of a name ends no sentence.
    | \bhost(?:s|names?)?\b(?:[^.]|\.(?=\w)){0,120}?\b(?:
        not\s(?:allowed|permitted|trusted|accepted|valid|in\b)|is\sinvalid|blocked|denied|forbidden|disallowed|mismatch|check\sfailed|check\serror|validation\sfailed)
    | only\s+allowed\s+at\b
    | misdirected
    """,
    re.IGNORECASE | re.VERBOSE,
)
# Maximum number of bytes to search in a body. Such an answer is one line.
_HOST_CHECK_BYTES = 4096


class BodyError(Exception):
    """The body of an answer is too long, or does not match its headers."""


@dataclass(frozen=True)
class Failure:
    """The reason of a failed probe; `happened` and `remedy` are clauses of one sentence."""

    reason: Reason
    happened: str
    remedy: str
    phase: Phase | None = None


@lru_cache(maxsize=1024)
def parsed_url(text: str) -> httpx.URL:
    """Parse a URL once, because a probe reads it several times, and each parse takes a twentieth of a probe.

    Raises:
        httpx.InvalidURL, UnicodeError: The URL is invalid.
    """
    return httpx.URL(text)


@dataclass(frozen=True)
class Wording:
    """The words of a probe: for its request, and for foreign text.

    Attributes:
        place: The field that an operator would correct: "health check path" or "MCP endpoint".
        wanted: The expected answer.
        credentials: Credentials to hide if a server sends them back.
    """

    place: str
    wanted: str
    credentials: Credentials | None = None

    def clean(self, text: str) -> str:
        """Return foreign text for one line of a log."""
        hidden = self.credentials.hide_in(text) if self.credentials else text
        printable = hidden
        if not hidden.isprintable():
            printable = "".join(character if character.isprintable() else "?" for character in hidden)
        return printable if len(printable) <= MAX_SHOWN_CHARACTERS else f"{printable[:MAX_SHOWN_CHARACTERS]}..."

    def shown(self, url: str) -> str:
        """Return a URL without user name, password, query and fragment, which may contain secrets."""
        try:
            parsed = parsed_url(url)
        except (httpx.InvalidURL, UnicodeError):
            return self.clean(url)
        if parsed.userinfo or parsed.query or parsed.fragment:
            parsed = parsed.copy_with(userinfo=b"", query=None, fragment=None)
        return self.clean(str(parsed))

    def root(self, causes: list[BaseException]) -> str:
        """Return the operating system's error, otherwise the outermost error."""
        system = next((cause for cause in reversed(causes) if isinstance(cause, OSError) and cause.strerror), None)
        if system is not None and system.errno and not isinstance(system, ssl.SSLError | socket.gaierror):
            # asyncio has replaced the message by the address.
            return os.strerror(system.errno)
        return self.clean(str(system.strerror if system else causes[0]) or type(causes[0]).__name__)


def judge(answer: Answer, wording: Wording, body: bytes, *, redirected: bool) -> Failure:
    """Explain an answer whose status is not 2xx.

    Args:
        answer: The answer.
        wording: The words of the probe.
        body: The beginning of its body, if it was read; required for statuses in HOST_STATUSES.
        redirected: Whether the request was redirected, and so had no credentials.
    """
    status = answer.status
    if status == 421 or (status in HOST_STATUSES and _HOST_CHECK.search(body[:_HOST_CHECK_BYTES])):
        host = wording.clean(answer.question.headers.get("Host", ""))
        return Failure(
            Reason.HTTP,
            f"was refused for its Host header, {host} ({status})",
            f"let the server allow the host {host}, or enter a URL with a host that it allows",
        )
    if answer.next_request is not None:
        return Failure(
            Reason.HTTP,
            f"redirects to {wording.shown(str(answer.next_request.url))} ({status})",
            f"only 307 or 308 on the same scheme, host and port are followed, so enter the address that answers "
            f"as URL and {wording.place}",
        )
    if status in (401, 403, 407):
        return _judge_credentials(answer, wording, redirected)
    happened = f"answered {status}"
    if status in (404, 405, 406, 410, 415, 501):
        return Failure(Reason.HTTP, happened, f"set the {wording.place} to one that {wording.wanted}")
    if status == 429:
        return Failure(Reason.HTTP, happened, "the server limits requests, so exempt health checks or check less often")
    if status >= 500:
        return Failure(Reason.HTTP, happened, "the server runs but is not healthy, so check its log")
    return Failure(Reason.HTTP, happened, f"a healthy server {wording.wanted}, so check URL and {wording.place}")


def _judge_credentials(answer: Answer, wording: Wording, redirected: bool) -> Failure:
    status = answer.status
    if wording.credentials is None:
        return Failure(
            Reason.AUTH_REQUIRED,
            f"asks for credentials ({status})",
            f"give the server a secrets group with them, or set a {wording.place} that answers without them"
            + ("; if it checks the Host header, let it allow this host" if status == 403 else ""),
        )
    if redirected:
        return Failure(
            Reason.AUTH_REQUIRED,
            f"asks for credentials at {wording.shown(str(answer.question.url))} ({status})",
            f"none are sent over a redirect, so enter that address as URL and {wording.place}",
        )
    return Failure(
        Reason.AUTH_REQUIRED,
        f"refuses the credentials of the server's secrets group ({status})",
        "renew the credentials in the secrets group, and check their permissions",
    )


def explain(error: Exception, status: int | None, wording: Wording) -> Failure:
    """Explain an exception.

    Args:
        error: The exception of httpx, or of reading the answer.
        status: Status code of the answer, if there was one.
        wording: The words of the probe.
    """
    causes = list(_causes(error))
    if isinstance(error, httpx.InvalidURL):
        return Failure(Reason.PROTOCOL, f"has no valid address ({error})", "correct the server's URL")
    if isinstance(error, BodyError | ProtocolViolation):
        return Failure(
            Reason.PROTOCOL, wording.clean(str(error)), f"set the {wording.place} to one that {wording.wanted}"
        )
    if refused := _cause(causes, AddressRefused):
        return Failure(
            Reason.POLICY,
            f"was not sent: {wording.clean(str(refused))}",
            "nothing is sent to such addresses, so correct the server's URL or its host's DNS entry",
        )
    if any(isinstance(cause, OSError) and cause.errno in CHECKER_ERRNOS for cause in causes):
        return Failure(
            Reason.CHECKER,
            f"could not be sent ({wording.root(causes)})",
            RUN_OUT,
        )
    if unresolved := _cause(causes, ResolveError):
        return Failure(
            Reason.DNS,
            f"found no address for the host ({wording.clean(str(unresolved))})",
            "check the host name and this worker's DNS",
        )
    if isinstance(error, httpx.TimeoutException):
        return _explain_timeout(error, causes, status, wording)
    if _cause(causes, ssl.SSLError):
        return _explain_tls(causes, wording)
    return _explain_connection(error, causes, status, wording)


def _explain_connection(error: Exception, causes: list[BaseException], status: int | None, wording: Wording) -> Failure:
    if isinstance(error, httpx.ConnectError):
        return Failure(
            Reason.CONNECT,
            f"could not connect ({wording.root(causes)})",
            "check that the server runs, and that host, port and firewall are right",
        )
    if isinstance(error, httpx.NetworkError) or status is not None:
        return Failure(
            Reason.PROTOCOL,
            f"got an incomplete answer ({wording.root(causes)})",
            "check the server's log for a crash, or for a proxy that closes connections",
        )
    return Failure(
        Reason.PROTOCOL,
        f"got no valid HTTP answer ({wording.root(causes)})",
        "check that URL and port belong to the MCP server and that http or https is right, then check its log",
    )


def _explain_timeout(
    error: httpx.TimeoutException, causes: list[BaseException], status: int | None, wording: Wording
) -> Failure:
    phase, during, remedy = (
        Phase.ANSWER,
        "waiting for the answer",
        "the server accepts connections but does not answer, so check its log",
    )
    if _cause(causes, ResolveTimeout):
        phase, during, remedy = Phase.DNS, "looking up the host's name", "check this worker's DNS"
    elif _cause(causes, HandshakeTimeout):
        phase, during, remedy = (
            Phase.TLS,
            "in the TLS handshake",
            "check that the port speaks TLS and that the server is not overloaded",
        )
    elif isinstance(error, httpx.ConnectTimeout):
        phase, during = Phase.CONNECT, "connecting"
        remedy = "check that the host is up and that no firewall drops packets"
    elif status is not None:
        phase, during = Phase.BODY, "reading the body"
        remedy = f"set the {wording.place} to one that ends its answer"
    answered = f"answered {status} and " if phase is Phase.BODY else ""
    return Failure(Reason.TIMEOUT, f"{answered}ran out of time {during}", remedy, phase)


def _explain_tls(causes: list[BaseException], wording: Wording) -> Failure:
    verification = _cause(causes, ssl.SSLCertVerificationError)
    if isinstance(verification, ssl.SSLCertVerificationError):
        return Failure(
            Reason.TLS,
            f"got a certificate that is not trusted ({wording.clean(verification.verify_message)})",
            "renew it, or set the CA file that contains its CA",
        )
    reason = next((str(cause.reason) for cause in causes if isinstance(cause, ssl.SSLError) and cause.reason), "")
    if "CERTIFICATE_REQUIRED" in reason:
        return Failure(
            Reason.TLS,
            "found a server that requires a client certificate, which neither probes nor agents have",
            "let the server accept connections without one at this address, and use a secrets group instead",
        )
    if "HANDSHAKE_FAILURE" in reason or "BAD_CERTIFICATE" in reason:
        return Failure(
            Reason.TLS,
            f"was refused in the TLS handshake ({wording.root(causes)})",
            "check that the server speaks a current version of TLS and requires no client certificate",
        )
    return Failure(
        Reason.TLS,
        f"found no common version of TLS ({wording.root(causes)})",
        "check that the port speaks a current version of TLS",
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Return the exception and its causes, the outermost first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _cause(causes: list[BaseException], kind: type[BaseException]) -> BaseException | None:
    return next((cause for cause in causes if isinstance(cause, kind)), None)
