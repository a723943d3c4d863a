"""Secrets groups of MCP servers, read for probes and agents.

A group has access type HTTP(S) and either a Token, sent as ``Authorization: Bearer <token>``, or a Key and a Secret,
the name and the value of a header. Secrets are read on the thread that may use the ORM, and never stored.
"""

from __future__ import annotations

from nautobot.extras.choices import SecretsGroupAccessTypeChoices, SecretsGroupSecretTypeChoices
from nautobot.extras.models import Secret
from nautobot.extras.secrets.exceptions import SecretError

from ai_ops.exceptions import CredentialsError
from ai_ops.mcp.logic.credentials import Credentials
from ai_ops.models import MCPServer

_TOKEN = SecretsGroupSecretTypeChoices.TYPE_TOKEN
_HEADER_NAME = SecretsGroupSecretTypeChoices.TYPE_KEY
_HEADER_VALUE = SecretsGroupSecretTypeChoices.TYPE_SECRET


def read_credentials(server: MCPServer) -> Credentials | None:
    """Return the credentials of `server`; None if it has no secrets group.

    Raises:
        CredentialsError: The group can't be used. The message names it, without its content.
    """
    group = server.secrets_group
    if group is None:
        return None
    associations = group.secrets_group_associations.filter(access_type=SecretsGroupAccessTypeChoices.TYPE_HTTP)
    secrets = {each.secret_type: each.secret for each in associations.select_related("secret")}
    try:
        if _TOKEN in secrets and _HEADER_NAME not in secrets:
            return Credentials.bearer(_value(secrets[_TOKEN], server))
        if _TOKEN not in secrets and _HEADER_NAME in secrets and _HEADER_VALUE in secrets:
            value = _value(secrets[_HEADER_VALUE], server)
            return Credentials(_value(secrets[_HEADER_NAME], server), value, value)
        raise CredentialsError("it needs, of access type HTTP(S), either a Token, or a Key and a Secret")
    except CredentialsError as error:
        raise CredentialsError(f"the secrets group {group} can't be used: {error}") from None


def _value(secret: Secret, server: MCPServer) -> str:
    try:
        return str(secret.get_value(obj=server))
    except SecretError as error:
        # Only the type, because a provider's error may contain a token or a path of a vault.
        raise CredentialsError(f"the secret {secret} can't be read ({type(error).__name__})") from None
