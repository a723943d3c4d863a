"""Lets the processes that run tests be forks of one that has set Nautobot up, which takes seconds of a processor.

xdist starts a test process with the command of its specification. Here that command runs this file, which hands its
input and its output to the process that forks, and ends when the fork does.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import Iterator
from importlib import import_module

ADDRESS = "AI_OPS_TEST_FORKS"
# Imported by many tests: each process would do it again.
OFTEN_IMPORTED = (
    "hypothesis.strategies",
    "langgraph.checkpoint.redis",
    "langgraph.graph",
    "nautobot.apps.testing",
    "playwright.sync_api",
    "pynautobot",
    "pytest",
)
# Its import makes Nautobot's schema, for which it reads the database. That takes two seconds.
GRAPHQL = "nautobot.core.graphql.schema_init"
# Whether this process is the one that forks, and whether it is one of the forks.
is_origin = is_fork = False


def ask_for_a_fork(program: str) -> None:
    """Have a fork run the program with the input and output of this process, and wait for its end."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(os.environ[ADDRESS])
        socket.send_fds(line, [program.encode()], [0, 1, 2])
        # The fork holds the other end.
        line.recv(1)


def serve() -> None:
    """Set Nautobot up, import the tests, make the database, and fork for each process that asks."""
    global is_origin
    is_origin = True
    _set_up()
    with socket.socket(socket.AF_UNIX) as listener:
        # Its file says that all is there.
        listener.bind(os.environ[ADDRESS])
        listener.listen()
        while True:
            line, _ = listener.accept()
            program, descriptors, _, _ = socket.recv_fds(line, 1 << 16, 3)
            if os.fork() == 0:
                break
            line.close()
            for each in descriptors:
                os.close(each)
    _become_a_test_process(descriptors)
    from tests import plugin

    plugin.prepare_fork()
    exec(program, {"__name__": "__main__"})
    line.close()


def _set_up() -> None:
    from tests.nautobot_setup import set_up_nautobot

    set_up_nautobot()
    for name in OFTEN_IMPORTED:
        import_module(name)
    _import_tests(sys.argv[1:])
    from django.core.cache import caches
    from django.db import connections
    from hypothesis.internal.charmap import intervals_from_codec

    use_migrated_database()
    import_module(GRAPHQL)
    # In a new clone, which has no file of them yet, Hypothesis takes more than a second to find all characters.
    intervals_from_codec("utf-8")
    # Two processes must not share a connection after a fork.
    connections.close_all()
    caches.close_all()
    # To look through it for garbage would copy it into each fork.
    gc.freeze()


def _import_tests(paths: list[str]) -> None:
    """Import the tests as pytest does, which rewrites their assertions; a fork then only makes the list of them.

    An error is in the log of this process, and comes again in each fork.
    """
    import pytest

    from tests import import_only

    pytest.main(["--collect-only", "--quiet", "-s", *paths], plugins=[import_only])


def _become_a_test_process(descriptors: list[int]) -> None:
    global is_origin, is_fork
    is_origin, is_fork = False, True
    from development.services import die_with_parent

    die_with_parent(signal.SIGKILL)
    for number, each in enumerate(descriptors):
        os.dup2(each, number)
        os.close(each)


def use_the_own_cache() -> None:
    """Use the cache that the environment names, where Nautobot was set up with another."""
    from django.conf import settings
    from django.core.cache import DEFAULT_CACHE_ALIAS, caches
    from nautobot.core.settings_funcs import parse_redis_connection

    settings.CACHES[DEFAULT_CACHE_ALIAS]["LOCATION"] = parse_redis_connection(redis_database=0)
    # It is made when it is used.
    with contextlib.suppress(AttributeError):
        del caches[DEFAULT_CACHE_ALIAS]


def use_migrated_database() -> None:
    """Let Django use the database that those of the tests are copies of; migrate it if code or settings changed."""
    from django.core.management import call_command
    from django.db import connections

    from development import database

    def migrate(name: str) -> None:
        _use_database(name)
        call_command("migrate", verbosity=0, interactive=False)
        connections.close_all()

    _use_database(database.prepare_migrated(dict(os.environ), migrate))


@contextlib.contextmanager
def copied_database(name: str) -> Iterator[None]:
    """Let Django use a copy, of that name, of the database that it uses."""
    from django.db import connections

    from development import database

    env = dict(os.environ)
    connections.close_all()
    database.copy(env, connections["default"].settings_dict["NAME"], name)
    _use_database(name)
    yield
    connections.close_all()
    database.execute(env, "DROP DATABASE {} WITH (FORCE)", name)


def _use_database(name: str) -> None:
    from django.conf import settings
    from django.db import connections

    for alias in connections:
        settings.DATABASES[alias]["NAME"] = connections[alias].settings_dict["NAME"] = name


if __name__ == "__main__":
    # Behind xdist's options for Python.
    ask_for_a_fork(sys.argv[-1])
