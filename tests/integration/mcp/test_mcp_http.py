"""Probes of real sockets: what each fault is called, what to do about it, and how long it may take."""

from __future__ import annotations

import datetime
import errno
import logging
import os
import random
import resource
import socket
import ssl
import threading
import time
import tracemalloc
from contextlib import closing

import httpx
import pytest

from ai_ops.mcp.http.body import MAX_BODY_BYTES
from ai_ops.mcp.http.failures import Wording, explain
from ai_ops.mcp.http.prober import PATIENCE_SECONDS, Prober, Target
from ai_ops.mcp.http.tls import ssl_context
from ai_ops.mcp.logic.credentials import Credentials
from ai_ops.mcp.logic.verdicts import Phase, ProbeKind, Reason
from tests.fakes.mcp_server import FAULTS, MCP_FAULTS, FakeMCPServer, json_answer
from tests.fakes.mcp_server import WELL as WELL_RESULT
from tests.fakes.mcp_server import result as rpc_result
from tests.fakes.sdk_server import sdk_server
from tests.waiting import until

# For servers that never end: short, as each of these tests takes so long. For all others so long that a busy machine
# does not turn an answer into a timeout.
TIMEOUT = 0.5
ENOUGH = 10.0
# A probe that does not end takes hours, so an end is told from none on any machine.
GRACE = 5.0


def local_prober(timeout=ENOUGH, **options):
    return Prober(timeout, allow_loopback=True, **options)


def prober_for(reason):
    return local_prober(TIMEOUT if reason is Reason.TIMEOUT else ENOUGH)


@pytest.fixture
def prober():
    with local_prober() as opened:
        yield opened


@pytest.fixture
def hurried():
    with local_prober(TIMEOUT) as opened:
        yield opened


# path, reason, HTTP status, words that the sentence must have: what happened and what to do
FAULT_TABLE = [
    ("/400", Reason.HTTP, 400, "check URL and health check path"),
    ("/401", Reason.AUTH_REQUIRED, 401, "give the server a secrets group with them, or set a health check path"),
    ("/403", Reason.AUTH_REQUIRED, 403, "or set a health check path that answers without them"),
    ("/404", Reason.HTTP, 404, "set the health check path"),
    ("/405", Reason.HTTP, 405, "set the health check path"),
    ("/429", Reason.HTTP, 429, "exempt health checks or check less often"),
    ("/500", Reason.HTTP, 500, "check its log"),
    ("/503", Reason.HTTP, 503, "check its log"),
    ("/304", Reason.HTTP, 304, "check URL and health check path"),
    ("/loop", Reason.HTTP, 307, "/loop (307): only 307 or 308 on the same scheme, host and port are followed"),
    ("/302", Reason.HTTP, 302, "/200 (302): only 307 or 308"),
    ("/https", Reason.HTTP, 308, "redirects to https://127.0.0.1:1/200 (308)"),
    ("/elsewhere", Reason.HTTP, 301, "redirects to http://elsewhere.invalid/health (301)"),
    ("/bad-location", Reason.PROTOCOL, None, "check that URL and port belong to the MCP server"),
    ("/long-location", Reason.HTTP, 302, "xxx... (302)"),
    ("/silent", Reason.TIMEOUT, None, "waiting for the answer: the server accepts connections but does not answer"),
    ("/hangs-up", Reason.PROTOCOL, None, "check its log"),
    ("/half-body", Reason.PROTOCOL, 200, "an incomplete answer"),
    ("/drips-headers", Reason.TIMEOUT, None, "waiting for the answer"),
    ("/drips-status", Reason.TIMEOUT, None, "waiting for the answer"),
    ("/drips-100s", Reason.TIMEOUT, None, "waiting for the answer"),
    ("/drips-body", Reason.TIMEOUT, 200, "reading the body: set the health check path to one that ends its answer"),
    ("/drips-500-body", Reason.HTTP, 500, "check its log"),
    ("/sse", Reason.TIMEOUT, 200, "reading the body"),
    ("/200-mb", Reason.PROTOCOL, 200, "more than 1024 KiB and was cut off"),
    ("/floods-body", Reason.PROTOCOL, 200, "more than 1024 KiB and was cut off: set the health check path"),
    ("/floods-headers", Reason.PROTOCOL, None, "no valid HTTP answer"),
    ("/bomb", Reason.PROTOCOL, 200, "more than 1024 KiB and was cut off"),
    ("/not-gzip", Reason.PROTOCOL, 200, "does not match its Content-Encoding"),
    ("/no-http", Reason.PROTOCOL, None, "check that URL and port belong to the MCP server"),
    ("/bad-length", Reason.PROTOCOL, None, "no valid HTTP answer"),
    ("/bad-chunk", Reason.PROTOCOL, 200, "an incomplete answer"),
    ("/bad-header", Reason.PROTOCOL, None, "no valid HTTP answer"),
    ("/crlf", Reason.PROTOCOL, None, "no valid HTTP answer"),
    ("/nothing", Reason.PROTOCOL, None, "no valid HTTP answer"),
]
WELL = ["/200", "/204", "/no-length", "/gzip", "/cookie", "/charset", "/slash", "/two-steps", "/three-steps"]


