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

from ai_ops.adapters import mcp_http
from ai_ops.adapters.deadline_transport import DeadlineTransport
from ai_ops.adapters.mcp_http import MAX_BODY_BYTES, Target, open_client, probe, probe_all
from ai_ops.core.health import Reason
from tests.fakes.certificates import CertificateAuthority
from tests.fakes.mcp_server import FAULTS, FakeMCPServer, gzip_bomb

TIMEOUT = 0.5
GRACE = 0.5


@pytest.fixture(scope="module")
def server():
    gzip_bomb()
    with FakeMCPServer().running() as running:
        yield running


@pytest.fixture
def client():
    with open_client(TIMEOUT) as opened:
        yield opened


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return CertificateAuthority.make(tmp_path_factory.mktemp("ca"))


# path, reason, HTTP status, words that the sentence must have: what happened and what to do
FAULT_TABLE = [
    ("/400", Reason.HTTP, 400, "check URL and health check path"),
    ("/401", Reason.AUTH_REQUIRED, 401, "set a health check path that answers without them"),
    ("/403", Reason.AUTH_REQUIRED, 403, "set a health check path that answers without them"),
    ("/404", Reason.HTTP, 404, "set the health check path"),
    ("/405", Reason.HTTP, 405, "set the health check path"),
    ("/429", Reason.HTTP, 429, "exempt health checks or check less often"),
    ("/500", Reason.HTTP, 500, "look into its own log"),
    ("/503", Reason.HTTP, 503, "look into its own log"),
    ("/304", Reason.HTTP, 304, "check URL and health check path"),
    ("/loop", Reason.HTTP, 302, "/loop (302): redirects are not followed, so enter the address"),
    ("/slash", Reason.HTTP, 307, "/slash/ (307): redirects are not followed"),
    ("/elsewhere", Reason.HTTP, 301, "redirects to http://elsewhere.invalid/health (301)"),
    ("/bad-location", Reason.PROTOCOL, None, "check that URL and port are the MCP server's"),
    ("/long-location", Reason.HTTP, 302, "xxx... (302)"),
    ("/silent", Reason.TIMEOUT, None, "waiting for the answer: the server accepts but does not answer"),
    ("/hangs-up", Reason.PROTOCOL, None, "look into its log"),
    ("/half-body", Reason.PROTOCOL, 200, "broke off"),
    ("/drips-headers", Reason.TIMEOUT, None, "waiting for the answer"),
    ("/drips-status", Reason.TIMEOUT, None, "waiting for the answer"),
    ("/drips-100s", Reason.TIMEOUT, None, "waiting for the answer"),
    ("/drips-body", Reason.TIMEOUT, 200, "reading the body: set the health check path to one that ends its answer"),
    ("/drips-500-body", Reason.HTTP, 500, "look into its own log"),
    ("/sse", Reason.TIMEOUT, 200, "reading the body"),
    ("/floods-body", Reason.PROTOCOL, 200, "more than 1024 KiB and was cut off: set the health check path"),
    ("/floods-headers", Reason.PROTOCOL, None, "no valid HTTP answer"),
    ("/bomb", Reason.PROTOCOL, 200, "more than 1024 KiB and was cut off"),
    ("/not-gzip", Reason.PROTOCOL, 200, "not packed as its Content-Encoding says"),
    ("/no-http", Reason.PROTOCOL, None, "check that URL and port are the MCP server's"),
    ("/bad-length", Reason.PROTOCOL, None, "no valid HTTP answer"),
    ("/bad-chunk", Reason.PROTOCOL, 200, "broke off"),
    ("/bad-header", Reason.PROTOCOL, None, "no valid HTTP answer"),
    ("/nothing", Reason.PROTOCOL, None, "no valid HTTP answer"),
]
WELL = ["/200", "/204", "/no-length", "/gzip", "/cookie"]


