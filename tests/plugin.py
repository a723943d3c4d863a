"""Gives the tests their servers. Loaded with ``-p``, since a conftest comes too late under xdist.

Unit tests and those of the saver need none of this and, alone, start none of it. For the others PostgreSQL is
started unless it runs. Each process has a copy of a migrated database, and Redis servers of its own. The database and
the help pages are made while a process imports Nautobot, of which all that run tests are forks.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from execnet import XSpec
from hypothesis import HealthCheck, settings
from xdist.remote import Producer

from development import database, services
from tests import worker_forks
from tests.nautobot_setup import set_up_nautobot
from tests.shared_servers import TOGETHER, SharedServersScheduling

# The same examples in each run of the suite, and no clock, so that only a change can fail a test. A campaign over more
# examples, for which the number is set, tries others each time.
settings.register_profile(
    "suite",
    deadline=None,
    database=None,
    derandomize="AI_OPS_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("suite")

# Python looks through young objects for garbage after 700 new ones, and after ten such looks through older ones.
# That took a seventh of the tests' processor time. Memory did not grow with these numbers.
gc.set_threshold(10_000, 20, 200)

# The saver's tests start the servers that they need themselves.
WITHOUT_NAUTOBOT = [Path(__file__).parent / name for name in ("unit", "saver")]
# What takes longest begins first, so that no process is left alone with it at the end. Of the later ones, those that
# wait and those that need a processor take turns.
LONG_FILES = (
    "test_installation.py",
    "test_in_chromium.py",
    "test_demo.py",
    *TOGETHER,
    "test_rest_refusals.py",
    "test_rights.py",
    "test_checkpoint_hostile.py",
    "test_views.py",
    "test_mcp_http.py",
    "test_pinned_threads.py",
    "test_tool_pages.py",
    "test_health_task.py",
    "test_local_services.py",
    "test_checkpoint_kills.py",
    "test_same_verdict.py",
)
# Whether the help pages are to be made, which Nautobot serves and some tests look for; `invoke test` sets it.
HELP_PAGES = "AI_OPS_TEST_HELP_PAGES"
DATABASE = "AI_OPS_TEST_DATABASE"
_stack = contextlib.ExitStack()
_being_made: list[Future[object]] = []
_forks: list[services.Service] = []


def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Start the servers and set up Nautobot, unless only tests that need neither are to be run."""
    if "PYTEST_XDIST_WORKER" in os.environ or worker_forks.is_origin:
        return
    paths = [Path(each.split("::")[0]).resolve() for each in early_config.known_args_namespace.file_or_dir]
    if not paths or not all(any(map(path.is_relative_to, WITHOUT_NAUTOBOT)) for path in paths):
        _prepare()
        if early_config.known_args_namespace.numprocesses:
            _start_what_forks(paths)
        else:
            _wait_for_what_is_being_made()
            set_up_nautobot()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs: list[XSpec]) -> None:
    """Have each process that runs tests be a fork."""
    if _forks:
        _forks[0].wait_ready(time.monotonic() + services.START_TIMEOUT)
        for spec in specs:
            spec.python = shlex.join([sys.executable, "-I", "-S", worker_forks.__file__])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> SharedServersScheduling | None:
    """Let files that share servers stay together where files are handed out."""
    return SharedServersScheduling(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished() -> None:
    """Let no test begin before all is there that it may look for."""
    _wait_for_what_is_being_made()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of long files first; those of a file stay together and in their order."""
    ranks = {name: rank for rank, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(ranks)))


def pytest_collection_finish() -> None:
    """Look for no garbage among what stays until the end: the tests, and what their modules hold."""
    gc.freeze()


def _prepare() -> None:
    """Start the servers, and set the environment in which Nautobot finds them."""
    cache = _stack.enter_context(running_redis("cache"))
    env = services.environment(services.Settings.load()) | {
        "NAUTOBOT_CONFIG": str(Path(__file__).with_name("nautobot_config.py")),
        "NAUTOBOT_ROOT": str(services.STATE / "nautobot"),
        "NAUTOBOT_REDIS_HOST": "127.0.0.1",
        "NAUTOBOT_REDIS_PORT": str(cache.port),
        "NAUTOBOT_REDIS_PASSWORD": cache.password,
        # Two runs at the same time must not drop each other's database.
        DATABASE: os.environ.get(DATABASE, f"test_ai_ops_{os.getpid()}"),
    }
    # A test that forgets to say which Redis it means must find none, rather than a developer's.
    env.pop("LANGGRAPH_REDIS_URL")
    makes_all = "PYTEST_XDIST_WORKER" not in os.environ and not worker_forks.is_fork
    if makes_all:
        # The variables of below would say that a server runs already.
        _start_postgres()
        folder = _stack.enter_context(tempfile.TemporaryDirectory(prefix="ai-ops-forks-"))
        os.environ[worker_forks.ADDRESS] = f"{folder}/socket"
    os.environ |= {key: value for key, value in env.items() if key.startswith(("NAUTOBOT_", "AI_OPS_"))}
    os.environ.pop("LANGGRAPH_REDIS_URL", None)
    if makes_all:
        # Threads, since both only wait for processes. The environment stays as it is from here: PostgreSQL's client
        # reads it, and dies of a change at the same time.
        pool = _stack.enter_context(ThreadPoolExecutor())
        _being_made.append(pool.submit(database.prepare_template, env))
        if HELP_PAGES in os.environ:
            _being_made.append(pool.submit(_make_help_pages))


def prepare_fork() -> None:
    """Give this fork what it does not share with others."""
    _prepare()
    worker_forks.use_the_own_cache()


def _start_what_forks(paths: list[Path]) -> None:
    """Start the process that all those which run tests are forks of; it imports the tests in these paths."""
    address = os.environ[worker_forks.ADDRESS]
    command = [sys.executable, "-c", f"from {worker_forks.__name__} import serve; serve()", *map(str, paths)]
    service = services.Service("test-forks", command, ready=Path(address).exists)
    _stack.callback(service.stop)
    service.start()
    _forks.append(service)


def _make_help_pages() -> None:
    command = [Path(sys.executable).with_name("mkdocs"), "build", "--strict", "--quiet"]
    subprocess.run(command, cwd=services.PROJECT, check=True)


def _wait_for_what_is_being_made() -> None:
    """Return when the template and the help pages are there; raise what went wrong."""
    for each in _being_made:
        each.result()


def _start_postgres() -> None:
    for service in services.wanted_services(services.Settings.load(), databases_only=True):
        if not service.ready():
            supervisor = _stack.enter_context(services.Supervisor())
            supervisor.start(service)


def pytest_unconfigure() -> None:
    """Stop what was started."""
    _stack.close()


class RedisServer:
    """A Redis-protocol server of this test process; tests may stop it and start it again."""

    def __init__(self, name: str, folder: Path, *, modules: bool) -> None:
        # Another process's server may get the port first: it must not be taken for this one.
        self.password = f"correct horse {os.getpid()}"
        (self.port,) = services.free_ports(1)
        # With a rule for saving, FLUSHALL takes ten milliseconds. Without one, and so without this pause, a server with
        # RediSearch died of a corrupted heap in the tests of layouts.
        self._service = services.redis_server(
            name, self.port, self.password, modules=modules, persist=modules, folder=folder
        )

    def url(self, db: int = 0, password: str | None = None) -> str:
        """The address of one of its databases."""
        return f"redis://:{(password or self.password).replace(' ', '%20')}@127.0.0.1:{self.port}/{db}"

    def client(self, db: int = 0, **options: object) -> redis.Redis:
        """A new client of one of its databases."""
        return redis.Redis(port=self.port, password=self.password, db=db, **options)  # type: ignore[arg-type]

    def start(self) -> None:
        """Start it, with what it saved when it was stopped."""
        self._service.start()
        self._service.wait_ready(time.monotonic() + services.START_TIMEOUT)

    def stop(self) -> None:
        """Stop it as an operator would."""
        self._service.stop()


def _started_redis(name: str, folder: Path, *, modules: bool) -> RedisServer:
    """Start a server on a free port, and on another one if a program has taken that port in between."""
    for _ in range(2):
        server = RedisServer(name, folder, modules=modules)
        with contextlib.suppress(services.ServiceError):
            server.start()
            return server
        server.stop()
    server = RedisServer(name, folder, modules=modules)
    server.start()
    return server


@contextlib.contextmanager
def running_redis(name: str, *, modules: bool = False) -> Iterator[RedisServer]:
    """A server that ends with the block."""
    with tempfile.TemporaryDirectory(prefix=f"ai-ops-{name}-") as folder:
        server = _started_redis(name, Path(folder), modules=modules)
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def checkpoint_server() -> Iterator[RedisServer]:
    """The server that agents keep their checkpoints on, with RedisJSON and RediSearch."""
    with running_redis("checkpoints", modules=True) as server:
        yield server


@pytest.fixture
def checkpoint_redis(
    checkpoint_server: RedisServer, monkeypatch: pytest.MonkeyPatch, db: None
) -> Iterator[redis.Redis]:
    """A client of that server's database 0, emptied, which is the one the app is told to use.

    The cleanup reads its pins from the test's PostgreSQL database, also in a process that a test starts.
    """
    from django.db import connection

    monkeypatch.setenv("LANGGRAPH_REDIS_URL", checkpoint_server.url(0))
    monkeypatch.setenv("NAUTOBOT_DB_NAME", connection.settings_dict["NAME"])
    with checkpoint_server.client(0) as client:
        client.flushall()
        yield client


if "PYTEST_XDIST_WORKER" in os.environ and DATABASE in os.environ:
    # pytest-django looks for the settings before any hook of ours.
    _prepare()
    set_up_nautobot()
