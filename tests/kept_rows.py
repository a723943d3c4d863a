"""The rows of the test database as they were, for tests that commit what they write."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from development import database

Run = Callable[[str], list[tuple[Any, ...]]]

OTHER_CONNECTIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
NOTES = """
CREATE SCHEMA kept;
CREATE UNLOGGED TABLE kept."of changed tables" (name text);
CREATE FUNCTION kept.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO kept."of changed tables" VALUES (TG_TABLE_NAME);
    RETURN NULL;
END $$
"""
KEEP = 'CREATE UNLOGGED TABLE kept."{0}" AS TABLE public."{0}"'
FILLED = """SELECT '{0}' WHERE EXISTS (SELECT FROM public."{0}")"""
WATCH = """
CREATE TRIGGER kept AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON public."{0}" EXECUTE FUNCTION kept.note()
"""
CHANGED = 'SELECT DISTINCT name FROM kept."of changed tables"'


class KeptRows:
    """A copy of all rows, in a schema of its own beside them, and a way to bring back those that have changed.

    Triggers note each table that is written to. Nothing of the database but its rows comes back: a test that
    commits another schema has to undo that itself.

    Args:
        env: Where the server is.
        name: The database.
    """

    def __init__(self, env: Mapping[str, str], name: str) -> None:
        self._env = dict(env)
        self._name = name
        with self._alone() as run:
            tables = [table for (table,) in run("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
            # Most are empty, and a new table is three files.
            filled = " UNION ALL ".join(FILLED.format(table) for table in tables)
            self._filled = {table for (table,) in run(filled)}
            run("; ".join([NOTES, *map(KEEP.format, self._filled), *map(WATCH.format, tables)]))

    def restore(self) -> list[str]:
        """Bring the rows back as they were; give the tables that had changed."""
        with self._alone() as run:
            changed = [table for (table,) in run(CHANGED)]
            deletions = [f'DELETE FROM public."{table}"' for table in changed]
            copies = [
                f'INSERT INTO public."{table}" TABLE kept."{table}"' for table in changed if table in self._filled
            ]
            # References are looked at when the transaction ends.
            begin = ["BEGIN", "SET CONSTRAINTS ALL DEFERRED"]
            run("; ".join([*begin, *deletions, *copies, 'TRUNCATE kept."of changed tables"', "COMMIT"]))
            return changed

    @contextlib.contextmanager
    def _alone(self) -> Iterator[Run]:
        """Give a function that runs statements on the database, which has no other connection then."""
        with contextlib.closing(database.connect(self._env, self._name)) as connection, connection.cursor() as cursor:

            def run(statement: str) -> list[tuple[Any, ...]]:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []

            run(OTHER_CONNECTIONS)
            yield run