@pytest.mark.parametrize(("path", "reason", "status", "words"), FAULT_TABLE)
def test_each_fault_of_a_server_has_its_reason_a_remedy_and_an_end(server, client, path, reason, status, words):
    started = time.monotonic()
    result = probe(client, Target(server.url + path))
    elapsed = time.monotonic() - started
    assert (result.ok, result.reason, result.http_status) == (False, reason, status)
    assert words in result.message
    assert result.message.startswith("GET http://127.0.0.1")
    assert elapsed < TIMEOUT + GRACE
    assert result.latency_ms == pytest.approx(elapsed * 1000, abs=50)


def test_the_table_names_every_fault_the_fake_server_knows():
    assert {path for path, *_ in FAULT_TABLE} | set(WELL) == set(FAULTS)


@pytest.mark.parametrize("path", WELL)
def test_a_2xx_answer_with_a_body_that_ends_is_healthy(server, client, path):
    result = probe(client, Target(server.url + path))
    assert (result.ok, result.reason) == (True, None)
    assert result.message == f"GET {server.url}{path} answered {result.http_status}"
    assert result.latency_ms < 250


@pytest.mark.parametrize(
    ("url", "reason", "words"),
    [
        (
            "http://127.0.0.1:1/health",
            Reason.CONNECT,
            "could not connect (Connection refused): check that the server runs",
        ),
        ("http://nobody.invalid/health", Reason.DNS, "check the host name and this worker's DNS"),
        ("http://a..b/health", Reason.DNS, "a part of the name is empty or too long"),
        (f"http://{'a' * 64}.example/health", Reason.DNS, "a part of the name is empty or too long"),
        ("", Reason.PROTOCOL, "GET (no address) is not an address to ask"),
        ("/health", Reason.PROTOCOL, "correct the server's URL"),
        ("ftp://127.0.0.1/health", Reason.PROTOCOL, "it needs http:// or https://"),
        ("http://127.0.0.1:99999/health", Reason.PROTOCOL, "99999 is no port"),
        ("http://[::1/health", Reason.PROTOCOL, "correct the server's URL"),
        ("http://127.0.0.1:1\r\nX-Injected: y/health", Reason.PROTOCOL, "correct the server's URL"),
    ],
)
def test_an_address_that_leads_nowhere_is_a_sentence_and_not_an_exception(client, url, reason, words):
    result = probe(client, Target(url))
    assert (result.ok, result.reason, result.http_status) == (False, reason, None)
    assert words in result.message
    assert "\r" not in result.message


def test_a_port_that_swallows_connections_ends_in_time(client):
    # A full backlog: the system completes no further handshake, as behind a firewall that drops packets.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, closing(socket.socket()) as waiting:
        port = full.getsockname()[1]
        waiting.connect(("127.0.0.1", port))
        fillers = [_connect_without_waiting(port) for _ in range(4)]
        started = time.monotonic()
        result = probe(client, Target(f"http://127.0.0.1:{port}/health"))
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
        released.wait(10)
        return ["127.0.0.1"]

    started = time.monotonic()
    with open_client(TIMEOUT, DeadlineTransport(mcp_http.shared_ssl_context(), hanging)) as client:
        result = probe(client, Target("http://slow-dns.example/health"))
    released.set()
    assert result.reason is Reason.TIMEOUT
    assert "looking up the host's name: check this worker's DNS" in result.message
    assert time.monotonic() - started < TIMEOUT + GRACE


def test_a_dead_first_address_leaves_time_for_the_second(server):
    with (
        socket.create_server(("127.0.0.2", server.port), backlog=0),
        closing(socket.socket()) as waiting,
        open_client(TIMEOUT, _resolving_to("127.0.0.2", "127.0.0.1")) as client,
    ):
        waiting.connect(("127.0.0.2", server.port))
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.2", server.port))
            fillers.append(filler)
        result = probe(client, Target(f"http://two.example:{server.port}/200"))
        for filler in fillers:
            filler.close()
    assert result.ok
    assert result.latency_ms == pytest.approx(TIMEOUT / 2 * 1000, abs=100)


