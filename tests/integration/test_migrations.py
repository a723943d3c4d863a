"""The squashed migration, which new installations run in place of those that it replaces."""

from __future__ import annotations

import importlib

import pytest
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.state import ModelState, ProjectState
from nautobot.core.management.commands import custom_deconstruct

from ai_ops import migrations

SQUASHED = "0001_squashed_0019_hours_of_checks"


def migration(name: str):
    return importlib.import_module(f"{migrations.__name__}.{name}").Migration(name, "ai_ops")


def models_after(*names: str) -> dict[tuple[str, str], object]:
    """The app's models as these migrations leave them."""
    state = ProjectState()
    for name in names:
        state = migration(name).mutate_state(state, preserve=False)
    return {key: described(model) for key, model in state.models.items()}


def described(model: ModelState):
    # As Nautobot's commands compare fields: without help texts and names.
    fields = {name: custom_deconstruct(field)[1:] for name, field in model.fields.items()}
    options = dict(model.options)
    parts = {name: sorted(map(repr, options.pop(name, ()))) for name in ("indexes", "constraints")}
    unique = {name: {tuple(each) for each in options.pop(name, ())} for name in ("unique_together", "index_together")}
    return fields, parts, unique, options, model.bases, [name for name, _ in model.managers]


def test_the_squashed_migration_makes_what_those_that_it_replaces_make():
    replaced = [name for _, name in migration(SQUASHED).replaces]
    assert models_after(SQUASHED) == models_after(*replaced)
    assert len(replaced) == 19


@pytest.mark.django_db
def test_a_new_installation_has_run_it_and_one_that_ran_the_others_has_nothing_left_to_run():
    applied = {name for app, name in MigrationLoader(connection).applied_migrations if app == "ai_ops"}
    replaced = {name for _, name in migration(SQUASHED).replaces}
    assert applied >= {SQUASHED, *replaced}
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'ai_ops' AND name = %s", [SQUASHED])
    loader = MigrationLoader(connection)
    # Django takes it for run where all others are on record.
    assert ("ai_ops", SQUASHED) in loader.applied_migrations
