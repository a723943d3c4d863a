"""Whatever a server, or the address that was typed in for it, does to a library: it costs only its own result."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import os
import socket
import ssl
import threading
import time
from pathlib import Path

import httpx
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ai_ops.mcp.http import prober as mcp_http
from ai_ops.mcp.http.connections import PIECES_AT_ONCE, Answer
from ai_ops.mcp.http.exchange import Exchange
from ai_ops.mcp.http.http11 import Head
from ai_ops.mcp.http.prober import Prober, Target
from ai_ops.mcp.http.tls import CAFileError, ssl_context
from ai_ops.mcp.http.transports import ClientFactory
from ai_ops.mcp.logic.credentials import Credentials
from ai_ops.mcp.logic.verdicts import ProbeKind, Reason
from tests.fakes.mcp_server import FakeMCPServer
from tests.fakes.wire import WELL as WELL_RESULT
from tests.fakes.wire import WireServer, event, init, raw, result, stream, text

TIMEOUT = 3.0
KINDS = list(ProbeKind)


@pytest.fixture(scope="module")
def wire():
    with WireServer().running() as server:
        yield server


@pytest.fixture
def prober():
    with Prober(TIMEOUT, allow_loopback=True) as opened:
        yield opened


def ask(server, row, kind=ProbeKind.MCP, **options):
    url = server.url("ask", row)
    return Target(url, url, kind, **options)


# ------------------------------------------------------------------------------------------------
# Addresses and redirects

# Each raised something else than httpx promises, or nearly so.
NO_ADDRESSES = [
    "http://xn--/",
    "http://xn--ls8h.la",
    "http://xn--a-ecp.ru",
    "http://\u2168.example",
    "http://.example",
    "http://example..com",
    "http://a" + ".a" * 200,
    "http://" + "a" * 70 + ".example",
    "http://[::1%25eth0]/",
    "http://[fd00:ec2::254%1]/",
    "http://127.0.0.1:0/",
    "http://127.0.0.1:70000/",
    "http://127.0.0.1:x/",
    "http://user:pass@",
    "http:///x",
    "//x",
    "http://\x00/",
    "http://a b/",
    "http://%zz/",
    "javascript:alert(1)",
    "\ud800",
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_address_that_no_library_can_read_is_that_servers_own_failure(prober, kind):
    targets = [Target(url, url, kind) for url in NO_ADDRESSES]
    with FakeMCPServer().running() as well:
        probes = list(prober.probe_all([*targets, Target(f"{well.url}/health", f"{well.url}/mcp", kind)]))
    *ill, last = probes
    assert last.ok, last.message
    for url, probe in zip(NO_ADDRESSES, ill, strict=True):
        assert not probe.ok, url
        assert probe.reason is not Reason.CHECKER, (url, probe.message)
        assert probe.message.isprintable()
    for listing in prober.list_all(targets):
        assert listing.tools is None


# The last is a path of the server itself once it is in a header.
@pytest.mark.parametrize("location", NO_ADDRESSES[:-1])
def test_a_redirect_to_one_is_too(wire, prober, location):
    wire.rows["redirecting"] = (
        False,
        dict.fromkeys(("GET", "initialize"), raw(307, b"", f"Location: {_sendable(location)}")),
    )
    for kind in KINDS:
        probe = prober.probe(ask(wire, "redirecting", kind))
        assert (probe.ok, probe.reason is Reason.CHECKER) == (False, False), probe.message
    assert prober.list_tools(ask(wire, "redirecting")).tools is None


def _sendable(value: str) -> str:
    return value.encode("utf-8", "surrogatepass").decode("latin-1").replace("\x00", "%00")


HEADER_NAMES = st.sampled_from(
    ["Location", "Content-Type", "Content-Encoding", "Set-Cookie", "Mcp-Session-Id", "Retry-After", "Content-Length",
     "Transfer-Encoding", "Connection", "WWW-Authenticate", "X-Odd", "Link", "Upgrade"]
)  # fmt: skip
HEADER_VALUES = st.one_of(
    st.sampled_from(
        [
            *NO_ADDRESSES,
            "gzip",
            "br, zstd",
            "gzip, " * 900,
            "text/event-stream",
            "application/json",
            "chunked",
            "a=b; Max-Age=x",
        ]
    ),
    st.text(st.characters(min_codepoint=1, max_codepoint=255, exclude_characters="\r\n"), max_size=60),
).map(_sendable)
STATUSES = st.sampled_from([200, 202, 204, 301, 302, 303, 307, 308, 304, 400, 401, 403, 404, 406, 421, 429, 500, 503])
BODIES = st.one_of(st.binary(max_size=80), st.just(b'{"jsonrpc":"2.0","id":1,"result":{}}'), st.just(b"data: {}\n\n"))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(status=STATUSES, headers=st.lists(st.tuples(HEADER_NAMES, HEADER_VALUES), max_size=4), body=BODIES)
def test_no_headers_raise(wire, caplog, status, headers, body):
    reply = raw(status, body, *(f"{name}: {value}" for name, value in headers))
    wire.rows["odd"] = (
        False,
        dict.fromkeys(("GET", "initialize", "tools/list", "notifications/initialized", "DELETE"), reply),
    )
    with Prober(0.5, allow_loopback=True) as prober:
        probes = list(prober.probe_all([ask(wire, "odd", kind) for kind in KINDS]))
        listing = prober.list_tools(ask(wire, "odd"))
    for probe in [*probes, listing.probe]:
        assert probe.reason is not Reason.CHECKER, probe.message
        assert probe.message.isprintable()
    assert "programming error" not in caplog.text


# Of each something that only one of Python's codecs minds.
CHARSETS = [
    *("idna", "rot13", "base64", "zip", "bz2", "hex", "uu", "undefined", "punycode", "unicode_escape", "utf-7"),
    *("raw_unicode_escape", "utf-16", "utf-32", "mbcs", "../../etc", '"utf-8', "a" * 5000, "none"),
]


@pytest.mark.parametrize("charset", CHARSETS)
def test_no_encoding_of_events_raises(wire, prober, charset):
    events = b"data: \\U99999999 +2ADcAA- xn--\xff-\x80..\n\n" + event("{}")
    wire.rows["encoded"] = (
        False,
        dict.fromkeys(("initialize", "tools/list"), stream(events, kind=f"text/event-stream; charset={charset}")),
    )
    probe = prober.probe(ask(wire, "encoded"))
    assert probe.reason in (Reason.PROTOCOL, Reason.TIMEOUT), probe.message
    assert prober.list_tools(ask(wire, "encoded")).probe.reason in (Reason.PROTOCOL, Reason.TIMEOUT)


@pytest.mark.parametrize("charset", ["punycode", "idna", "zip"])
def test_agents_decode_nothing_that_takes_hours(wire, charset):
    wire.rows["slow"] = (False, {"GET": text(b"a" * 200_000, kind=f"text/event-stream; charset={charset}")})

    async def load():
        async with ClientFactory(ssl_context(), allow_loopback=True)() as client:
            await client.get(wire.url("agent", "slow"))

    with pytest.raises(httpx.RemoteProtocolError, match="an encoding that is not for text"):
        asyncio.run(load())


@pytest.mark.parametrize("digits", [1, 20, 309, 400, 4299, 4301])
def test_no_wait_before_a_resumption_raises(wire, digits):
    wire.rows["waits"] = (False, {"initialize": stream(event("", "id: 1", f"retry: {'9' * digits}")), "GET": raw(500)})
    with Prober(0.5, allow_loopback=True) as prober:
        assert prober.probe(ask(wire, "waits")).reason in (Reason.PROTOCOL, Reason.TIMEOUT)


PING = event({"jsonrpc": "2.0", "id": "again", "method": "ping"})
SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
# What a server sends, and what is said of it. Before, three such servers took all the time of those beside them.
FLOODS = [
    (stream(event("{") * 20_000), "sent more than 10,000 events without an answer"),
    (stream(PING * 300), "sent more than 100 requests before its answer"),
    (SSE_HEAD + b"1\r\na\r\n" * 40_000, "sent more than 1024 KiB and was cut off"),
    (b"HTTP/1.1 103 Early\r\n\r\n" * 40_000, "got no valid HTTP answer (Too much before the head"),
]


@pytest.mark.parametrize(("reply", "words"), FLOODS)
def test_a_flood_of_small_things_is_cut_off_before_it_costs_others_their_time(wire, reply, words):
    wire.rows["flood"] = (False, {"initialize": reply})
    with Prober(60, allow_loopback=True) as prober:
        probe = prober.probe(ask(wire, "flood"))
    assert (probe.reason, words in probe.message) == (Reason.PROTOCOL, True), probe.message


def test_a_list_of_nothing_but_errors_is_told_without_looking_at_each(wire, prober):
    wire.rows["errors"] = (False, {"tools/list": result({"tools": [{}] * 5_000})})
    probe = prober.probe(ask(wire, "errors"))
    assert "answered tools/list with 10,000 invalid parts" in probe.message


def test_other_probes_have_their_turn_while_a_body_is_read():
    class Pieces:
        left = 3200

        def piece(self):
            self.left -= 1
            return b"a" * (self.left >= 0)

    async def read():
        turns = 0

        async def other():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        beside = asyncio.create_task(other())
        answer = Answer(None, Head(200, [], {}), Pieces(), None, None)
        assert len([piece async for piece in answer]) == 3200
        beside.cancel()
        return turns

    assert asyncio.run(read()) >= 3200 / PIECES_AT_ONCE


@settings(max_examples=150, deadline=None)
@given(
    url=st.one_of(
        st.text(max_size=40),
        st.text(max_size=30).map("http://{}".format),
        st.text(max_size=20).map("http://127.0.0.1:{}/".format),
    )
)
def test_no_url_raises(url):
    with Prober(0.5, allow_loopback=True, resolve=lambda host, port: []) as prober:
        for probe in prober.probe_all([Target(url, url, ProbeKind.AUTO)]):
            assert (probe.ok, probe.reason is Reason.CHECKER) == (False, False), probe.message
            assert probe.message.isprintable()


# ------------------------------------------------------------------------------------------------
# Cases without a name


def test_an_error_of_the_program_costs_one_server_and_is_in_the_log_once_without_secrets(wire, caplog, monkeypatch):
    sent = Exchange._sent

    async def broken(self, request, home, aside):
        if "broken" in str(request.url):
            raise KeyError(f"what no one expected, with {request.headers['authorization']}")
        return await sent(self, request, home, aside)

    monkeypatch.setattr(Exchange, "_sent", broken)
    credentials = Credentials.bearer("s3cret-t0ken")
    targets = [ask(wire, name, credentials=credentials) for name in ("plain", "broken", "events", "broken")]
    with Prober(TIMEOUT, allow_loopback=True) as prober:
        for _ in range(3):
            probes = list(prober.probe_all(targets))
            assert [probe.ok for probe in probes] == [True, False, True, False]
        assert probes[1].reason is Reason.CHECKER
        assert "look for its traceback in the worker's log" in probes[1].message
        assert prober.list_tools(targets[1]).tools is None
    (record,) = [record for record in caplog.records if record.name == mcp_http.__name__]
    assert "in broken\n" in record.getMessage()
    assert "s3cret-t0ken" not in caplog.text + str(probes)


# ------------------------------------------------------------------------------------------------
# CA files


def test_no_file_keeps_anything_waiting_and_all_failures_sound_the_same(authority, tmp_path):
    folder = tmp_path / "certificates"
    folder.mkdir()
    os.mkfifo(folder / "fifo")
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "text").write_text("no certificate")
    (folder / "large").write_bytes(Path(authority.ca_file).read_bytes() + b"\n" * (1024 * 1024))
    (folder / "broken").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    reading, writing = os.pipe()
    paths = [*(str(folder / name) for name in ("fifo", "link", "text", "large", "broken", "missing")), str(folder)]
    paths += [
        f"/proc/self/fd/{reading}",
        "/dev/zero",
        "/dev/stdin",
        authority.ca_file,
        "/etc/passwd",
        "\0",
        f"{folder}/../x",
    ]
    started = time.monotonic()
    said = set()
    for path in paths:
        with pytest.raises(CAFileError) as refusal:
            ssl_context(ca_file=path, directories=[str(folder)])
        said.add(str(refusal.value).replace(path, "PATH"))
    os.close(reading)
    os.close(writing)
    assert len(said) == 1
    assert time.monotonic() - started < 60, "a FIFO and /dev/zero have no end"


def test_a_ca_file_in_one_of_the_folders_is_used_and_a_link_within_them_too(authority, tmp_path):
    (tmp_path / "link.pem").symlink_to(authority.ca_file)
    folders = [str(tmp_path), os.path.dirname(authority.ca_file)]
    with FakeMCPServer(tls=authority.server_context()).running() as own:
        for path in (authority.ca_file, str(tmp_path / "link.pem")):
            with Prober(TIMEOUT, allow_loopback=True, ca_directories=folders) as prober:
                probe = prober.probe(Target(f"{own.url}/health", ca_file=path))
            assert probe.ok, probe.message
            assert 0 <= (probe.certificate_ends - probe.certificate_ends.now(probe.certificate_ends.tzinfo)).days < 400


def test_the_end_of_a_certificate_is_known_without_verification_too(authority):
    with FakeMCPServer(tls=authority.server_context()).running() as own, Prober(TIMEOUT, allow_loopback=True) as prober:
        probe = prober.probe(Target(f"{own.url}/health", verify_tls=False))
        assert probe.certificate_ends.tzinfo is not None
        assert prober.probe(Target(f"{own.url.replace('https', 'http')}/health")).certificate_ends is None


def test_a_certificate_that_no_library_can_read_is_of_no_known_end(authority, prober, tmp_path):
    own = Path(authority.server_files()).read_text()
    key, begin, certificate = own.partition("-----BEGIN CERTIFICATE-----")
    # Version 10 of the format, of which there are three.
    odd = ssl.PEM_cert_to_DER_cert(begin + certificate).replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x09", 1)
    (tmp_path / "odd.pem").write_text(key + ssl.DER_cert_to_PEM_cert(odd))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "odd.pem")
    with FakeMCPServer(tls=context).running() as server:
        probe = prober.probe(Target(f"{server.url}/health", verify_tls=False))
    assert (probe.ok, probe.certificate_ends) == (True, None), probe.message


# ------------------------------------------------------------------------------------------------
# Bytes, words, logs


def test_bytes_after_the_end_of_a_gzip_stream_are_neither_kept_nor_read_for_ever(prober):
    import tracemalloc

    sent = 0

    def flood(listener):
        nonlocal sent
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            try:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"ok"))
                while True:
                    sent += connection.send(bytes(65536))
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=flood, args=(listener,), daemon=True)
        thread.start()
        tracemalloc.start()
        try:
            probe = prober.probe(Target(f"http://127.0.0.1:{listener.getsockname()[1]}/"))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        thread.join(5)
    assert "sent more than 1024 KiB and was cut off" in probe.message
    assert peak < 4 * 1024 * 1024
    assert sent < 16 * 1024 * 1024


def test_a_bomb_in_any_coding_that_is_decoded_stays_small(wire, prober):
    import tracemalloc

    zeros = bytes(256 * 1024 * 1024)
    for pack, coding in ((zstandard.ZstdCompressor(level=1).compress, "zstd"), (gzip.compress, "gzip")):
        wire.rows["bomb"] = (False, {"initialize": text(pack(zeros), f"Content-Encoding: {coding}")})
        tracemalloc.start()
        try:
            probe = prober.probe(ask(wire, "bomb"))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert "sent more than 1024 KiB and was cut off" in probe.message
        assert peak < 8 * 1024 * 1024, coding


# row, reason, status, what is said
WORDS = [
    (raw(403, b"Invalid Host: mcp.example"), Reason.HTTP, 403, "let the server allow the host 127.0.0.1:"),
    (raw(403, b"Access is only allowed at localhost:8931"), Reason.HTTP, 403, "was refused for its Host header"),
    (raw(400, b"Invalid host header"), Reason.HTTP, 400, "was refused for its Host header"),
    (raw(421, b""), Reason.HTTP, 421, "was refused for its Host header"),
    *(
        (raw(status, said.encode()), Reason.HTTP, status, "let the server allow the host 127.0.0.1:")
        for status, said in [
            (403, '{"jsonrpc":"2.0","error":{"code":-32000,"message":"Invalid Host: mcp.example.com"},"id":null}'),
            (403, "Forbidden: invalid Host header"),
            (403, "Forbidden: Host header is not allowed"),
            (403, 'Blocked request. This host ("mcp.example.com") is not allowed.'),
            (403, "Blocked hosts: mcp.example.com"),
            (400, "Host 'mcp.example.com' is not trusted."),
            (400, "Invalid HTTP_HOST header: 'mcp.example.com'. You may need to add it to ALLOWED_HOSTS."),
            (400, "<h2>Bad Request - Invalid Hostname</h2><p>HTTP Error 400. The request hostname is invalid.</p>"),
            (403, "Blocking request with non-local 'Host' mcp.example.com (1.2.3.4)."),
            (403, "Host check error"),
            (403, "The host header mcp.example.com:8000 is not in the list of allowed hosts"),
        ]
    ),
    (raw(403, b"Ask the host. Your request was denied"), Reason.AUTH_REQUIRED, 403, "give the server a secrets group"),
    (raw(403, b"forbidden"), Reason.AUTH_REQUIRED, 403, "if it checks the Host header, let it allow this host"),
    (raw(401, b"no"), Reason.AUTH_REQUIRED, 401, "give the server a secrets group"),
    (result(init(protocolVersion="2024-10-07")), Reason.INCOMPATIBLE, 200, "update the server, whose revision"),
    (result(init(protocolVersion="2031-01-01")), Reason.INCOMPATIBLE, 200, "most servers of a newer revision can"),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "reason", "status", "words"), WORDS)
def test_a_failure_is_told_in_the_right_words(wire, prober, reply, reason, status, words):
    wire.rows["words"] = (False, {"initialize": reply})
    probe = prober.probe(ask(wire, "words"))
    assert (probe.reason, probe.http_status) == (reason, status)
    assert words in probe.message


def test_a_500_whose_body_stalls_is_a_500(wire, prober):
    async def stalls(call):
        call.writer.write(b"HTTP/1.1 500 -\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{")
        await call.writer.drain()
        await asyncio.sleep(3600)

    wire.rows["stalls"] = (False, {"initialize": stalls})
    probe = prober.probe(ask(wire, "stalls"))
    assert (probe.reason, probe.http_status) == (Reason.HTTP, 500)


@pytest.mark.parametrize("status", [400, 404, 405])
def test_a_server_that_speaks_only_sse_is_told_as_one(wire, prober, status):
    endpoint = lambda call: stream(event("/messages?session=1", "event: endpoint"))  # noqa: E731
    wire.rows["sse-only"] = (False, {"initialize": raw(status), "GET": endpoint})
    probe = prober.probe(ask(wire, "sse-only"))
    assert probe.reason is Reason.INCOMPATIBLE
    assert "speaks only the transport HTTP+SSE of MCP 2024-11-05" in probe.message
    # A page that is an event stream says nothing about MCP.
    assert prober.probe(ask(wire, "sse-only", ProbeKind.AUTO)).reason is Reason.INCOMPATIBLE


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_that_wants_a_client_certificate_is_told_as_one(authority, prober, version):
    context = authority.server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = version
    context.load_verify_locations(authority.ca_file)

    def serve(listener):
        # Not asyncio's, which hangs up without an alert.
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with contextlib.suppress(ssl.SSLError), connection:
                    context.wrap_socket(connection, server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        probe = prober.probe(Target(f"https://127.0.0.1:{listener.getsockname()[1]}/health", ca_file=authority.ca_file))
    assert probe.reason is Reason.TLS
    assert "client certificate" in probe.message


AUTO = [
    (raw(400), True), (raw(401), True), (raw(403), True), (raw(404), True), (raw(406), True), (raw(429), True),
    (raw(302, b"", "Location: http://127.0.0.1:1/"), True), (b"220 mail\r\n", True),
    (stream(b": hello\n\n"), True), (text(bytes(2 * 1024 * 1024), kind="text/html"), True),
    (raw(200), True), (raw(204), True), (raw(500), False), (raw(503), False), (raw(600), True), (raw(999), True),
]  # fmt: skip


@pytest.mark.parametrize(("page", "ok"), AUTO)
def test_the_health_page_decides_when_it_answers_2xx_or_5xx(wire, prober, page, ok):
    wire.rows["page"] = (True, {"GET": page})
    assert prober.probe(ask(wire, "page", ProbeKind.AUTO)).ok is ok


def test_neither_probes_nor_agents_leave_anything_in_the_logs_of_the_libraries(wire, prober, caplog):
    from langchain_mcp_adapters.client import MultiServerMCPClient

    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "mcp", "client"):
        caplog.set_level(logging.DEBUG, logger=name)
    secret = "s3cret-in-the-body"
    wire.rows["telling"] = (True, {
        "initialize": lambda call: stream(
            event("{" + secret),
            event({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": secret}}),
            event({"jsonrpc": "2.0", "id": call.request_id, "result": {**WELL_RESULT, "instructions": secret}}),
            headers=f"Mcp-Session-Id: {secret}\r\nX-Secret: {secret}\r\n",
        )
    })  # fmt: skip
    assert prober.probe(ask(wire, "telling")).ok

    async def load():
        connection = {
            "transport": "streamable_http",
            "url": wire.url("agent", "telling") + f"?token={secret}",
            "httpx_client_factory": ClientFactory(ssl_context(), allow_loopback=True),
        }
        (tool,) = await MultiServerMCPClient({"one": connection}).get_tools(server_name="one")
        with pytest.raises(Exception):  # noqa: B017, PT011 - the server has no such method
            async with asyncio.timeout(3):
                await tool.ainvoke({"a": secret})

    asyncio.run(load())
    assert secret not in caplog.text


@pytest.mark.parametrize(
    "written", [lambda t: t, lambda t: "".join(f"%{ord(each):02x}" for each in t), lambda t: t.upper()]
)
def test_a_secret_comes_back_in_no_form(wire, prober, written):
    secret = "s3cret-T0ken"
    back = written(secret)
    for credentials in (Credentials.bearer(secret), Credentials(secret, "X-Api-Key", "X-Api-Key")):
        for reply in (
            raw(307, b"", f"Location: http://127.0.0.1:1/{back}?x"),
            raw(307, b"", f"Location: http://{back}/"),
            text(b"{}", kind=f"text/{back}"),
            result(init(serverInfo={"name": back, "version": back})),
            result(init(protocolVersion=back)),
            raw(401),
        ):
            wire.rows["echo"] = (False, {"initialize": reply, "GET": reply})
            for kind in KINDS:
                said = f"{prober.probe(ask(wire, 'echo', kind, credentials=credentials))}".lower()
                assert secret.lower() not in said
                assert back.lower() not in said
