"""Checks before Nautobot serves or migrates: the settings, and the public package nautobot-ai-ops.

That package is another app with this one's import name, label and address. Both call their first migration
`0001_initial`. Django would take the other's for this app's, skip it, and change the other's tables with the migrations
that follow, until one fails.
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
    'The way over is in this app\'s documentation, under Administrator Guide, "Coming from nautobot-ai-ops": '
    "docs/admin/coming_from_nautobot_ai_ops.md."
)
# Of all its versions, 1.0.0 to 2.0.0.
ITS_TABLES = frozenset(
    f"ai_ops_{name}" for name in ("llmmiddleware", "llmmodel", "llmprovider", "middlewaretype", "systemprompt")
)
# Made by this app's first migration, and by none of the other's.
OWN_TABLE = "ai_ops_provisioningrecord"
FIRST_MIGRATION = ("ai_ops", "0001_initial")


def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Report an invalid setting of this app while an administrator is there to change it."""
    try:
        AiOpsSettings.load()
    except ConfigurationError as error:
        return [Error(str(error), hint="Change it in nautobot_config.py.", id="ai_ops.E001")]
    return []


def confirm_installed_alone() -> None:
    """Confirm that the files of nautobot-ai-ops are not installed among this app's.

    Raises:
        ImproperlyConfigured: They do.
    """
    if any(metadata.distributions(name=PACKAGE)):
        raise ImproperlyConfigured(
            f"The package {PACKAGE} is installed beside this app, and both keep their files in the same folder ai_ops. "
            f"Uninstall both, then install the one that you want. {HOW_TO}"
        )


def refuse_its_database(sender: Any, using: str = DEFAULT_DB_ALIAS, **_: Any) -> None:
    """Refuse a migration of a database of nautobot-ai-ops before it begins; receives `pre_migrate`.

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
        f"This database {found}: they are those of the package {PACKAGE}, another app of the same name. "
        f"Nothing has been migrated. Export its MCP servers and remove it before you install this app. {HOW_TO}"
    )
