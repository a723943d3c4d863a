"""The dump of the core schema is the one that the installed Nautobot would have made."""

import pytest
from django.db.migrations.loader import MigrationLoader

from development import database
from development.services import PROJECT


def test_snapshot_has_the_migrations_of_the_installed_nautobot():
    version = database.nautobot_version()
    if f"nautobot=={version}" not in (PROJECT / "requirements.txt").read_text().splitlines():
        pytest.skip("the snapshot is of the Nautobot in requirements.txt, and this is another")
    snapshot = database.snapshot_path(version)
    assert snapshot.exists(), "development/ has no snapshot for this Nautobot: run `invoke snapshot`"
    loader = MigrationLoader(connection=None)
    installed = {(app, name) for app, name in loader.disk_migrations if app != "ai_ops"}
    replaced = {each for migration in loader.disk_migrations.values() for each in migration.replaces}
    assert database.snapshot_migrations(snapshot) - replaced == installed - replaced