def test_the_server_is_asked_by_its_name_whatever_address_it_has(server):
    with open_client(TIMEOUT, _resolving_to("127.0.0.1")) as client:
        assert probe(client, Target(f"http://mcp.example:{server.port}/200")).ok
    assert f"Host: mcp.example:{server.port}\r\n".encode() in server.heads[-1]


def _resolving_to(*addresses):
    return DeadlineTransport(mcp_http.shared_ssl_context(), lambda host, port: list(addresses))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), Reason.CHECKER),
        (OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL)), Reason.CHECKER),
        (OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH)), Reason.CONNECT),
    ],
)
def test_what_this_machine_has_run_out_of_is_not_blamed_on_the_server(error, reason):
    def failing(request):
        raise httpx.ConnectError("failed") from error

    with open_client(TIMEOUT, httpx.MockTransport(failing)) as client:
        result = probe(client, Target("http://mcp.example/health"))
    assert result.reason is reason
    assert error.strerror in result.message


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "nobody.invalid"])
def test_running_out_of_file_descriptors_is_the_checkers_trouble(server, client, host):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull) as probe_file:
        resource.setrlimit(resource.RLIMIT_NOFILE, (probe_file.fileno(), hard))
    try:
        result = probe(client, Target(f"http://{host}:{server.port}/200"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert result.reason is Reason.CHECKER
    assert "says nothing about the server" in result.message


@pytest.mark.parametrize(
    ("certificate", "trusted", "reason", "words"),
    [
        ({}, True, None, "answered 200"),
        ({}, False, Reason.TLS, "name its CA to this worker in SSL_CERT_FILE"),
        ({"valid_for": -datetime.timedelta(days=1)}, True, Reason.TLS, "certificate has expired): renew it"),
        ({"address": "127.0.0.9"}, True, Reason.TLS, "IP address mismatch"),
    ],
)
def test_a_certificate_is_believed_only_when_trusted_valid_and_for_this_host(
    authority, certificate, trusted, reason, words
):
    context = authority.client_context() if trusted else mcp_http.shared_ssl_context()
    with (
        FakeMCPServer(tls=authority.server_context(**certificate)).running() as server,
        open_client(TIMEOUT, DeadlineTransport(context)) as client,
    ):
        result = probe(client, Target(server.url + "/health"))
    assert result.reason is reason
    assert words in result.message


@pytest.mark.parametrize("path", ["/drips-body", "/drips-headers", "/silent", "/floods-body", "/bomb", "/half-body"])
def test_the_deadline_holds_inside_tls_too(authority, path):
    with (
        FakeMCPServer(tls=authority.server_context()).running() as server,
        open_client(TIMEOUT, DeadlineTransport(authority.client_context())) as client,
    ):
        result = probe(client, Target(server.url + path))
    assert result.reason is next(reason for fault, reason, *_ in FAULT_TABLE if fault == path)
    assert result.latency_ms < (TIMEOUT + GRACE) * 1000


def test_a_port_that_does_not_speak_tls_is_told_apart_from_one_that_is_slow(server, client):
    with socket.create_server(("127.0.0.1", 0)) as plain:
        threading.Thread(target=_answer_in_plain_text, args=(plain,), daemon=True).start()
        result = probe(client, Target(f"https://127.0.0.1:{plain.getsockname()[1]}/health"))
    assert result.reason is Reason.TLS
    assert "check that the port speaks TLS" in result.message
    slow = probe(client, Target(f"https://127.0.0.1:{server.port}/health"))
    assert slow.reason is Reason.TIMEOUT
    assert "in the TLS handshake" in slow.message
    assert slow.latency_ms < (TIMEOUT + GRACE) * 1000


def _answer_in_plain_text(listener):
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def test_a_handshake_that_is_dripped_ends_in_time(client):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_drip_a_handshake, args=(listener,), daemon=True).start()
        result = probe(client, Target(f"https://127.0.0.1:{listener.getsockname()[1]}/health"))
    assert result.reason is Reason.TIMEOUT
    assert result.latency_ms < (TIMEOUT + GRACE) * 1000


def _drip_a_handshake(listener):
    connection, _ = listener.accept()
    with connection:
        try:
            connection.sendall(b"\x16\x03\x03\x40\x00")  # a handshake record that promises 16 KiB
            while True:
                connection.sendall(b"\x02")
                time.sleep(0.05)
        except OSError:
            return  # the probe gave up, as it should


def test_the_timeout_in_use_is_ten_seconds_for_everything(server):
    """The real timeout, once: the others are scaled down."""
    started = time.monotonic()
    with open_client() as client:
        result = probe(client, Target(server.url + "/drips-body"))
    assert result.reason is Reason.TIMEOUT
    assert time.monotonic() - started == pytest.approx(10, abs=0.5)


@pytest.mark.parametrize("path", ["/bomb", "/floods-body", "/floods-headers", "/drips-body"])
def test_no_server_makes_the_checker_use_much_memory(server, client, path):
    probe(client, Target(server.url + "/200"))
    tracemalloc.start()
    try:
        probe(client, Target(server.url + path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The fake server floods from this very process, which is in the figure too.
    assert peak < 8 * MAX_BODY_BYTES


def test_nothing_secret_is_sent_shown_or_kept(server, client, monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login operator password netrc-secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    address = server.url.replace("://", "://operator:url-secret@")
    first = probe(client, Target(f"{address}/cookie?token=query-secret"))
    second = probe(client, Target(f"{address}/401"))
    assert first.ok
    assert second.reason is Reason.AUTH_REQUIRED
    for sent in server.heads[-2:]:
        assert b"authorization" not in sent.lower()
        assert b"cookie:" not in sent.lower()
    for result in (first, second, probe(client, Target(f"{address}/elsewhere"))):
        assert "secret" not in result.message
        assert "password" not in result.message


def test_probes_leave_no_line_in_the_log_of_httpx_and_other_requests_still_do(server, client, caplog):
    caplog.set_level(logging.DEBUG, logger="httpx")
    assert next(probe_all(client, [Target(f"{server.url}/200?token=query-secret")])).ok
    assert caplog.messages == []
    client.get(f"{server.url}/200")
    assert len(caplog.messages) == 1


def test_probes_share_one_ssl_context_and_keep_no_connection(server, client):
    assert mcp_http.shared_ssl_context() is mcp_http.shared_ssl_context()
    with FakeMCPServer().running() as own:
        for _ in range(20):
            assert probe(client, Target(own.url + "/health")).ok
        time.sleep(0.05)
        assert own.open_now == 0


def test_at_most_four_servers_are_asked_at_once_and_answers_keep_their_order(client):
    with FakeMCPServer(delay=0.05, script=[200] * 3 + [500] * 3 + [200] * 6).running() as server:
        started = time.monotonic()
        results = list(probe_all(client, [Target(server.url + "/health")] * 12))
        elapsed = time.monotonic() - started
        assert server.open_most == 4
    assert sorted(result.ok for result in results) == [False] * 3 + [True] * 9
    assert elapsed == pytest.approx(12 / 4 * 0.05, abs=0.1)


def test_closing_early_leaves_out_what_has_not_begun(client):
    with FakeMCPServer(delay=0.1).running() as server:
        with closing(probe_all(client, [Target(server.url + "/health")] * 100)) as probes:
            next(probes)
        assert len(server.requests) <= 12


def test_whatever_bytes_a_server_sends_the_probe_ends_in_a_sentence(client):
    """Three hundred answers cut and spoiled at random, from a fixed seed."""
    dice = random.Random(20)
    good = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nLocation: /x\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        threading.Thread(target=_spoil, args=(listener, good, dice, 300), daemon=True).start()
        for _ in range(300):
            result = probe(client, Target(f"http://127.0.0.1:{port}/health"))
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
    assert mcp_http.shared_ssl_context().verify_mode is ssl.CERT_REQUIRED
    assert mcp_http.shared_ssl_context().check_hostname
