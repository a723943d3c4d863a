"""The databases: the live one, and a template that is copied for the tests within seconds.

Nautobot's own migrations take minutes of pure Python. So beside this file is a compressed dump of the core schema of
one version of Nautobot: it is restored, and then only this app's migrations run. For any other version of Nautobot all
migrations run.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import lzma
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

import psycopg2
from psycopg2 import sql

from development.services import PG_INSTALL, PROJECT, STATE, TEMPLATE_DATABASE, ServiceError, postgres_package

HERE = Path(__file__).resolve().parent
BUILD_DATABASE = "ai_ops_build"  # becomes the template when it is complete
MIGRATED_DATABASE = "ai_ops_migrated"  # the template, migrated by code that has changed since
CORE_CONFIG = HERE / "core_config.py"


def snapshot_path(version: str) -> Path:
    """Return the path of the dump for this version of Nautobot; it may not exist."""
    return HERE / f"nautobot-{version}.sql.xz"


def nautobot_version() -> str:
    """Return the installed version of Nautobot."""
    return metadata.version("nautobot")


def connect(env: dict[str, str], database: str = "postgres") -> psycopg2.extensions.connection:
    """Open a connection that commits each statement, as CREATE DATABASE requires."""
    connection = psycopg2.connect(
        host=env["NAUTOBOT_DB_HOST"],
        port=env.get("NAUTOBOT_DB_PORT", "5432"),
        user=env["NAUTOBOT_DB_USER"],
        password=env.get("NAUTOBOT_DB_PASSWORD", ""),
        dbname=database,
    )
    connection.autocommit = True
    return connection


def exists(env: dict[str, str], database: str) -> bool:
    """Return whether the server has this database."""
    with contextlib.closing(connect(env)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database])
        return cursor.fetchone() is not None


def execute(env: dict[str, str], statement: str, *names: str) -> None:
    """Run a statement whose ``{}`` are database names."""
    with contextlib.closing(connect(env)) as connection, connection.cursor() as cursor:
        cursor.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def manage(env: dict[str, str], database: str, *arguments: str, config: Path | None = None) -> None:
    """Run a nautobot-server command on `database`; show its output only if it fails."""
    env = env | {"NAUTOBOT_DB_NAME": database}
    if config:
        env["NAUTOBOT_CONFIG"] = str(config)
    result = subprocess.run(
        [Path(sys.executable).parent / "nautobot-server", *arguments],
        env=env,
        cwd=PROJECT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if result.returncode:
        raise ServiceError(f"nautobot-server {' '.join(arguments)} failed:\n{result.stdout[-4000:]}")


def schema_fingerprint() -> str:
    """Return the sources of the template's schema."""
    return _fingerprint(PROJECT / "ai_ops" / "migrations")


def code_fingerprint() -> str:
    """Return the files on which the rows of a migrated database may depend: provisioning, Jobs, models, migrations."""
    return _fingerprint(PROJECT / "ai_ops")


def _rows_fingerprint(env: Mapping[str, str]) -> str:
    """Return the files on which the rows of the tests' database depend: code and settings."""
    return _fingerprint(PROJECT / "ai_ops", HERE / "nautobot_config.py", Path(env["NAUTOBOT_CONFIG"]))


def _fingerprint(folder: Path, *others: Path) -> str:
    digest = hashlib.sha256(nautobot_version().encode())
    for path in [*sorted(folder.rglob("*.py")), snapshot_path(nautobot_version()), *others]:
        digest.update(path.read_bytes() if path.exists() else b"")
    return digest.hexdigest()


def prepare_template(env: dict[str, str]) -> None:
    """Update the template to the migrations, in one process at a time."""
    mark = STATE / "template.fingerprint"
    with _locked_template():
        wanted = schema_fingerprint()
        if not (_reads(mark, wanted) and exists(env, TEMPLATE_DATABASE)):
            mark.unlink(missing_ok=True)
            _build_template(env)
            (STATE / "template.rows").write_text(_rows_fingerprint(env))
            mark.write_text(wanted)


def prepare_migrated(env: dict[str, str], migrate: Callable[[str], None]) -> str:
    """Return a database with the rows that a migration by the current code gives: the template, or a copy of it.

    Args:
        env: The environment with the server and the settings of Nautobot.
        migrate: A function that migrates the database of this name, and closes its connections.
    """
    prepare_template(env)
    mark = STATE / "migrated.rows"
    with _locked_template():
        wanted = _rows_fingerprint(env)
        if _reads(STATE / "template.rows", wanted):
            return TEMPLATE_DATABASE
        if not (_reads(mark, wanted) and exists(env, MIGRATED_DATABASE)):
            mark.unlink(missing_ok=True)
            execute(env, "DROP DATABASE IF EXISTS {} WITH (FORCE)", MIGRATED_DATABASE)
            copy(env, TEMPLATE_DATABASE, MIGRATED_DATABASE)
            migrate(MIGRATED_DATABASE)
            mark.write_text(wanted)
        return MIGRATED_DATABASE


