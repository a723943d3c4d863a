"""MCP's messages read without a network: what counts as an answer, and how events are put together."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_ops.core.health import MAX_RETRY_AFTER_SECONDS, retry_after_seconds
from ai_ops.core.mcp_protocol import (
    CLIENT_REVISIONS,
    MAX_SSE_LINE_BYTES,
    ProtocolViolation,
    RpcError,
    SSEDecoder,
    answer_in,
    discover_request,
    discovered_identity,
    initialize_request,
    initialized_identity,
)

WELL = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "fake", "version": "1"}}


def encoded(message):
    return json.dumps(message).encode()


def answer(request_id=1, **content):
    return {"jsonrpc": "2.0", "id": request_id, **content}


def test_the_probe_asks_for_the_newest_revision_that_the_agents_client_speaks():
    from mcp.shared.version import SUPPORTED_PROTOCOL_VERSIONS
    from mcp.types import LATEST_PROTOCOL_VERSION

    assert set(CLIENT_REVISIONS) == set(SUPPORTED_PROTOCOL_VERSIONS)
    assert initialize_request(1, "0")["params"]["protocolVersion"] == LATEST_PROTOCOL_VERSION


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (answer(result=WELL), WELL),
        ([{"jsonrpc": "2.0", "method": "notifications/message"}, answer(result=WELL)], WELL),
        (answer(error={"code": -32603, "message": "no"}), RpcError(-32603, "no")),
        (answer(None, error={"code": -32600, "message": "no"}), RpcError(-32600, "no")),
        # of others, or to others
        (answer(2, result=WELL), None),
        (answer("1", result=WELL), None),
        (answer(1.0, result=WELL), None),
        (answer(True, result=WELL), None),
        (answer(2, error={"code": -32603, "message": "no"}), None),
        (answer(1, method="ping"), None),
        ({"jsonrpc": "2.0", "method": "notifications/message"}, None),
        ([], None),
    ],
)
def test_only_the_answer_to_the_request_counts(message, expected):
    assert answer_in(encoded(message), 1) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"null",
        b"3",
        b'"text"',
        b"[1]",
        b"{}",
        b'{"jsonrpc": "1.0", "id": 1, "result": {}}',
        b'{"jsonrpc": "2.0", "id": 1, "result": []}',
        b'{"jsonrpc": "2.0", "id": 1}',
        b'{"jsonrpc": "2.0", "id": 1, "error": "no"}',
        b'{"jsonrpc": "2.0", "id": 1, "error": {"code": "no"}}',
        b'{"jsonrpc": "2.0", "id": 1, "error": {"code": true}}',
        '{"jsonrpc": "2.0"}'.encode("utf-16"),
        b"[" * 100_000,
        b"1" * 10_000,
    ],
)
def test_what_is_no_json_rpc_is_told_apart_from_what_answers_another(body):
    with pytest.raises(ProtocolViolation):
        answer_in(body, 1)


@given(st.binary(max_size=200))
def test_no_bytes_at_all_raise_anything_else(body):
    with contextlib.suppress(ProtocolViolation):
        answer_in(body, 1)


@pytest.mark.parametrize("missing", ["protocolVersion", "capabilities", "serverInfo"])
def test_the_result_of_initialize_needs_what_the_agents_client_needs(missing):
    with pytest.raises(ProtocolViolation):
        initialized_identity({key: value for key, value in WELL.items() if key != missing})


def test_a_discovered_server_is_known_by_its_newest_revision():
    found = discovered_identity({"supportedVersions": ["2026-07-28", "2026-01-01"], "serverInfo": {"name": "x"}})
    assert (found.protocol_version, found.name, found.version) == ("2026-07-28", "x", None)
    assert discovered_identity({"supportedVersions": ["2026-07-28"], "_meta": 3}).name is None
    for result in ({}, {"supportedVersions": []}, {"supportedVersions": [1]}, {"supportedVersions": "2026"}):
        with pytest.raises(ProtocolViolation):
            discovered_identity(result)
    assert discover_request(2, "0")["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"


STREAM = (
    b"\xef\xbb\xbf: a comment\n\n"
    b"event: ping\ndata: left out\n\n"
    b"id: 7\nretry: 10\ndata:first\ndata: second\n\n"
    b"data\n\n"
    b"event: message\r\ndata: third\r\n\r\n"
    b"data: fourth\r\r"
    b"data: cut off"
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_events_are_the_same_however_the_stream_is_cut(cuts):
    decoder, found = SSEDecoder(), []
    for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(STREAM)], strict=True):
        found += decoder.feed(STREAM[begin:end])
    assert found == [b"first\nsecond", b"third", b"fourth"]


@pytest.mark.parametrize("chunk", [b"data: " + b"x" * MAX_SSE_LINE_BYTES, b"data: " + b"x" * 4096 + b"\n"])
def test_neither_a_line_nor_an_event_grows_without_end(chunk):
    decoder = SSEDecoder()
    with pytest.raises(ProtocolViolation, match="longer than 64 KiB"):
        _feed(decoder, chunk, times=20)


def _feed(decoder, chunk, times):
    for _ in range(times):
        list(decoder.feed(chunk))


NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30", 30),
        (" 0 ", 0),
        ("999999999999999999", MAX_RETRY_AFTER_SECONDS),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60),
        ("Tue, 14 Nov 2023 22:14:20", 60),
        ("Tue, 14 Nov 2023 20:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", MAX_RETRY_AFTER_SECONDS),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("³", None),
        ("Tue, 99 Nov 2023 20:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    assert retry_after_seconds(value, NOW) == seconds


@given(st.text(max_size=60))
def test_no_retry_after_raises(value):
    seconds = retry_after_seconds(value, NOW)
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER_SECONDS