# The same for the handshake; the sentence begins with what was asked.
MCP_FAULT_TABLE = [
    ("/mcp/login", Reason.PROTOCOL, 200, "answered 200 with text/html instead of JSON: set the MCP endpoint to one"),
    ("/mcp/rpc-error", Reason.PROTOCOL, 200, "JSON-RPC error -32603 (database is locked): check the server's log"),
    ("/mcp/wrong-id", Reason.PROTOCOL, 200, "did not answer with the id of the request"),
    ("/mcp/batch", Reason.PROTOCOL, 200, "sent a batch of messages, which MCP no longer has"),
    ("/mcp/no-jsonrpc", Reason.PROTOCOL, 200, "JSON that is not JSON-RPC 2.0"),
    ("/mcp/no-version", Reason.PROTOCOL, 200, "answered initialize without protocolVersion"),
    ("/mcp/no-name", Reason.PROTOCOL, 200, "answered initialize without serverInfo.name"),
    ("/mcp/no-json", Reason.PROTOCOL, 200, "not JSON in UTF-8"),
    ("/mcp/charset", Reason.PROTOCOL, 200, "not JSON in UTF-8"),
    ("/mcp/deep", Reason.PROTOCOL, 200, "not JSON in UTF-8"),
    ("/mcp/long-number", Reason.PROTOCOL, 200, "not JSON in UTF-8"),
    ("/mcp/nothing", Reason.PROTOCOL, 202, "answered 202 with no content instead of JSON"),
    ("/mcp/future", Reason.INCOMPATIBLE, 200, "speaks MCP 2031-01-01, which the agents' client does not"),
    ("/mcp/stateless", Reason.INCOMPATIBLE, 404, "speaks MCP 2026-07-28, which the agents' client does not"),
    ("/mcp/stateless-400", Reason.INCOMPATIBLE, 400, "let the server speak MCP 2025-11-25 too"),
    ("/mcp/stateless-only-says-so", Reason.INCOMPATIBLE, 400, "speaks none of MCP 2025-11-25, 2025-06-18"),
    ("/mcp/no-method", Reason.PROTOCOL, 200, "JSON-RPC error -32601 (no such thing)"),
    ("/mcp/404", Reason.HTTP, 404, "set the MCP endpoint to one that answers according to MCP"),
    ("/mcp/406", Reason.HTTP, 406, "set the MCP endpoint to one that answers according to MCP"),
    ("/mcp/401", Reason.AUTH_REQUIRED, 401, "give the server a secrets group with them"),
    ("/mcp/403", Reason.AUTH_REQUIRED, 403, "give the server a secrets group with them"),
    ("/mcp/429", Reason.HTTP, 429, "exempt health checks or check less often"),
    ("/mcp/500", Reason.HTTP, 500, "check its log"),
    ("/mcp/notification-refused", Reason.HTTP, 400, "POST notifications/initialized to"),
    ("/mcp/silent", Reason.TIMEOUT, None, "ran out of time waiting for the answer"),
    ("/mcp/resets", Reason.PROTOCOL, 200, "an incomplete answer"),
    ("/mcp/drips-headers", Reason.TIMEOUT, None, "ran out of time waiting for the answer"),
    ("/mcp/drips-body", Reason.TIMEOUT, 200, "ran out of time reading the body: set the MCP endpoint"),
    ("/mcp/sse-silent", Reason.TIMEOUT, 200, "ran out of time reading the body"),
    ("/mcp/sse-endless", Reason.TIMEOUT, 200, "ran out of time reading the body"),
    ("/mcp/sse-ends", Reason.PROTOCOL, 200, "ended its events without an answer to the request"),
    ("/mcp/sse-long-line", Reason.PROTOCOL, 200, "more than 1024 KiB and was cut off"),
    ("/mcp/sse-long-event", Reason.PROTOCOL, 200, "more than 1024 KiB and was cut off"),
    ("/mcp/floods", Reason.PROTOCOL, 200, "more than 1024 KiB and was cut off"),
    ("/mcp/bomb", Reason.PROTOCOL, 200, "more than 1024 KiB and was cut off"),
    ("/mcp/loop", Reason.HTTP, 307, "redirects to http://127.0.0.1:"),
    ("/mcp/303", Reason.HTTP, 303, "/mcp/ (303): only 307 or 308"),
    ("/mcp/elsewhere", Reason.HTTP, 308, "redirects to http://elsewhere.invalid/mcp (308)"),
    ("/mcp/other-port", Reason.HTTP, 307, "redirects to http://127.0.0.1:1/mcp (307)"),
    ("/mcp/crlf", Reason.PROTOCOL, None, "no valid HTTP answer"),
    ("/mcp/odd-session", Reason.PROTOCOL, 200, "opened a session with an id that no header can contain"),
]
MCP_WELL = [
    "/mcp/sse",
    "/mcp/sse-stays-open",
    "/mcp/text-id",
    "/mcp/no-session",
    "/mcp/delete-refused",
    "/mcp/delete-hangs",
    "/mcp/charset-in-name",
    "/mcp/slash",
]


