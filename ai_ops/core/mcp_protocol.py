"""What is said to an MCP server and what its answers mean: JSON-RPC messages as values, no network.

Follows the specification's revisions 2024-11-05 to 2025-11-25, which begin with ``initialize``
(modelcontextprotocol.io/specification/2025-11-25/basic/lifecycle), and knows enough of 2026-07-28, which
has no handshake, to tell a server of that revision from a broken one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

JSON_TYPE = "application/json"
SSE_TYPE = "text/event-stream"

# What the agents' client speaks: langchain-mcp-adapters 0.3 with mcp below 2. It asks for the newest of them.
CLIENT_REVISIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
STATELESS_REVISION = "2026-07-28"

METHOD_NOT_FOUND = -32601
UNSUPPORTED_PROTOCOL_VERSION = -32022
# With these a server of 2026-07-28 answers a handshake it does not know: no such method, headers that do
# not match, a capability that is missing, a revision it does not speak.
STATELESS_CODES = frozenset({METHOD_NOT_FOUND, -32020, -32021, UNSUPPORTED_PROTOCOL_VERSION})

# Enough for every message of a handshake; a line or an event beyond it is refused instead of collected.
MAX_SSE_LINE_BYTES = 64 * 1024

# A server's name is shown in tables.
MAX_NAME_CHARACTERS = 100

Message = dict[str, Any]


class ProtocolViolation(ValueError):
    """An answer is not what MCP says it must be; the message goes on where "the server" begins."""


@dataclass(frozen=True)
class RpcError:
    """A JSON-RPC error: its code and its message, in the server's own words."""

    code: int
    message: str


@dataclass(frozen=True)
class Identity:
    """Who a server says it is, and which revision it speaks; of several the newest."""

    protocol_version: str
    name: str | None = None
    version: str | None = None


def initialize_request(request_id: int, client_version: str) -> Message:
    """The first message of a handshake, with no capabilities: the probe offers the server nothing."""
    params = {
        "protocolVersion": CLIENT_REVISIONS[0],
        "capabilities": {},
        "clientInfo": _client_info(client_version),
    }
    return {"jsonrpc": "2.0", "id": request_id, "method": "initialize", "params": params}


def initialized_notification() -> Message:
    """The message that ends a handshake."""
    return {"jsonrpc": "2.0", "method": "notifications/initialized"}


