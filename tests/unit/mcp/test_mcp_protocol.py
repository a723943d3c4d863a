"""MCP's messages read without a network: what counts as an answer, and what is replied to a server."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_ops.mcp.http.answers import answer_of, initialized_identity, message_in, next_cursor, refusal_in, reply_to
from ai_ops.mcp.logic.protocol import (
    CLIENT_REVISIONS,
    ProtocolViolation,
    RpcError,
    discover_request,
    discovered_identity,
    initialize_request,
)
from ai_ops.mcp.logic.verdicts import MAX_RETRY_AFTER_SECONDS, retry_after_seconds

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
        (answer(error={"code": -32603, "message": "no"}), RpcError(-32603, "no")),
        # of others, or to others
        (answer(2, result=WELL), None),
        (answer("x", result=WELL), None),
        (answer(2, error={"code": -32603, "message": "no"}), None),
        (answer(1, method="ping"), None),
        ({"jsonrpc": "2.0", "method": "notifications/message"}, None),
        # the same id to the agents' client
        (answer("1", result=WELL), WELL),
        (answer(" 1 ", result=WELL), WELL),
    ],
)
def test_only_the_answer_to_the_request_counts(message, expected):
    assert answer_of(message_in(encoded(message)), 1) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"null",
        b"3",
        b'"text"',
        b"[1]",
        b"[]",
        encoded([answer(result=WELL)]),
        encoded(answer(1.0, result=WELL)),
        encoded(answer(None, error={"code": -32600, "message": "no"})),
        b"{}",
        b'{"jsonrpc": "1.0", "id": 1, "result": {}}',
        b'{"jsonrpc": "2.0", "id": 1, "result": []}',
        b'{"jsonrpc": "2.0", "id": 1}',
        b'{"jsonrpc": "2.0", "id": 1, "error": "no"}',
        b'{"jsonrpc": "2.0", "id": 1, "error": {"code": "no"}}',
        '{"jsonrpc": "2.0"}'.encode("utf-16"),
        b"[" * 100_000,
        b"1" * 10_000,
    ],
)
def test_what_is_no_json_rpc_is_told_apart_from_what_answers_another(body):
    with pytest.raises(ProtocolViolation):
        message_in(body)


@given(st.binary(max_size=200))
def test_no_bytes_at_all_raise_anything_else(body):
    with contextlib.suppress(ProtocolViolation):
        answer_of(message_in(body), 1)
    refusal_in(body)


@pytest.mark.parametrize("missing", ["protocolVersion", "capabilities", "serverInfo"])
def test_the_result_of_initialize_needs_what_the_agents_client_needs(missing):
    with pytest.raises(ProtocolViolation):
        initialized_identity({key: value for key, value in WELL.items() if key != missing})


def test_a_page_of_tools_is_read_by_the_types_of_the_agents_client():
    assert next_cursor({"tools": [], "nextCursor": "more"}) == "more"
    assert next_cursor({"tools": [{"name": "a", "inputSchema": {}}], "nextCursor": ""}) is None
    for tool in ({"name": "a"}, {"name": "a", "inputSchema": {}, "outputSchema": []}, "a"):
        with pytest.raises(ProtocolViolation, match=r"tools\.0"):
            next_cursor({"tools": [tool]})


def test_what_is_wrong_is_named_without_what_is_there_instead():
    with pytest.raises(ProtocolViolation) as violation:
        initialized_identity({**WELL, "instructions": ["s3cret"], "capabilities": {"tools": "s3cret"}})
    assert "answered initialize with an invalid capabilities.tools" in str(violation.value)
    assert "s3cret" not in str(violation.value)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (answer(None, error={"code": -32600, "message": "no"}), RpcError(-32600, "no")),
        (answer(7, error={"code": -32600, "message": "no"}), RpcError(-32600, "no")),
        (answer(result=WELL), None),
        ({"error": "no"}, None),
    ],
)
def test_a_refusal_is_heard_whatever_id_it_has(body, error):
    assert refusal_in(encoded(body)) == error


@pytest.mark.parametrize(
    ("method", "params", "expected"),
    [
        ("ping", None, {"result": {}}),
        ("roots/list", None, {"error": {"code": -32600, "message": "List roots not supported"}}),
        ("no/such", None, {"error": {"code": -32602, "message": "Invalid request parameters", "data": ""}}),
        (
            "sampling/createMessage",
            {"bad": 1},
            {"error": {"code": -32602, "message": "Invalid request parameters", "data": ""}},
        ),
    ],
)
def test_a_server_that_asks_gets_the_reply_that_the_agents_client_gives(method, params, expected):
    request = {"jsonrpc": "2.0", "id": "s1", "method": method} | ({"params": params} if params else {})
    assert reply_to(message_in(encoded(request))) == {"jsonrpc": "2.0", "id": "s1", **expected}


def test_a_discovered_server_is_known_by_its_newest_revision():
    found = discovered_identity({"supportedVersions": ["2026-07-28", "2026-01-01"], "serverInfo": {"name": "x"}})
    assert (found.protocol_version, found.name, found.version) == ("2026-07-28", "x", None)
    assert discovered_identity({"supportedVersions": ["2026-07-28"], "_meta": 3}).name is None
    for result in ({}, {"supportedVersions": []}, {"supportedVersions": [1]}, {"supportedVersions": "2026"}):
        with pytest.raises(ProtocolViolation):
            discovered_identity(result)
    assert discover_request(2, "0")["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"


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
