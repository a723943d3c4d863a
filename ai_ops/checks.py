"""Checks that run before Nautobot serves or migrates: for invalid settings, and for the public package nautobot-ai-ops.

That package is another app with the same import name, label and address. The first migration of both is called
`0001_initial`. Django would take the other app's for this app's, skip it, and apply the next migrations to the other
app's tables until one fails.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any

from django.core.checks import CheckMessage, Error
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.migrations.recorder import MigrationRecorder

from ai_ops.config import AiOpsSettings
from ai_ops.exceptions import ConfigurationError

PACKAGE = "nautobot-ai-ops"
HOW_TO = (
    'See how to migrate in this app\'s documentation, under Administrator Guide, "Coming from nautobot-ai-ops": '
    "docs/admin/coming_from_nautobot_ai_ops.md."
)
# The tables of all its versions, 1.0.0 to 2.0.0.
ITS_TABLES = frozenset(
    f"ai_ops_{name}" for name in ("llmmiddleware", "llmmodel", "llmprovider", "middlewaretype", "systemprompt")
)
# A table that this app's first migration creates, and the other app does not have.
OWN_TABLE = "ai_ops_provisioningrecord"
FIRST_MIGRATION = ("ai_ops", "0001_initial")


def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Report an invalid setting of this app at start-up, when an administrator can change it."""
    try:
        AiOpsSettings.load()
    except ConfigurationError as error:
        return [Error(str(error), hint="Change it in nautobot_config.py.", id="ai_ops.E001")]
    return []


def confirm_installed_alone() -> None:
    """Confirm that the files of nautobot-ai-ops are not installed among this app's.

    Raises:
        ImproperlyConfigured: Such files are installed.
    """
    if any(metadata.distributions(name=PACKAGE)):
        raise ImproperlyConfigured(
            f"The package {PACKAGE} is installed beside this app, and both have their files in the same folder ai_ops. "
            f"Uninstall both, then install the one that you want. {HOW_TO}"
        )


def refuse_its_database(sender: Any, using: str = DEFAULT_DB_ALIAS, **_: Any) -> None:
    """Refuse to migrate a database of nautobot-ai-ops; receives `pre_migrate`.

    Raises:
        CommandError: The database has tables or records of the other package.
    """
    connection = connections[using]
    tables = set(connection.introspection.table_names())
    if theirs := sorted(ITS_TABLES & tables):
        found = f"has the tables {', '.join(theirs)}"
    elif OWN_TABLE not in tables and FIRST_MIGRATION in MigrationRecorder(connection).applied_migrations():
        found = (
            f'has the migration "{".".join(FIRST_MIGRATION)}" on record, and not the table {OWN_TABLE} that it makes'
        )
    else:
        return
    raise CommandError(
        f"This database {found}: they belong to the package {PACKAGE}, another app with the same "
        f"name. Nothing has been migrated. Export its MCP servers and remove it before you install this app. {HOW_TO}"
    )