def over_mcp(server, path="/mcp", **options):
    return Target(f"{server.url}/health", f"{server.url}{path}", ProbeKind.MCP, **options)


@pytest.mark.parametrize(("path", "reason", "status", "words"), FAULT_TABLE)
def test_each_fault_of_a_server_has_its_reason_a_remedy_and_an_end(server, path, reason, status, words):
    with prober_for(reason) as prober:
        started = time.monotonic()
        result = prober.probe(Target(server.url + path))
        elapsed = time.monotonic() - started
    assert (result.ok, result.reason, result.http_status) == (False, reason, status)
    assert words in result.message
    assert result.message.startswith("GET http://127.0.0.1")
    assert elapsed < TIMEOUT + GRACE
    assert 0 < result.latency_ms <= elapsed * 1000 + 1


def test_the_table_names_every_fault_the_fake_server_knows():
    assert {path for path, *_ in FAULT_TABLE} | set(WELL) == set(FAULTS)
    # What a listing of tools may meet has a table of its own, in the tests of that.
    handshakes = {path for path in MCP_FAULTS if not path.startswith("/mcp/tools")}
    assert {path for path, *_ in MCP_FAULT_TABLE} | set(MCP_WELL) == handshakes


@pytest.mark.parametrize(("path", "reason", "status", "words"), MCP_FAULT_TABLE)
def test_each_fault_of_the_handshake_has_its_reason_a_remedy_and_an_end(server, path, reason, status, words):
    with prober_for(reason) as prober:
        started = time.monotonic()
        result = prober.probe(over_mcp(server, path))
        elapsed = time.monotonic() - started
    assert (result.ok, result.reason, result.http_status) == (False, reason, status)
    assert words in result.message
    assert result.message.startswith("POST ")
    assert result.message.lower().endswith(result.remedy.lower())
    assert elapsed < TIMEOUT + GRACE


@pytest.mark.parametrize("path", MCP_WELL)
def test_a_handshake_that_succeeds_is_healthy_however_the_answer_comes(server, prober, path):
    result = prober.probe(over_mcp(server, path))
    assert (result.ok, result.reason, result.http_status, result.remedy) == (True, None, 200, "")
    assert (result.protocol_version, result.server_name, result.server_version) == ("2025-06-18", "fake", "1.2")
    assert result.message == f"POST initialize to {server.url}{path} answered 200 as fake 1.2, MCP 2025-06-18"


def test_a_server_that_does_not_let_the_probe_leave_costs_a_second_and_no_latency(server, prober):
    started = time.monotonic()
    result = prober.probe(over_mcp(server, "/mcp/delete-hangs"))
    took = time.monotonic() - started
    assert result.ok
    assert 1.0 <= took < 1.0 + GRACE
    assert result.latency_ms <= (took - 0.9) * 1000


def test_a_handshake_says_what_the_specification_wants_and_takes_leave(prober):
    with FakeMCPServer().running() as own:
        assert prober.probe(over_mcp(own)).ok
        assert [method for _, method in own.messages] == [
            "initialize",
            "notifications/initialized",
            "tools/list",
            "DELETE",
        ]
        assert own.sessions == 0
        first, second, *others = (head.lower() for head in own.heads)
    assert b"accept: application/json, text/event-stream\r\n" in first
    assert b"content-type: application/json\r\n" in first
    assert b"mcp-" not in first
    for later in (second, *others):
        assert b"mcp-session-id: the-session\r\n" in later
    assert b"mcp-protocol-version: 2025-06-18\r\n" in second


@pytest.mark.parametrize(
    "path",
    ["/mcp/sse-silent", "/mcp/sse-endless", "/mcp/sse-ends", "/mcp/sse-long-line", "/mcp/notification-refused"],
)
def test_a_session_is_ended_however_the_probe_went(server, path):
    server.messages.clear()
    reason = next(reason for fault, reason, *_ in MCP_FAULT_TABLE if fault == path)
    with prober_for(reason) as prober:
        assert not prober.probe(over_mcp(server, path)).ok
    assert (path, "DELETE") in server.messages


