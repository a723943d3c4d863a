"""The MCP client that the agents of a process share, and its connections to servers."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_mcp_adapters.sessions import Connection, StreamableHttpConnection

from ai_ops.choices import MCPProtocolChoices, MCPServerStatus
from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import CredentialsError
from ai_ops.mcp.generation import current_generation
from ai_ops.mcp.http.attempt import SHARE_FOR_LEAVING
from ai_ops.mcp.http.tls import CAFileError, ssl_context
from ai_ops.mcp.http.transports import ClientFactory, HeaderAuth
from ai_ops.mcp.logic.credentials import Credentials
from ai_ops.mcp.secrets import read_credentials
from ai_ops.models import MCPServer, MCPServerTool


@dataclass(frozen=True)
class UsableServer:
    """A server whose tools agents may use.

    Attributes:
        pk: Its primary key.
        name: Its name.
        changed: Time of the last change of its row.
        seconds: Time limit for loading its tools, the same as for a probe.
        connection: The connection's options; None if there is a `problem`.
        problem: Reason why its credentials or its CA file can't be used, without their content.
        credentials: The credentials sent to the server.
        rejected: Names of its tools that a user has rejected. Agents do not get them.
    """

    pk: UUID
    name: str
    changed: datetime
    seconds: float
    connection: Connection | None = None
    problem: str = ""
    credentials: Credentials | None = field(default=None, repr=False)
    rejected: frozenset[str] = frozenset()

    def hide_in(self, text: str) -> str:
        """Return `text` without the server's credentials."""
        return self.credentials.hide_in(text) if self.credentials else text


@dataclass(frozen=True)
class _Built:
    generation: int
    client: MultiServerMCPClient


_lock = threading.Lock()
_built: _Built | None = None


def get_mcp_client() -> MultiServerMCPClient:
    """Return this process's client for the Healthy HTTP servers; it is rebuilt after any change to a server.

    Call this at the start of each request, and do not keep the client longer. It reads the database and secrets: from a
    coroutine call ``sync_to_async(get_mcp_client)()``. For tools use `ai_ops.agents.tools.get_tools`. This client's own
    ``get_tools()`` fails completely if one server fails, and includes rejected tools. Of two tools with the same name
    it returns the last one, unless the setting `prefix_tool_names` is on.
    """
    global _built
    generation = current_generation()
    with _lock:
        if _built is not None and _built.generation == generation:
            return _built.client
    client = MultiServerMCPClient(
        {server.name: server.connection for server in usable_servers() if server.connection is not None},
        tool_name_prefix=AiOpsSettings.load().prefix_tool_names,
    )
    with _lock:
        if current_generation() == generation:
            _built = _Built(generation, client)
    return client


def usable_servers() -> list[UsableServer]:
    """Return the Healthy HTTP servers with their connections. Reads the database and the secrets."""
    settings = AiOpsSettings.load()
    servers = MCPServer.objects.filter(protocol=MCPProtocolChoices.HTTP, status__name=MCPServerStatus.HEALTHY)
    rejected: dict[UUID, set[str]] = defaultdict(set)
    for pk, name in MCPServerTool.objects.filter(rejected__isnull=False).values_list("server", "name"):
        rejected[pk].add(name)
    usable = [_usable(server, settings) for server in servers.select_related("secrets_group")]
    return [replace(each, rejected=frozenset(rejected[each.pk])) for each in usable]


def _usable(server: MCPServer, settings: AiOpsSettings) -> UsableServer:
    seconds = settings.check_timeout
    try:
        credentials = read_credentials(server)
        context = ssl_context(
            verify=server.verify_tls,
            ca_file=server.ca_file or settings.ca_file,
            directories=settings.folders_of_ca_files,
        )
    except (CredentialsError, CAFileError) as error:
        return UsableServer(server.pk, server.name, server.last_updated, seconds, problem=str(error))
    connection = StreamableHttpConnection(
        transport="streamable_http",
        url=server.mcp_url,
        httpx_client_factory=ClientFactory(
            context, allow_loopback=settings.allow_loopback, leaving=settings.check_timeout * SHARE_FOR_LEAVING
        ),
    )
    if credentials is not None:
        # Not in the connection's headers, which appear in its repr.
        connection["auth"] = HeaderAuth(server.mcp_url, credentials)
    return UsableServer(server.pk, server.name, server.last_updated, seconds, connection, credentials=credentials)
