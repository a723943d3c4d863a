"""Parsing of an MCP server's messages with the types of the official SDK, as in the agents' client.

Agents can use exactly the answers that these types accept. Errors quote only the names of an answer's fields.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, TypeVar

from mcp.types import (
    ErrorData,
    InitializeResult,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    ListToolsResult,
    ServerRequest,
)
from pydantic import BaseModel, ValidationError

from ai_ops.mcp.logic.protocol import Identity, Message, ProtocolViolation, RpcError

Model = TypeVar("Model", bound=BaseModel)
Received = JSONRPCRequest | JSONRPCNotification | JSONRPCResponse | JSONRPCError

INVALID_REQUEST, INVALID_PARAMS = -32600, -32602

# Pydantic returns all errors or none, and reporting a long list of errors takes seconds.
MAX_ERRORS = 1_000

# The answers of the agents' client, which supports none of these, to requests of a server.
_NOT_OFFERED = {
    "sampling/createMessage": "Sampling not supported",
    "elicitation/create": "Elicitation not supported",
    "roots/list": "List roots not supported",
}


def message_in(text: bytes | str) -> Received:
    """Parse a JSON-RPC message.

    Raises:
        ProtocolViolation: The text is not a JSON-RPC message.
    """
    with suppress(ValidationError):
        response = JSONRPCResponse.model_validate_json(text)
        # Without a method or an error it must be a response. The union below would take eight times as long.
        if not response.model_extra:
            return response
    try:
        return JSONRPCMessage.model_validate_json(text).root
    except ValidationError as error:
        if error.errors(include_url=False, include_context=False, include_input=False)[0]["type"] == "json_invalid":
            raise ProtocolViolation("sent a body that is not JSON in UTF-8") from None
        if text.lstrip()[:1] in (b"[", "["):
            raise ProtocolViolation("sent a batch of messages, which MCP no longer has") from None
        raise ProtocolViolation("sent JSON that is not JSON-RPC 2.0") from None


def answer_of(received: Received, request_id: int) -> Message | RpcError | None:
    """Return the result or the error with which a message answers the request; None for another message.

    An id returned as text counts as the same id, as in the agents' client.
    """
    if not isinstance(received, JSONRPCResponse | JSONRPCError):
        return None
    try:
        if int(received.id) != request_id:
            return None
    except ValueError:
        return None
    if isinstance(received, JSONRPCError):
        return RpcError(received.error.code, received.error.message)
    return received.result


def refusal_in(body: bytes) -> RpcError | None:
    """Return the JSON-RPC error in a body, with any id: a server that could not read a request does not know it."""
    try:
        received = message_in(body)
        return RpcError(received.error.code, received.error.message) if isinstance(received, JSONRPCError) else None
    except ProtocolViolation:
        return _error_without_id(body)


class _ErrorWithoutId(BaseModel):
    error: ErrorData


def _error_without_id(body: bytes) -> RpcError | None:
    try:
        error = _ErrorWithoutId.model_validate_json(body).error
    except ValidationError:
        return None
    return RpcError(error.code, error.message)


def reply_to(request: JSONRPCRequest) -> Message:
    """Answer a request of the server as the agents' client does: a ping with a result, others with an error."""
    known = {"jsonrpc": "2.0", "id": request.id}
    try:
        ServerRequest.model_validate(request.model_dump(by_alias=True, mode="json", exclude_none=True))
    except ValidationError:
        return known | {"error": {"code": INVALID_PARAMS, "message": "Invalid request parameters", "data": ""}}
    if request.method == "ping":
        return known | {"result": {}}
    message = _NOT_OFFERED.get(request.method, "Not supported")
    return known | {"error": {"code": INVALID_REQUEST, "message": message}}


def initialized_identity(result: Message) -> Identity:
    """Read the result of ``initialize``.

    Raises:
        ProtocolViolation: The agents' client can't read it.
    """
    parsed = _read(InitializeResult, result, "initialize")
    return Identity(str(parsed.protocolVersion), parsed.serverInfo.name, parsed.serverInfo.version)


def next_cursor(result: Message) -> str | None:
    """Parse a page of ``tools/list``; return the cursor of the next page, None for the last page.

    Raises:
        ProtocolViolation: The agents' client can't read it.
    """
    return _read(ListToolsResult, result, "tools/list").nextCursor or None


def _read(model: type[Model], result: Message, method: str) -> Model:
    try:
        return model.model_validate(result)
    except ValidationError as error:
        raise ProtocolViolation(_first_fault(error, method)) from None


def _first_fault(error: ValidationError, method: str) -> str:
    """Return the first invalid part and pydantic's reason, without the value of the part."""
    if error.error_count() > MAX_ERRORS:
        return f"answered {method} with {error.error_count():,} invalid parts"
    first: Any = error.errors(include_url=False, include_context=False, include_input=False)[0]
    # Names of fields and indexes, without keys that the server has chosen.
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"answered {method} without {place}"
    return f"answered {method} with an invalid {place} ({first['msg']})"