@pytest.mark.parametrize(
    ("status", "asked_over_mcp"),
    [
        (404, True),
        (405, True),
        (400, True),
        (401, True),
        (403, True),
        (406, True),
        (302, True),
        (501, False),
        (500, False),
    ],
)
def test_where_there_is_no_health_page_auto_asks_over_mcp(prober, status, asked_over_mcp):
    with FakeMCPServer(health_status=status).running() as own:
        result = prober.probe(Target(f"{own.url}/health", f"{own.url}/mcp", ProbeKind.AUTO))
        assert (len(own.messages) > 0, result.ok) == (asked_over_mcp, asked_over_mcp)


def test_auto_leaves_mcp_alone_where_the_health_page_answers(prober):
    with FakeMCPServer().running() as own:
        assert prober.probe(Target(f"{own.url}/health", f"{own.url}/mcp", ProbeKind.AUTO)).ok
        assert own.messages == []


def test_a_server_with_neither_page_nor_protocol_is_told_of_both(server, prober):
    result = prober.probe(Target(f"{server.url}/404", f"{server.url}/mcp/404", ProbeKind.AUTO))
    assert result.message.startswith(f"GET {server.url}/404 answered 404, and POST initialize to {server.url}/mcp/404")


def test_all_requests_of_a_probe_share_one_deadline():
    with FakeMCPServer(health_status=404, delay=1.6).running() as own, local_prober(2) as prober:
        result = prober.probe(Target(f"{own.url}/health", f"{own.url}/mcp/silent", ProbeKind.AUTO))
    assert result.reason is Reason.TIMEOUT
    assert result.latency_ms < 3_500, "with a deadline for each it would be 3.6 s"


def test_an_incompatible_server_is_named_all_the_same(server, prober):
    result = prober.probe(over_mcp(server, "/mcp/stateless"))
    assert (result.protocol_version, result.server_name, result.server_version) == ("2026-07-28", "newer", "2.0")


@pytest.mark.parametrize(
    ("path", "phase"),
    [("/silent", Phase.ANSWER), ("/drips-headers", Phase.ANSWER), ("/drips-body", Phase.BODY), ("/sse", Phase.BODY)],
)
def test_a_timeout_says_what_it_was_waiting_for(server, hurried, path, phase):
    assert hurried.probe(Target(server.url + path)).phase is phase


@pytest.mark.parametrize(
    "target", [lambda url: Target(f"{url}/429"), lambda url: Target("", f"{url}/mcp/429", ProbeKind.MCP)]
)
def test_a_server_that_asks_to_be_left_alone_is_heard(server, prober, target):
    assert prober.probe(target(server.url)).retry_after == 30


# ------------------------------------------------------------------------------------------------
# Credentials

TOKEN = "s3cret-t0ken"


def test_credentials_are_sent_with_each_request_of_a_handshake(prober):
    with FakeMCPServer(token=TOKEN).running() as own:
        assert prober.probe(over_mcp(own)).reason is Reason.AUTH_REQUIRED
        assert prober.probe(over_mcp(own, credentials=Credentials.bearer(TOKEN))).ok
        assert own.sessions == 0
        refused = prober.probe(over_mcp(own, credentials=Credentials.bearer("old")))
    assert refused.reason is Reason.AUTH_REQUIRED
    assert (
        "refuses the credentials of the server's secrets group (401): renew the credentials in the secrets group"
        in refused.message
    )


def test_credentials_are_not_sent_over_a_redirect(prober):
    with FakeMCPServer().running() as own:
        assert prober.probe(over_mcp(own, "/mcp/slash", credentials=Credentials("X-Api-Key", TOKEN, TOKEN))).ok
        sent = [(path, TOKEN.encode() in head) for (_, path), head in zip(own.requests, own.heads, strict=True)]
    assert sent == [("/mcp/slash", True), ("/mcp/slash/", False), *[("/mcp/slash", True)] * 3]


def test_a_server_that_wants_them_behind_a_redirect_is_named_by_its_new_address(prober):
    with FakeMCPServer(token=TOKEN).running() as own:
        result = prober.probe(over_mcp(own, "/mcp/slash", credentials=Credentials.bearer(TOKEN)))
        assert result.reason is Reason.AUTH_REQUIRED
        assert f"asks for credentials at {own.url}/mcp/slash/ (401): none are sent over a redirect" in result.message


