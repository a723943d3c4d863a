"""Asks MCP servers over HTTP how they are. Every way in which that can fail is named here, once."""

from __future__ import annotations

import errno
import logging
import ssl
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from ai_ops.adapters.deadline_transport import DeadlineTransport, HandshakeTimeout, ResolveError, ResolveTimeout
from ai_ops.core.health import CHECK_TIMEOUT_SECONDS, MAX_WORKERS, Probe, Reason

# What a server says about its health fits many times; more is not a health page.
MAX_BODY_BYTES = 1024 * 1024

# A redirect's address ends up in logs: enough to recognise it, too little to flood them.
MAX_SHOWN_CHARACTERS = 200

# This machine has run out of something: no word about the server that was to be asked.
CHECKER_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})


THREAD_NAME = "mcp-probe"


class _ProbesStayUnlogged(logging.Filter):
    """httpx logs each request with its query, which may hold a token, and from the thread that made it."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.threadName or "").startswith(THREAD_NAME)


logging.getLogger("httpx").addFilter(_ProbesStayUnlogged())


@dataclass(frozen=True)
class Target:
    """What to ask: the full address of a server's health page."""

    url: str


class BodyError(Exception):
    """The body of an answer is longer than a health page, or is not what its headers announce."""


@dataclass(frozen=True)
class _Failure:
    reason: Reason
    happened: str
    remedy: str


def open_client(timeout: float = CHECK_TIMEOUT_SECONDS, transport: httpx.BaseTransport | None = None) -> httpx.Client:
    """Make the client that all probes of a run share; close it after them.

    Args:
        timeout: Seconds for all of one probe, wall clock.
        transport: What carries the requests; by default real connections with a deadline each.
    """
    return httpx.Client(
        transport=transport or DeadlineTransport(shared_ssl_context()),
        timeout=timeout,
        follow_redirects=False,
        # No proxy, no .netrc: the probe goes to the server itself and carries nobody's password.
        trust_env=False,
        cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
        headers={
            "User-Agent": "nautobot-app-ai-ops health check",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            "Connection": "close",
        },
    )


@cache
def shared_ssl_context() -> ssl.SSLContext:
    """The one context with the trusted CAs, those the agents' client trusts too (SSL_CERT_FILE is honoured)."""
    return httpx.create_ssl_context()


def probe_all(client: httpx.Client, targets: Sequence[Target], workers: int = MAX_WORKERS) -> Iterator[Probe]:
    """Probe every target once in at most `workers` threads, which do HTTP and nothing else.

    Yields in the order of `targets`. Close it when stopping early: targets not yet begun are then left
    out, and those under way end within their timeout.
    """
    executor = ThreadPoolExecutor(max(1, min(workers, len(targets))), thread_name_prefix=THREAD_NAME)
    try:
        yield from executor.map(partial(probe, client), targets)
    finally:
        executor.shutdown(cancel_futures=True)


def probe(client: httpx.Client, target: Target) -> Probe:
    """Ask one server for its health page. A 2xx status with a body that ends is healthy.

    Never raises for anything a server or the network does: that is in the Probe.
    """
    started = time.monotonic()
    status: int | None = None
    try:
        url = _checked_url(target)
        with client.stream("GET", url, auth=None) as response:
            status = response.status_code
            failure = _judge(response)
            if failure is None:
                _read_body(response)
    except (httpx.HTTPError, httpx.InvalidURL, BodyError) as error:
        failure = _explain(error, status)
    latency_ms = round((time.monotonic() - started) * 1000, 1)
    asked = f"GET {_shown(target.url) or '(no address)'}"
    if failure is None:
        return Probe(True, None, f"{asked} answered {status}", latency_ms, status)
    message = f"{asked} {failure.happened}: {failure.remedy}."
    return Probe(False, failure.reason, message, latency_ms, status)


def _checked_url(target: Target) -> httpx.URL:
    """Refuse what can't be asked; user name and password are taken out, a probe carries no credentials."""
    url = httpx.URL(target.url)
    if url.scheme not in ("http", "https") or not url.host:
        raise httpx.InvalidURL("it needs http:// or https:// and a host")
    if url.port is not None and not 0 < url.port < 65536:
        raise httpx.InvalidURL(f"{url.port} is no port")
    return url.copy_with(userinfo=b"")


def _judge(response: httpx.Response) -> _Failure | None:
    """What the status line says; None when it is a 2xx."""
    status = response.status_code
    if response.is_success:
        return None
    if response.next_request is not None:
        return _Failure(
            Reason.HTTP,
            f"redirects to {_shown(str(response.next_request.url))} ({status})",
            "redirects are not followed, so enter the address that answers as URL and health check path",
        )
    if status in (401, 403, 407):
        return _Failure(
            Reason.AUTH_REQUIRED,
            f"asks for credentials ({status})",
            "set a health check path that answers without them",
        )
    happened = f"answered {status}"
    if status in (404, 405, 410, 501):
        return _Failure(Reason.HTTP, happened, "set the health check path to one that answers a GET with a 2xx status")
    if status == 429:
        return _Failure(
            Reason.HTTP, happened, "the server limits requests, so exempt health checks or check less often"
        )
    if status >= 500:
        return _Failure(Reason.HTTP, happened, "the server is there but not well, so look into its own log")
    return _Failure(
        Reason.HTTP, happened, "a well server answers with a 2xx status, so check URL and health check path"
    )


