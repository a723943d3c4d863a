"""Sets Nautobot up for tests, in a process that runs them or that such processes are forks of."""

from __future__ import annotations

import gc
import os

from development.late_import import import_kubernetes_later
from tests.kept_rows import KeptRows
from tests.quicker_nautobot import repeat_less


def set_up_nautobot() -> None:
    """Set up Nautobot in this process."""
    # What is imported stays: to look through it for garbage, again and again, takes time.
    gc.disable()
    import_kubernetes_later()
    import nautobot

    nautobot.setup()
    gc.freeze()
    gc.enable()
    _restore_instead_of_flushing()
    _write_job_logs()
    repeat_less()
    from nautobot.core.celery import app, setup_nautobot_job_logging

    # As a worker does when it starts. Nautobot's test helpers do it at the first Job, so that a level which a
    # test sets for itself would be taken back to one that lets no line through to the Jobs of later tests.
    setup_nautobot_job_logging(sender=None, instance=None, conf=app.conf)


def _restore_instead_of_flushing() -> None:
    """Bring back the rows that a test has committed changes of; a flush would run Nautobot's post_migrate after each.

    They become what they were before the first of these tests, in a tenth of a second.
    """
    from django.db import connections
    from django.test import TransactionTestCase

    env = dict(os.environ)
    kept: list[KeptRows] = []

    def keep(_: type[TransactionTestCase]) -> None:
        if not kept:
            connections.close_all()
            kept.append(KeptRows(env, connections["default"].settings_dict["NAME"]))

    def restore(_: TransactionTestCase) -> None:
        connections.close_all()
        kept[0].restore()

    TransactionTestCase._fixture_setup = classmethod(keep)  # type: ignore[method-assign,assignment]
    TransactionTestCase._fixture_teardown = restore  # type: ignore[method-assign]


def _write_job_logs() -> None:
    """Write log lines of Jobs by the connection of the test, unless it names the one that Nautobot has for them.

    A test that may not use that one would have each line fail and its stack printed, in a quarter of a second.
    """
    from django.test import SimpleTestCase
    from nautobot.extras.models import jobs

    own_connection = jobs.JOB_LOGS
    allow, forbid = SimpleTestCase._add_databases_failures, SimpleTestCase._remove_databases_failures

    def begin(test_class: type[SimpleTestCase]) -> None:
        allow.__func__(test_class)
        jobs.JOB_LOGS = own_connection if own_connection in test_class.databases else None

    def end(test_class: type[SimpleTestCase]) -> None:
        jobs.JOB_LOGS = own_connection
        forbid.__func__(test_class)

    SimpleTestCase._add_databases_failures = classmethod(begin)  # type: ignore[assignment]
    SimpleTestCase._remove_databases_failures = classmethod(end)  # type: ignore[assignment]
