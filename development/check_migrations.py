"""Fails when a model has changed without a migration; needs no database."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nautobot


def main() -> int:
    """Compare the models with the migrations' last state; give the exit code."""
    os.environ.setdefault("NAUTOBOT_ROOT", str(Path(__file__).resolve().parent.parent / ".state" / "nautobot"))
    nautobot.setup(str(Path(__file__).with_name("nautobot_config.py")))
    from django.apps import apps
    from django.db.migrations.autodetector import MigrationAutodetector
    from django.db.migrations.loader import MigrationLoader
    from django.db.migrations.state import ProjectState

    loader = MigrationLoader(None, ignore_no_initial=True)
    detector = MigrationAutodetector(loader.project_state(), ProjectState.from_apps(apps))
    changes = detector.changes(graph=loader.graph, trim_to_apps={"ai_ops"}, convert_apps={"ai_ops"})
    for migration in changes.get("ai_ops", []):
        for operation in migration.operations:
            print(f"Missing migration: {operation.describe()}. Run nautobot-server makemigrations ai_ops.")
    return 1 if changes.get("ai_ops") else 0


if __name__ == "__main__":
    sys.exit(main())
