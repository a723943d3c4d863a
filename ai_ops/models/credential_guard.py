"""Permission to change the destination of an MCP server's credentials.

Agents and health checks send a server's token to the address in its row. A user with the permission to edit servers,
but not to view secrets, must not get a token by changing this address to a machine of their own.
"""

from __future__ import annotations

from typing import Any

from nautobot.extras.models import SecretsGroup
from nautobot.extras.signals import change_context_state

# Fields that decide where the credentials are sent and how the destination is verified. A path counts, because a
# gateway may serve the servers of many owners. An unverified certificate, or one of another CA, lets another machine
# impersonate the server.
DESTINATION = ("protocol", "url", "mcp_endpoint", "health_check", "verify_tls", "ca_file")

CREDENTIALS = "secrets_group"


def refused_changes(server: Any) -> dict[str, str]:
    """Return the reasons why the user of this change may not send the server's credentials to its new destination.

    Args:
        server: An MCPServer with its new values.

    Returns:
        A sentence by field; empty if the change is allowed. Without a user, as in a shell, every change is allowed.
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
            CREDENTIALS: "Choose a secrets group that you may view, because its secrets are sent to the server's "
            "address. Or ask a user with access to this group to make the change."
        }
    return dict.fromkeys(
        changed,
        "This field decides where the server's secrets are sent, and you may not view its secrets group. Ask a user "
        "with access to the group to make the change, or remove the secrets group first.",
    )


def _may_view(user: Any, pk: Any) -> bool:
    return SecretsGroup.objects.restrict(user, "view").filter(pk=pk).exists()