def _read_body(response: httpx.Response) -> None:
    """Read the body to its end without keeping it.

    Raises:
        BodyError: It is longer than MAX_BODY_BYTES, as sent or unpacked, or does not unpack.
    """
    chunks: Iterator[bytes] = response.iter_raw()
    if response.headers.get("content-encoding", "").strip().lower() in ("gzip", "x-gzip", "deflate"):
        chunks = _unpacked(chunks)
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise BodyError(f"sent more than {MAX_BODY_BYTES // 1024} KiB and was cut off")


def _unpacked(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack gzip or zlib data, never more than one body's limit at a time: a bomb stays small."""
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
    for chunk in chunks:
        packed = chunk
        while packed:
            try:
                yield unpacker.decompress(packed, MAX_BODY_BYTES + 1)
            except zlib.error:
                raise BodyError("sent a body that is not packed as its Content-Encoding says") from None
            packed = unpacker.unconsumed_tail


def _explain(error: Exception, status: int | None) -> _Failure:
    """The one map from what httpx raises to a reason, a clause on what happened, and a remedy."""
    causes = list(_causes(error))
    if isinstance(error, httpx.InvalidURL):
        return _Failure(Reason.PROTOCOL, f"is not an address to ask ({error})", "correct the server's URL")
    if isinstance(error, BodyError):
        return _Failure(Reason.PROTOCOL, str(error), "set the health check path to one that answers briefly")
    if any(isinstance(cause, OSError) and cause.errno in CHECKER_ERRNOS for cause in causes):
        return _Failure(
            Reason.CHECKER,
            f"could not be sent ({_root(causes)})",
            "this worker has run out of files, ports or memory, which says nothing about the server",
        )
    if unresolved := next((cause for cause in causes if isinstance(cause, ResolveError)), None):
        return _Failure(
            Reason.DNS,
            f"found no address for the host ({_clean(str(unresolved))})",
            "check the host name and this worker's DNS",
        )
    if isinstance(error, httpx.TimeoutException):
        return _explain_timeout(error, causes, status)
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return _explain_tls(causes)
    if isinstance(error, httpx.ConnectError):
        return _Failure(
            Reason.CONNECT,
            f"could not connect ({_root(causes)})",
            "check that the server runs, and that host, port and firewall are right",
        )
    if isinstance(error, httpx.NetworkError) or status is not None:
        return _Failure(
            Reason.PROTOCOL,
            f"got an answer that broke off ({_root(causes)})",
            "look for a crash, or a proxy that hangs up, in the server's log",
        )
    return _Failure(
        Reason.PROTOCOL,
        f"got no valid HTTP answer ({_root(causes)})",
        "check that URL and port are the MCP server's and that http or https is right, then look into its log",
    )


def _explain_timeout(error: httpx.TimeoutException, causes: list[BaseException], status: int | None) -> _Failure:
    if any(isinstance(cause, ResolveTimeout) for cause in causes):
        return _Failure(Reason.TIMEOUT, "ran out of time looking up the host's name", "check this worker's DNS")
    if any(isinstance(cause, HandshakeTimeout) for cause in causes):
        return _Failure(
            Reason.TIMEOUT,
            "ran out of time in the TLS handshake",
            "check that the port speaks TLS and is not overloaded",
        )
    if isinstance(error, httpx.ConnectTimeout):
        return _Failure(
            Reason.TIMEOUT, "ran out of time connecting", "check that the host is up and that no firewall drops packets"
        )
    if status is not None:
        return _Failure(
            Reason.TIMEOUT,
            f"answered {status} and ran out of time reading the body",
            "set the health check path to one that ends its answer",
        )
    return _Failure(
        Reason.TIMEOUT,
        "ran out of time waiting for the answer",
        "the server accepts but does not answer, so look into its log",
    )


def _explain_tls(causes: list[BaseException]) -> _Failure:
    if verification := next((c for c in causes if isinstance(c, ssl.SSLCertVerificationError)), None):
        return _Failure(
            Reason.TLS,
            f"met a certificate that is not trusted ({_clean(verification.verify_message)})",
            "renew it, or name its CA to this worker in SSL_CERT_FILE",
        )
    return _Failure(
        Reason.TLS, f"found no common TLS ({_root(causes)})", "check that the port speaks TLS, with a current version"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The exception and what it was raised from, outermost first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _root(causes: list[BaseException]) -> str:
    """What the operating system said, or else the outermost error."""
    system = next((cause for cause in reversed(causes) if isinstance(cause, OSError) and cause.strerror), None)
    return _clean(str(system.strerror if system else causes[0]) or type(causes[0]).__name__)


def _shown(url: str) -> str:
    """A URL for people: user name, password, query and fragment may hold secrets and are left out."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return _clean(url)
    return _clean(str(parsed.copy_with(userinfo=b"", query=None, fragment=None)))


def _clean(text: str) -> str:
    """Text from outside, fit for one line of a log."""
    printable = "".join(character if character.isprintable() else "?" for character in text)
    return printable if len(printable) <= MAX_SHOWN_CHARACTERS else f"{printable[:MAX_SHOWN_CHARACTERS]}..."
