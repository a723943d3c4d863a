"""Permission to decide where the credentials of an MCP server are sent.

Agents and health checks send a server's token wherever its row says. A user who may edit servers, and may not see
secrets, must not get a token by pointing its server at a machine of their own.
"""

from __future__ import annotations

from typing import Any

from nautobot.extras.models import SecretsGroup
from nautobot.extras.signals import change_context_state

# Fields that say where the credentials go, and to what they are proven. A path counts: behind one gateway live the
# servers of many. An unverified certificate, or another CA's, lets another machine answer for the server.
DESTINATION = ("protocol", "url", "mcp_endpoint", "health_check", "verify_tls", "ca_file")

CREDENTIALS = "secrets_group"


def refused_changes(server: Any) -> dict[str, str]:
    """Return why the user of this change may not send the server's credentials to its new destination.

    Args:
        server: An MCPServer with the values it is to have.

    Returns:
        A sentence by field; empty where the change is allowed. Without a user, as in a shell, everything is.
    """
    context = change_context_state.get()
    user = context.get_user(server) if context else None
    if user is None or server.secrets_group_id is None or user.is_superuser:
        return {}
    names = ("secrets_group_id", *DESTINATION)
    before = type(server).objects.filter(pk=server.pk).values(*names).first()
    changed = [name for name in names if before is None or before[name] != getattr(server, name)]
    if not changed or _may_view(user, server.secrets_group_id):
        return {}
    if "secrets_group_id" in changed:
        return {
            CREDENTIALS: "Choose a secrets group that you may view: its secrets are sent to the server's address. "
            "Or ask a user who may view this one to make the change."
        }
    return dict.fromkeys(
        changed,
        "The server's secrets are sent where this field says, and you may not view its secrets group. Ask a user who "
        "may view it to make the change, or remove the secrets group first.",
    )


def _may_view(user: Any, pk: Any) -> bool:
    return SecretsGroup.objects.restrict(user, "view").filter(pk=pk).exists()
