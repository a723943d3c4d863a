"""Waiting for what two transactions do to each other."""

from django.db import connection


def wait_for_a_lock() -> None:
    """Return when another connection waits for what this transaction holds."""
    with connection.cursor() as cursor:
        for _ in range(1000):
            cursor.execute("SELECT pg_sleep(0.01), count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[1]:
                return
    raise AssertionError("No connection waits.")