def test_a_secret_that_a_server_sends_back_is_hidden(prober):
    credentials = Credentials.bearer(TOKEN)
    with FakeMCPServer().running() as own:
        MCP_FAULTS["/mcp/echo"] = echoing("serverInfo", {"name": f"you are {TOKEN}", "version": f"Bearer {TOKEN}"})
        MCP_FAULTS["/mcp/echo-version"] = echoing("protocolVersion", TOKEN)
        try:
            named = prober.probe(over_mcp(own, "/mcp/echo", credentials=credentials))
            versioned = prober.probe(over_mcp(own, "/mcp/echo-version", credentials=credentials))
        finally:
            del MCP_FAULTS["/mcp/echo"], MCP_FAULTS["/mcp/echo-version"]
    assert (named.server_name, named.server_version) == ("you are (hidden)", "(hidden)")
    assert TOKEN not in f"{named} {versioned}"


def echoing(key, value):
    async def fault(writer):
        writer.write(json_answer(rpc_result({**WELL_RESULT, key: value})))

    return {"initialize": fault}


# ------------------------------------------------------------------------------------------------
# Where a probe may go


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://169.254.169.254/latest/meta-data", "169.254.169.254 is a link-local address"),
        ("http://127.0.0.1:1/health", "a loopback address, which allow_loopback does not allow"),
        ("http://2130706433:1/health", "a loopback address"),
        ("http://0x7f.1:1/health", "a loopback address"),
        ("http://localhost:1/health", "a loopback address"),
        ("http://[::ffff:169.254.169.254]/health", "carries 169.254.169.254, a link-local address"),
        ("http://[64:ff9b::a9fe:a9fe]/health", "carries 169.254.169.254"),
        ("http://[fe80::1]/health", "a link-local address"),
        ("http://[fd00:ec2::254]/health", "a cloud's metadata service"),
        ("http://168.63.129.16/health", "a cloud's metadata service"),
        ("http://0.0.0.0:1/health", "an address of no host"),
    ],
)
@pytest.mark.parametrize("kind", [ProbeKind.HTTP, ProbeKind.MCP])
def test_nothing_is_sent_where_only_this_machine_or_its_cloud_answers(url, words, kind):
    with Prober(TIMEOUT) as prober:
        result = prober.probe(Target(url, url, kind))
    assert (result.reason, result.http_status) == (Reason.POLICY, None)
    assert words in result.message
    assert "correct the server's URL or its host's DNS entry" in result.message


def test_one_forbidden_address_among_several_is_enough_and_none_is_asked(server):
    with _resolving_to("127.0.0.1", "169.254.169.254") as prober:
        before = len(server.requests)
        result = prober.probe(Target(f"http://two.example:{server.port}/200"))
    assert result.reason is Reason.POLICY
    assert len(server.requests) == before


def test_the_address_is_checked_again_at_each_redirect(server):
    """A name that means another address the second time: the connection goes where the check was."""
    answers = iter([["127.0.0.1"], ["169.254.169.254"]])
    with local_prober(resolve=lambda host, port: next(answers)) as prober:
        result = prober.probe(Target(f"http://rebinding.example:{server.port}/slash"))
    assert result.reason is Reason.POLICY
    assert "169.254.169.254 is a link-local address" in result.message


def test_the_name_is_kept_in_sni_and_certificate_while_the_connection_goes_to_the_checked_address(authority):
    seen = []
    context = authority.server_context()
    context.sni_callback = lambda connection, name, _: seen.append(name)
    with FakeMCPServer(tls=context).running() as own, _resolving_to("127.0.0.1") as prober:
        result = prober.probe(Target(f"https://mcp.example:{own.port}/health", ca_file=authority.ca_file))
    assert seen == ["mcp.example"]
    assert (result.reason, "Hostname mismatch" in result.message) == (Reason.TLS, True)


# ------------------------------------------------------------------------------------------------
# TLS settings


def test_a_server_may_be_asked_without_verification(authority):
    expired = authority.server_context(valid_for=-datetime.timedelta(days=1))
    with FakeMCPServer(tls=expired).running() as own, local_prober() as prober:
        assert prober.probe(Target(f"{own.url}/health")).reason is Reason.TLS
        assert prober.probe(Target(f"{own.url}/health", verify_tls=False)).ok


@pytest.mark.parametrize("content", [None, "no certificate at all"])
def test_a_ca_file_that_can_not_be_used_is_the_checkers_trouble(prober, tmp_path, content):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    result = prober.probe(Target("https://127.0.0.1:1/health", ca_file=str(path)))
    assert result.reason is Reason.CHECKER
    assert f"the CA file {path} can't be used" in result.message


def test_a_context_is_shared_by_all_with_the_same_settings_and_made_anew_when_the_file_changes(authority):
    path = authority.ca_file
    assert ssl_context(ca_file=path) is ssl_context(ca_file=path)
    assert ssl_context(ca_file=path) is not ssl_context()
    assert ssl_context(verify=False) is ssl_context(verify=False, ca_file=path)
    before = ssl_context(ca_file=path)
    os.utime(path, (1, 1))
    assert ssl_context(ca_file=path) is not before


