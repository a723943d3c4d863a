"""Databases and environments of the public package nautobot-ai-ops are refused before anything is changed."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import pytest
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connection
from nautobot.apps.testing import TestCase, create_job_result_and_run_job

from ai_ops.checks import ITS_TABLES, OWN_TABLE, confirm_installed_alone, refuse_its_database
from ai_ops.models import MCPServer

DOCUMENT = Path(__file__).parents[2] / "docs/admin/coming_from_nautobot_ai_ops.md"
# Names of its migrations after the first, as its version 2.0.0 leaves them on record.
ITS_MIGRATIONS = (
    "0002_remove_llmmiddleware_ttl_and_more",
    "0003_systemprompt_llmmodel_system_prompt",
    "0004_llmmodel_model_config",
    "0005_move_endpoint_to_model_config",
    "0006_populate_default_data",
    "0007_remove_llmmodel_documentation_url",
    "0008_default_scheduled_jobs",
)


def execute(statement, *values):
    with connection.cursor() as cursor:
        cursor.execute(statement, values)


def records():
    with connection.cursor() as cursor:
        cursor.execute("SELECT app, name FROM django_migrations ORDER BY id")
        return cursor.fetchall()


@contextlib.contextmanager
def unchanged():
    before = records(), sorted(connection.introspection.table_names())
    yield
    assert (records(), sorted(connection.introspection.table_names())) == before


class DatabaseTest(TestCase):
    def forget_own(self):
        """Leave the database as this app has not seen it."""
        execute("DELETE FROM django_migrations WHERE app = 'ai_ops'")
        execute(f"ALTER TABLE {OWN_TABLE} RENAME TO somewhere_else")

    def record(self, *names):
        for name in names:
            execute("INSERT INTO django_migrations (app, name, applied) VALUES ('ai_ops', %s, now())", name)

    def test_its_database_is_refused(self):
        self.forget_own()
        self.record("0001_initial", *ITS_MIGRATIONS)
        for table in ITS_TABLES:
            execute(f"CREATE TABLE {table} (id uuid)")
        with unchanged(), pytest.raises(CommandError) as refusal:
            call_command("migrate", verbosity=0, skip_checks=True)
        for sentence in (
            "has the tables ai_ops_llmmiddleware, ai_ops_llmmodel",
            "Nothing has been migrated.",
            "coming_from_nautobot_ai_ops.md",
        ):
            assert sentence in str(refusal.value)

    def test_each_of_its_tables_alone_is_refused(self):
        for table in sorted(ITS_TABLES):
            with self.subTest(table):
                execute(f"CREATE TABLE {table} (id uuid)")
                # What the command calls first; the command itself takes a second.
                with pytest.raises(CommandError, match=f"has the tables {table}"):
                    refuse_its_database(sender=None)
                execute(f"DROP TABLE {table}")

    def test_its_records_without_its_tables_are_refused(self):
        self.forget_own()
        self.record("0001_initial")
        with pytest.raises(CommandError, match=r'has the migration "ai_ops\.0001_initial" on record'):
            refuse_its_database(sender=None)

    def test_a_database_of_this_app_is_not_refused(self):
        """The real command is run on one by the tests of provisioning."""
        refuse_its_database(sender=None)


class FileTest(TestCase):
    """Return the commands of the documentation to run before the other package is removed."""

    def test_the_servers_of_the_other_package_come_over_in_a_file(self):
        # Its model has fields of the same names, with the same values, as far as the script reads them.
        MCPServer.objects.create(
            name='Tickets, "old"', url="http://one.example.com:8000", description="two\nlines", mcp_type="external"
        )
        MCPServer.objects.create(name="local", protocol="stdio")
        script = DOCUMENT.read_text().split("```python\n", 1)[1].split("```", 1)[0]
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            exec(compile(script, "script", "exec"), {})
            exported = Path("mcp_servers.csv").read_text()
        before = list(MCPServer.objects.values("name", "url", "description", "mcp_type", "protocol", "status__name"))
        MCPServer.objects.all().delete()
        create_job_result_and_run_job(
            "nautobot.core.jobs",
            "ImportObjects",
            content_type=ContentType.objects.get_for_model(MCPServer).pk,
            csv_data=exported,
        )
        assert list(MCPServer.objects.values(*before[0])) == before


def test_both_packages_in_one_environment_are_refused(tmp_path, monkeypatch):
    confirm_installed_alone()
    folder = tmp_path / "nautobot_ai_ops-2.0.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.3\nName: nautobot-ai-ops\nVersion: 2.0.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImproperlyConfigured, match="Uninstall both, then install the one that you want"):
        confirm_installed_alone()