def discover_request(request_id: int, client_version: str) -> Message:
    """What a server of 2026-07-28 must answer, with what every request of that revision carries."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": STATELESS_REVISION,
        "io.modelcontextprotocol/clientInfo": _client_info(client_version),
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    return {"jsonrpc": "2.0", "id": request_id, "method": "server/discover", "params": {"_meta": meta}}


def tools_request(request_id: int, cursor: str | None) -> Message:
    """Ask for a page of the list of tools: the first, or the one that `cursor` stands for."""
    params = {} if cursor is None else {"cursor": cursor}
    return {"jsonrpc": "2.0", "id": request_id, "method": "tools/list", "params": params}


def _client_info(version: str) -> Message:
    return {"name": "nautobot-app-ai-ops", "version": version}


def answer_in(body: bytes, request_id: int) -> Message | RpcError | None:
    """Find the answer to a request in JSON, a message or a batch of them.

    Returns:
        The ``result``, or the error; None where there are only other messages. An error without an id
        counts: a server that could not read the request does not know its id.

    Raises:
        ProtocolViolation: It is no JSON-RPC.
    """
    try:
        parsed = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):  # no UTF-8, no JSON, a number of ten thousand digits, endless brackets
        raise ProtocolViolation("sent a body that is not JSON in UTF-8") from None
    for message in parsed if isinstance(parsed, list) else [parsed]:
        answer = _answer(message, request_id)
        if answer is not None:
            return answer
    return None


def _answer(message: Any, request_id: int) -> Message | RpcError | None:
    """What a message answers to the request; None if it is another message."""
    if not isinstance(message, Mapping) or message.get("jsonrpc") != "2.0":
        raise ProtocolViolation("sent JSON that is not JSON-RPC 2.0")
    error, message_id = message.get("error"), message.get("id")
    if error is not None and message_id in (request_id, None):
        if not isinstance(error, Mapping) or type(error.get("code")) is not int:
            raise ProtocolViolation("sent a JSON-RPC error without a code")
        return RpcError(error["code"], str(error.get("message", "")))
    # 1 == True == 1.0 in Python; to a JSON-RPC client they are different ids.
    if type(message_id) is not int or message_id != request_id or "method" in message:
        return None
    if not isinstance(message.get("result"), dict):
        raise ProtocolViolation("sent a JSON-RPC answer without a result")
    return dict(message["result"])


def initialized_identity(result: Message) -> Identity:
    """Read the result of ``initialize``, as strictly as the agents' client does.

    Raises:
        ProtocolViolation: Something that client needs is missing.
    """
    version, info = result.get("protocolVersion"), result.get("serverInfo")
    if not isinstance(version, str) or not version:
        raise ProtocolViolation("answered initialize without a protocolVersion")
    if not isinstance(result.get("capabilities"), dict):
        raise ProtocolViolation("answered initialize without capabilities")
    if not isinstance(info, dict) or not all(isinstance(info.get(key), str) for key in ("name", "version")):
        raise ProtocolViolation("answered initialize without its name and version")
    return Identity(version, info["name"], info["version"])


def discovered_identity(result: Message) -> Identity:
    """Read the result of ``server/discover``.

    Raises:
        ProtocolViolation: It names no revision.
    """
    versions = result.get("supportedVersions")
    if not isinstance(versions, list) or not versions or not all(isinstance(each, str) for each in versions):
        raise ProtocolViolation("answered server/discover without supportedVersions")
    meta = result.get("_meta")
    info = result.get("serverInfo") or (
        meta.get("io.modelcontextprotocol/serverInfo") if isinstance(meta, dict) else {}
    )
    info = info if isinstance(info, dict) else {}
    name, version = (info[key] if isinstance(info.get(key), str) else None for key in ("name", "version"))
    return Identity(max(versions), name, version)


class SSEDecoder:
    """Turns the bytes of a ``text/event-stream`` into the data of its events, line by line.

    After the HTML standard, section 9.2: events named other than "message" are left out, and so is an
    event that the stream's end cuts off. Holds one line and one event, each at most `limit` bytes.
    """

    def __init__(self, limit: int = MAX_SSE_LINE_BYTES) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._name = b""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the data of each event that `chunk` completes.

        Raises:
            ProtocolViolation: A line, or an event, is longer than the limit.
        """
        if b"\n" not in chunk and b"\r" not in chunk and not self._rest.endswith(b"\r"):
            # A long line that comes in many pieces is not looked through again for each of them.
            self._rest += chunk
            self._require_room(self._rest)
            return
        # A CR at the end may be half of a CRLF: it waits for what comes next.
        text = bytes(self._rest) + chunk
        held = b"\r" if text.endswith(b"\r") else b""
        *lines, rest = text.removesuffix(held).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = bytearray(rest + held)
        for line in [*lines, rest]:
            self._require_room(line)
        for line in lines:
            data = self._take(line)
            if data is not None:
                yield data

    def _require_room(self, line: bytes | bytearray) -> None:
        if len(line) > self._limit:
            raise ProtocolViolation(f"sent a line of events longer than {self._limit // 1024} KiB")

    def _take(self, line: bytes) -> bytes | None:
        """Add a line; return the event's data if the line ends one."""
        if not line:
            data, name = b"\n".join(self._data), self._name
            self._data, self._size, self._name = [], 0, b""
            return data if data and name in (b"", b"message") else None
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field.removeprefix(b"\xef\xbb\xbf") == b"data":
            self._size += len(value)
            if self._size > self._limit:
                raise ProtocolViolation(f"sent an event longer than {self._limit // 1024} KiB")
            self._data.append(value)
        elif field == b"event":
            self._name = value
        return None