@pytest.mark.parametrize("path", WELL)
def test_a_2xx_answer_with_a_body_that_ends_is_healthy(server, prober, path):
    result = prober.probe(Target(server.url + path))
    assert (result.ok, result.reason) == (True, None)
    assert result.message == f"GET {server.url}{path} answered {result.http_status}"


@pytest.mark.parametrize(
    ("url", "reason", "words"),
    [
        (
            "http://127.0.0.1:1/health",
            Reason.CONNECT,
            "could not connect (Connection refused): check that the server runs",
        ),
        ("http://no-host.invalid/health", Reason.DNS, "check the host name and this worker's DNS"),
        ("http://a..b/health", Reason.DNS, "a part of the name is empty or too long"),
        (f"http://{'a' * 64}.example/health", Reason.DNS, "a part of the name is empty or too long"),
        ("", Reason.PROTOCOL, "GET (no address) has no valid address"),
        ("/health", Reason.PROTOCOL, "correct the server's URL"),
        ("ftp://127.0.0.1/health", Reason.PROTOCOL, "it needs http:// or https://"),
        ("http://127.0.0.1:99999/health", Reason.PROTOCOL, "99999 is not a port"),
        ("http://[::1/health", Reason.PROTOCOL, "correct the server's URL"),
        ("http://127.0.0.1:1\r\nX-Injected: y/health", Reason.PROTOCOL, "correct the server's URL"),
    ],
)
def test_an_address_that_leads_nowhere_is_a_sentence_and_not_an_exception(prober, url, reason, words):
    result = prober.probe(Target(url))
    assert (result.ok, result.reason, result.http_status) == (False, reason, None)
    assert words in result.message
    assert "\r" not in result.message


def test_a_port_that_swallows_connections_ends_in_time(hurried):
    # A full backlog: the system completes no further handshake, as behind a firewall that drops packets.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, closing(socket.socket()) as waiting:
        port = full.getsockname()[1]
        waiting.connect(("127.0.0.1", port))
        fillers = [_connect_without_waiting(port) for _ in range(4)]
        started = time.monotonic()
        result = hurried.probe(Target(f"http://127.0.0.1:{port}/health"))
        for filler in fillers:
            filler.close()
    assert result.reason is Reason.TIMEOUT
    assert "connecting: check that the host is up and that no firewall drops packets" in result.message
    assert time.monotonic() - started < TIMEOUT + GRACE


def _connect_without_waiting(port):
    filler = socket.socket()
    filler.setblocking(False)
    filler.connect_ex(("127.0.0.1", port))
    return filler


def test_a_name_lookup_that_hangs_ends_in_time_and_holds_up_nothing():
    released = threading.Event()

    def hanging(host, port):
        released.wait(60)
        return ["127.0.0.1"]

    started = time.monotonic()
    with local_prober(TIMEOUT, resolve=hanging) as prober:
        result = prober.probe(Target("http://slow-dns.example/health"))
    released.set()
    assert result.reason is Reason.TIMEOUT
    assert "looking up the host's name: check this worker's DNS" in result.message
    assert time.monotonic() - started < TIMEOUT + GRACE


def test_a_dead_first_address_leaves_time_for_the_second(server):
    with (
        socket.create_server(("127.0.0.2", server.port), backlog=0),
        closing(socket.socket()) as waiting,
        _resolving_to("127.0.0.2", "127.0.0.1", timeout=4) as prober,
    ):
        waiting.connect(("127.0.0.2", server.port))
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.2", server.port))
            fillers.append(filler)
        result = prober.probe(Target(f"http://two.example:{server.port}/200"))
        for filler in fillers:
            filler.close()
    assert result.ok
    assert 2_000 <= result.latency_ms < 4_000


def test_the_server_is_asked_by_its_name_whatever_address_it_has(server):
    with _resolving_to("127.0.0.1") as prober:
        assert prober.probe(Target(f"http://mcp.example:{server.port}/200")).ok
    assert f"Host: mcp.example:{server.port}\r\n".encode() in server.heads[-1]


