"""MCP messages and their answers: JSON-RPC as values, without network access.

Follows the specification's revisions 2024-11-05 to 2025-11-25, which begin with ``initialize``
(modelcontextprotocol.io/specification/2025-11-25/basic/lifecycle), and enough of 2026-07-28, which has no handshake, to
distinguish a server of that revision from a broken one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

JSON_TYPE = "application/json"
SSE_TYPE = "text/event-stream"

# The revisions of the agents' client: langchain-mcp-adapters 0.3 with mcp below 2. It requests the newest of them.
CLIENT_REVISIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
STATELESS_REVISION = "2026-07-28"

METHOD_NOT_FOUND = -32601
UNSUPPORTED_PROTOCOL_VERSION = -32022
# The errors of a server of 2026-07-28 for a handshake: unknown method, wrong headers, missing capability, unsupported
# revision.
STATELESS_CODES = frozenset({METHOD_NOT_FOUND, -32020, -32021, UNSUPPORTED_PROTOCOL_VERSION})


Message = dict[str, Any]


class ProtocolViolation(ValueError):
    """An answer violates the MCP specification. The message is a clause with the subject "the server"."""


@dataclass(frozen=True)
class RpcError:
    """A JSON-RPC error: its code and its message, in the server's own words."""

    code: int
    message: str


@dataclass(frozen=True)
class Identity:
    """A server's name, version and revision, as it gives them; of several revisions the newest."""

    protocol_version: str
    name: str | None = None
    version: str | None = None


def initialize_request(request_id: int, client_version: str) -> Message:
    """Return the first message of a handshake, without capabilities."""
    params = {
        "protocolVersion": CLIENT_REVISIONS[0],
        "capabilities": {},
        "clientInfo": _client_info(client_version),
    }
    return {"jsonrpc": "2.0", "id": request_id, "method": "initialize", "params": params}


def initialized_notification() -> Message:
    """Return the message that ends a handshake."""
    return {"jsonrpc": "2.0", "method": "notifications/initialized"}


def discover_request(request_id: int, client_version: str) -> Message:
    """Return the request that every server of 2026-07-28 must answer, with the required fields of that revision."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": STATELESS_REVISION,
        "io.modelcontextprotocol/clientInfo": _client_info(client_version),
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    return {"jsonrpc": "2.0", "id": request_id, "method": "server/discover", "params": {"_meta": meta}}


def tools_request(request_id: int, cursor: str | None) -> Message:
    """Return the request for a page of the list of tools: the first page, or the page of `cursor`."""
    params = {} if cursor is None else {"cursor": cursor}
    return {"jsonrpc": "2.0", "id": request_id, "method": "tools/list", "params": params}


def _client_info(version: str) -> Message:
    return {"name": "nautobot-app-ai-ops", "version": version}


def discovered_identity(result: Message) -> Identity:
    """Read the result of ``server/discover``.

    Raises:
        ProtocolViolation: The result names no revision.
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
