"""The tools that agents call, loaded from each server separately: a dead server removes only its own tools."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from asgiref.sync import sync_to_async
from langchain_core.tools import BaseTool
from langchain_mcp_adapters.client import MultiServerMCPClient

from ai_ops.agents.mcp_client import UsableServer, usable_servers
from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import CredentialsError
from ai_ops.mcp.generation import current_generation
from ai_ops.mcp.logic.tool_names import distinct_names
from ai_ops.mcp.logic.tools import is_among

logger = logging.getLogger(__name__)

# A failed server is retried after a pause, and not by each request, since each would wait for it.
RETRY_SECONDS = 10.0

# Known tools remain available during a restart of their server. After a longer outage the health check changes the
# status.
GRACE_SECONDS = 120.0

# Servers can change their tools, and secrets their values, without notice.
FRESH_SECONDS = 300.0

# If a server changes while tools are loaded, loading is repeated. This limit ends it if servers change all the time.
ATTEMPTS = 3


@dataclass(frozen=True)
class _Loaded:
    """The tools of a server from its last answer, and the time to ask it again (monotonic seconds)."""

    name: str
    changed: datetime
    tools: tuple[BaseTool, ...] = ()
    answered_at: float = float("-inf")
    ask_again_at: float = 0.0


@dataclass(frozen=True)
class _Built:
    generation: int
    servers: Mapping[UUID, _Loaded] = field(default_factory=dict)
    rejected: Mapping[UUID, frozenset[str]] = field(default_factory=dict)

    def tools(self, *, prefix_all: bool = False) -> list[BaseTool]:
        found: dict[tuple[UUID, str, str], BaseTool] = {}
        for pk, server in self.servers.items():
            for tool in server.tools:
                if not is_among(tool.name, self.rejected.get(pk, ())):
                    # Two tools of a server with the same name are one tool for agents: a model refuses both in a list.
                    found.setdefault((pk, server.name, tool.name), tool)
        names = distinct_names(list(found), always=prefix_all)
        return [
            tool if tool.name == name else tool.model_copy(update={"name": name})
            for tool, name in zip(found.values(), names, strict=True)
        ]

    def is_due(self, now: float) -> bool:
        return any(server.ask_again_at <= now for server in self.servers.values())


_built: _Built | None = None


async def get_tools(*, prefix_all: bool | None = None) -> list[BaseTool]:
    """Return the current tools of the Healthy servers, without those that a user has rejected.

    Tools with the same name on several servers get the name of their server as a prefix, such as ``Billing_pay``,
    because an agent would use only the last of two tools with one name. With `prefix_all` all tools get a prefix; by
    default the setting `prefix_tool_names` decides.

    Call this at the start of each request, and do not keep the tools longer. If a server does not answer within the
    setting `check_timeout`, its last tools are used for up to GRACE_SECONDS, then omitted. This raises no error.
    """
    global _built
    if prefix_all is None:
        prefix_all = AiOpsSettings.load().prefix_tool_names
    for _ in range(ATTEMPTS):
        generation = await sync_to_async(current_generation)()
        known = _built
        if known is not None and known.generation == generation and not known.is_due(time.monotonic()):
            return known.tools(prefix_all=prefix_all)
        built = await _build(generation, known)
        if await sync_to_async(current_generation)() == generation:
            _built = built
            break
    # The tools are returned but not stored if servers change faster than they answer. They are still newer than the
    # stored tools.
    return built.tools(prefix_all=prefix_all)


async def _build(generation: int, known: _Built | None) -> _Built:
    """Load the tools of new, changed or due servers concurrently; keep the tools of other servers."""
    servers = await sync_to_async(usable_servers)()
    before = known.servers if known else {}
    loaded = await asyncio.gather(*(_load(server, before.get(server.pk)) for server in servers))
    return _Built(
        generation,
        {server.pk: each for server, each in zip(servers, loaded, strict=True)},
        {server.pk: server.rejected for server in servers},
    )


async def _load(server: UsableServer, before: _Loaded | None) -> _Loaded:
    """Load the tools of a server. It catches all errors, so that a failing server loses only its own tools."""
    now = time.monotonic()
    if before is None or before.changed != server.changed:
        before = _Loaded(server.name, server.changed)
    elif before.ask_again_at > now:
        return before
    try:
        async with asyncio.timeout(server.seconds):
            tools = await _ask(server)
    except Exception as error:
        return _without_answer(server, before, now, error)
    return _Loaded(server.name, server.changed, tuple(tools), now, now + FRESH_SECONDS)


async def _ask(server: UsableServer) -> list[BaseTool]:
    if server.connection is None:
        raise CredentialsError(server.problem)
    client = MultiServerMCPClient({server.name: server.connection})
    return await client.get_tools(server_name=server.name)


def _without_answer(server: UsableServer, before: _Loaded, now: float, error: Exception) -> _Loaded:
    """Return the last tools of a failed server for a grace period. An error never counts as an empty list of tools."""
    in_grace = now - before.answered_at < GRACE_SECONDS
    tools = before.tools if in_grace else ()
    logger.warning(
        "The tools of %s could not be loaded (%s); %s. Asking again in %g s.",
        server.name,
        server.hide_in(_described(error)),
        f"agents keep its {len(tools)} known tools for now" if tools else "agents have no tools from it",
        RETRY_SECONDS,
    )
    # As text, because the traceback of the exception may contain the server's answer.
    logger.debug("%s", server.hide_in("".join(traceback.format_exception(error))))
    return replace(before, tools=tools, ask_again_at=now + RETRY_SECONDS)


def _described(error: BaseException) -> str:
    """Return the first cause inside the exception groups of the client."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