def _resolving_to(*addresses, timeout=ENOUGH):
    return local_prober(timeout, resolve=lambda host, port: list(addresses))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), Reason.CHECKER),
        (OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL)), Reason.CHECKER),
        (OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH)), Reason.CONNECT),
    ],
)
def test_what_this_machine_has_run_out_of_is_not_blamed_on_the_server(error, reason):
    failed = httpx.ConnectError("failed")
    failed.__cause__ = error
    failure = explain(failed, None, Wording("health check path", ""))
    assert failure.reason is reason
    assert error.strerror in failure.happened


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "no-host.invalid"])
def test_running_out_of_file_descriptors_is_the_checkers_trouble(server, prober, host):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull) as probe_file:
        resource.setrlimit(resource.RLIMIT_NOFILE, (probe_file.fileno(), hard))
    try:
        result = prober.probe(Target(f"http://{host}:{server.port}/200"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert result.reason is Reason.CHECKER
    assert "says nothing about the server" in result.message


@pytest.mark.parametrize(
    ("certificate", "trusted", "reason", "words"),
    [
        ({}, True, None, "answered 200"),
        ({}, False, Reason.TLS, "renew it, or set the CA file that contains its CA"),
        ({"valid_for": -datetime.timedelta(days=1)}, True, Reason.TLS, "certificate has expired): renew it"),
        ({"address": "127.0.0.9"}, True, Reason.TLS, "IP address mismatch"),
    ],
)
def test_a_certificate_is_believed_only_when_trusted_valid_and_for_this_host(
    authority, certificate, trusted, reason, words
):
    with FakeMCPServer(tls=authority.server_context(**certificate)).running() as server, local_prober() as prober:
        result = prober.probe(Target(server.url + "/health", ca_file=authority.ca_file if trusted else ""))
    assert result.reason is reason
    assert words in result.message


@pytest.mark.parametrize("path", ["/drips-body", "/drips-headers", "/silent", "/floods-body", "/bomb", "/half-body"])
def test_the_deadline_holds_inside_tls_too(authority, path):
    reason = next(reason for fault, reason, *_ in FAULT_TABLE if fault == path)
    with FakeMCPServer(tls=authority.server_context()).running() as server, prober_for(reason) as prober:
        result = prober.probe(Target(server.url + path, ca_file=authority.ca_file))
    assert result.reason is reason
    assert result.latency_ms < (TIMEOUT + GRACE) * 1000


def test_a_port_that_does_not_speak_tls_is_told_apart_from_one_that_is_slow(server, prober, hurried):
    with socket.create_server(("127.0.0.1", 0)) as plain:
        threading.Thread(target=_answer_in_plain_text, args=(plain,), daemon=True).start()
        result = prober.probe(Target(f"https://127.0.0.1:{plain.getsockname()[1]}/health"))
    assert result.reason is Reason.TLS
    assert "check that the port speaks a current version of TLS" in result.message
    slow = hurried.probe(Target(f"https://127.0.0.1:{server.port}/health"))
    assert slow.reason is Reason.TIMEOUT
    assert "in the TLS handshake" in slow.message
    assert slow.latency_ms < (TIMEOUT + GRACE) * 1000


def _answer_in_plain_text(listener):
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def test_a_handshake_that_is_dripped_ends_in_time(hurried):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_drip_a_handshake, args=(listener,), daemon=True).start()
        result = hurried.probe(Target(f"https://127.0.0.1:{listener.getsockname()[1]}/health"))
    assert result.reason is Reason.TIMEOUT
    assert result.latency_ms < (TIMEOUT + GRACE) * 1000


def _drip_a_handshake(listener):
    connection, _ = listener.accept()
    with connection:
        try:
            # Not before the client has begun: what comes earlier is no part of the handshake on every event loop.
            connection.recv(65536)
            connection.sendall(b"\x16\x03\x03\x40\x00")  # a handshake record that promises 16 KiB
            while True:
                connection.sendall(b"\x02")
                time.sleep(0.05)
        except OSError:
            return  # the probe gave up, as it should


def test_the_timeout_in_use_is_ten_seconds_for_everything(server):
    """The real timeout, once: the others are scaled down."""
    started = time.monotonic()
    with Prober(allow_loopback=True) as prober:
        result = prober.probe(Target(server.url + "/drips-body"))
    assert result.reason is Reason.TIMEOUT
    assert 10 <= time.monotonic() - started < 10 + GRACE


@pytest.mark.parametrize("path", [*FAULTS, *MCP_FAULTS])
def test_no_server_makes_the_checker_use_much_memory(server, hurried, path):
    target = over_mcp(server, path) if path in MCP_FAULTS else Target(server.url + path)
    hurried.probe(Target(server.url + "/200"))
    tracemalloc.start()
    try:
        hurried.probe(target)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The fake server floods from this very process, which is in the figure too.
    assert peak < 8 * MAX_BODY_BYTES


def test_nothing_secret_is_sent_shown_or_kept(server, prober, monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login operator password netrc-secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    address = server.url.replace("://", "://operator:url-secret@")
    first = prober.probe(Target(f"{address}/cookie?token=query-secret"))
    second = prober.probe(Target(f"{address}/401"))
    assert first.ok
    assert second.reason is Reason.AUTH_REQUIRED
    for sent in server.heads[-2:]:
        assert b"authorization" not in sent.lower()
        assert b"cookie:" not in sent.lower()
    for result in (first, second, prober.probe(Target(f"{address}/elsewhere"))):
        assert "-secret" not in result.message
        assert "password" not in result.message


def test_probes_leave_no_line_in_the_log_of_httpx_and_other_requests_still_do(server, prober, caplog):
    caplog.set_level(logging.DEBUG, logger="httpx")
    assert next(prober.probe_all([Target(f"{server.url}/200?token=query-secret")])).ok
    assert caplog.messages == []
    httpx.get(f"{server.url}/200")
    assert len(caplog.messages) == 1


def test_probes_share_one_ssl_context_and_keep_no_connection(server, prober):
    assert ssl_context() is ssl_context()
    with FakeMCPServer().running() as own:
        for _ in range(20):
            assert prober.probe(Target(own.url + "/health")).ok
        until(lambda: own.open_now == 0, "the end of the last connection")


def test_at_most_eight_are_asked_at_once_at_one_port_and_answers_keep_their_order(prober):
    with FakeMCPServer(delay=0.05, script=[200] * 3 + [500] * 3 + [200] * 18).running() as server:
        results = list(prober.probe_all([Target(server.url + "/health")] * 24))
        assert 1 < server.open_most <= 8
    assert sorted(result.ok for result in results) == [False] * 3 + [True] * 21


def test_a_server_that_lets_the_probe_wait_does_not_keep_its_lane_from_the_next():
    with FakeMCPServer(delay=3).running() as slow, FakeMCPServer().running() as quick:
        targets = [Target(slow.url + "/health"), Target(quick.url + "/health")]
        with Prober(allow_loopback=True, concurrency=1).probing(targets, workers=1) as answers:
            assert [number for number, _ in answers] == [1, 0]


def test_so_many_more_are_waited_for_as_there_are_lanes_and_each_has_its_answer():
    with FakeMCPServer(delay=PATIENCE_SECONDS + 1).running() as server:
        targets = [Target(server.url + "/health")] * 8
        with Prober(allow_loopback=True, concurrency=2).probing(targets, workers=1) as answers:
            probes = dict(answers)
        assert server.open_most == 4
    assert [probes[number].ok for number in range(8)] == [True] * 8


def test_closing_early_leaves_out_what_has_not_begun(prober):
    with FakeMCPServer(delay=0.1).running() as server:
        with closing(prober.probe_all([Target(server.url + "/health")] * 100)) as probes:
            next(probes)
        assert len(server.requests) < 100


def test_whatever_bytes_a_server_sends_the_probe_ends_in_a_sentence(prober):
    """Three hundred answers cut and spoiled at random, from a fixed seed."""
    dice = random.Random(20)
    good = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nLocation: /x\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        threading.Thread(target=_spoil, args=(listener, good, dice, 300), daemon=True).start()
        for _ in range(300):
            result = prober.probe(Target(f"http://127.0.0.1:{port}/health"))
            assert result.ok or (result.reason and result.message.endswith("."))
            assert result.message.isprintable()


def _spoil(listener, good, dice, times):
    for _ in range(times):
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            answer = bytearray(good[: dice.randrange(len(good))] if dice.random() < 0.3 else good)
            for _ in range(dice.randrange(6)):
                if answer:
                    answer[dice.randrange(len(answer))] = dice.randrange(256)
            connection.sendall(answer)


def test_tls_is_verified_by_default():
    assert ssl_context().verify_mode is ssl.CERT_REQUIRED
    assert ssl_context().check_hostname


@pytest.fixture(scope="module")
def fastmcp():
    """A server of the SDK in a process of its own, whose memory can be read."""
    with sdk_server("-m", "development.demo_mcp_servers") as server:
        yield server


def test_two_hundred_probes_leave_nothing_in_a_real_server(fastmcp):
    pid, url = fastmcp
    target = Target(f"{url}/health", f"{url}/mcp", ProbeKind.MCP)
    with local_prober() as prober:
        # Its own caches and the allocator settle first.
        assert all(result.ok for result in prober.probe_all([target] * 80))
        before = resident_bytes(pid)
        results = list(prober.probe_all([target] * 200))
        growth = resident_bytes(pid) - before
    assert all(result.ok for result in results)
    assert results[0].server_name.startswith("demo-")
    assert growth < 2 * 1024 * 1024


def test_the_sdks_own_server_without_a_health_page_is_healthy_by_default(fastmcp, prober):
    _, url = fastmcp
    assert prober.probe(Target(f"{url}/no-such-page", f"{url}/mcp", ProbeKind.AUTO)).ok


def resident_bytes(pid):
    with open(f"/proc/{pid}/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))