def copy(env: dict[str, str], database: str, name: str) -> None:
    """Copy a database that has no connections."""
    # The default strategy passes all pages through PostgreSQL's memory and its log, which takes longer.
    execute(env, "CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY", name, database)


@contextlib.contextmanager
def _locked_template() -> Iterator[None]:
    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / "template.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _reads(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


def _build_template(env: dict[str, str]) -> None:
    # Built under another name and renamed at the end, so that an interrupted build is never used.
    execute(env, "DROP DATABASE IF EXISTS {} WITH (FORCE)", BUILD_DATABASE)
    execute(env, "CREATE DATABASE {} TEMPLATE template0", BUILD_DATABASE)
    _restore_core(env, BUILD_DATABASE)
    manage(env, BUILD_DATABASE, "migrate", "--no-input")
    execute(env, "DROP DATABASE IF EXISTS {} WITH (FORCE)", TEMPLATE_DATABASE)
    execute(env, "ALTER DATABASE {} RENAME TO {}", BUILD_DATABASE, TEMPLATE_DATABASE)


def prepare_live(env: dict[str, str]) -> bool:
    """Create the database of the local Nautobot, with the core schema.

    Returns:
        Whether it needs a migration: it is new, or the code has changed since the last one.
    """
    name = env["NAUTOBOT_DB_NAME"]
    mark = STATE / "live.fingerprint"
    if not exists(env, name):
        execute(env, "CREATE DATABASE {} TEMPLATE template0", name)
    if _is_empty(env, name):
        mark.unlink(missing_ok=True)
        _restore_core(env, name)
    return not mark.exists() or mark.read_text() != code_fingerprint()


def _is_empty(env: dict[str, str], database: str) -> bool:
    with contextlib.closing(connect(env, database)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('public.django_migrations') IS NULL")
        return bool(cursor.fetchone()[0])


def _restore_core(env: dict[str, str], database: str) -> None:
    """Load the core schema if it has a snapshot."""
    snapshot = snapshot_path(nautobot_version())
    if snapshot.exists():
        restore(env, snapshot, database)
    else:
        print(
            f"No snapshot for Nautobot {nautobot_version()} is in development/, so all of Nautobot's migrations run: "
            "this takes about five minutes. `invoke snapshot` makes one.",
            flush=True,
        )


def live_is_current() -> None:
    """Record that the current code has migrated the live database."""
    (STATE / "live.fingerprint").write_text(code_fingerprint())


def restore(env: dict[str, str], snapshot: Path, database: str) -> None:
    """Load a snapshot into an empty database: all of it or nothing."""
    client = [_client("psql"), "--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1"]
    result = subprocess.run(
        [*client, *_address(env), "--output", os.devnull, "--dbname", database],
        input=lzma.decompress(snapshot.read_bytes()),
        env=env | {"PGPASSWORD": env.get("NAUTOBOT_DB_PASSWORD", "")},
        capture_output=True,
    )
    if result.returncode:
        raise ServiceError(f"{snapshot.name} could not be restored: {result.stderr.decode(errors='replace')}")


def make_snapshot(env: dict[str, str]) -> Path:
    """Migrate Nautobot alone from an empty database and dump it; this takes about five minutes.

    Returns:
        The written file; older snapshots are removed.
    """
    execute(env, "DROP DATABASE IF EXISTS {} WITH (FORCE)", BUILD_DATABASE)
    execute(env, "CREATE DATABASE {} TEMPLATE template0", BUILD_DATABASE)
    manage(env, BUILD_DATABASE, "migrate", "--no-input", config=CORE_CONFIG)
    dump = subprocess.run(
        # Without a fixed key every dump of the same schema would differ.
        [_client("pg_dump"), *_address(env), "--no-owner", "--no-privileges", "--restrict-key=AiOps", BUILD_DATABASE],
        env=env | {"PGPASSWORD": env.get("NAUTOBOT_DB_PASSWORD", "")},
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    for old in HERE.glob("nautobot-*.sql.xz"):
        old.unlink()
    path = snapshot_path(nautobot_version())
    path.write_bytes(lzma.compress(dump, preset=9 | lzma.PRESET_EXTREME))
    execute(env, "DROP DATABASE {} WITH (FORCE)", BUILD_DATABASE)
    return path


def snapshot_migrations(snapshot: Path) -> set[tuple[str, str]]:
    """Return the rows of django_migrations in a snapshot, as (app, name)."""
    text = lzma.decompress(snapshot.read_bytes()).decode()
    table = text.split("COPY public.django_migrations ", 1)[1].split("\n\\.\n", 1)[0]
    return {(row[1], row[2]) for row in (line.split("\t") for line in table.splitlines()[1:])}


def _client(name: str) -> str:
    return str(postgres_package() / PG_INSTALL / "bin" / name)


def _address(env: dict[str, str]) -> list[str]:
    return [
        *("--host", env["NAUTOBOT_DB_HOST"], "--port", env.get("NAUTOBOT_DB_PORT", "5432")),
        *("--username", env["NAUTOBOT_DB_USER"], "--no-password"),
    ]
