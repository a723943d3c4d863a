"""Lists the tools of one MCP server, in a session of its own that ends as a probe's does."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from ai_ops.adapters.http_body import MAX_BODY_BYTES
from ai_ops.adapters.http_failures import Failure, Wording
from ai_ops.adapters.probe_attempt import Attempt, Refused, Target
from ai_ops.core.health import Probe, Reason
from ai_ops.core.mcp_protocol import ProtocolViolation, RpcError, tools_request
from ai_ops.core.tools import MAX_LIST_BYTES, Tool, ToolReader

# The handshake used up the first ids.
FIRST_REQUEST_ID = 10


@dataclass(frozen=True)
class Listing:
    """What came of asking a server for its tools.

    Attributes:
        probe: How it went, in the words of a probe. It says nothing about the server's health.
        tools: What it lists; None where the list could not be had, which is not the same as no tools.
    """

    probe: Probe
    tools: tuple[Tool, ...] | None = None


class ToolListing(Attempt):
    """One listing on its way; the time by which it has to be done is that of the whole of it."""

    def __init__(self, client: httpx.Client, target: Target, started: float, timeout: float) -> None:
        super().__init__(client, target, started, timeout)
        self._started = started
        self._wording = Wording("MCP endpoint", "lists its tools as MCP says and within the limits", target.credentials)
        # Many servers send the whole list as one event.
        self._event_limit = MAX_BODY_BYTES
        self._tools: tuple[Tool, ...] | None = None

    def listed(self) -> Listing:
        """Shake hands, list all pages, take leave."""
        outcome = self._outcome(self._shake_hands)
        probe = outcome.as_probe(round((time.monotonic() - self._started) * 1000, 1))
        return Listing(probe, self._tools if probe.ok else None)

    def _use_session(self, headers: Mapping[str, str]) -> None:
        credentials = self._target.credentials
        reader = ToolReader(credentials.hide_in) if credentials else ToolReader()
        request_id, cursor = FIRST_REQUEST_ID, None
        while True:
            with self._post(tools_request(request_id, cursor), headers) as response:
                answer = self._read_answer(response, request_id)
            if isinstance(answer, RpcError):
                raise self._refused_to_list(answer)
            if self._received > MAX_LIST_BYTES:
                raise ProtocolViolation(f"sent a list longer than {MAX_LIST_BYTES // 1024:,} KiB")
            cursor = reader.add(answer)
            if cursor is None:
                break
            request_id += 1
        self._tools = reader.tools()

    def _refused_to_list(self, error: RpcError) -> Refused:
        return Refused(
            Failure(
                Reason.PROTOCOL,
                f"was answered with the JSON-RPC error {error.code} ({self._wording.clean(error.message)})",
                "agents can't list its tools either, so look into the server's log, or correct the MCP endpoint",
            )
        )
