"""Processes of Nautobot that are forks of one process, so that only one process imports Nautobot.

Importing Nautobot takes ten seconds of a processor, and a fork takes milliseconds. The web server, the worker and beat
of a stack have the same environment and settings, so one import is enough for all of them. The fork server of
`multiprocessing` imports some modules and then only forks. Each fork has its own session, log and signals, and ends
when its supervisor ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import multiprocessing.forkserver
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from development.services import PROJECT, Service, ServiceError, die_with_parent

CONTEXT = multiprocessing.get_context("forkserver")
SET_UP = "development.preload"
LOG_VARIABLE = "AI_OPS_FORK_SERVER_LOG"
# Settings that Nautobot reads from the environment at its import, and that differ by process.
OF_EACH_PROCESS = ("CELERY_WORKER_READINESS_FILE", "CELERY_WORKER_HEARTBEAT_FILE", "CELERY_BEAT_HEARTBEAT_FILE")

_environment: dict[str, str] = {}


def start_server(env: Mapping[str, str], log: Path, *modules: str) -> None:
    """Start the process from which all others are forked, without waiting for its imports.

    Each process has only one: this ends an earlier one with another environment.

    Args:
        env: The environment of the import, and the default environment of the forks.
        log: The log for output of the import.
        modules: The modules to import: `SET_UP` sets Nautobot up.
    """
    _environment.clear()
    _environment.update(env, **{LOG_VARIABLE: str(log)})
    log.parent.mkdir(parents=True, exist_ok=True)
    # A fork runs the main module again, under another name.
    main = getattr(sys.modules["__main__"].__spec__, "name", "__main__")
    CONTEXT.set_forkserver_preload(
        ["development.fork_server", *modules, *([] if main.endswith("__main__") else [main])]
    )
    # The library has no public way to end it, except the end of this process.
    multiprocessing.forkserver._forkserver._stop()  # type: ignore[attr-defined]
    with in_its_environment():
        multiprocessing.forkserver.ensure_running()


@contextlib.contextmanager
def in_its_environment() -> Iterator[None]:
    """Use the environment of the fork server in this process, so that it restarts there if it has died."""
    ours = dict(os.environ)
    os.environ.clear()
    os.environ.update(_environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(ours)


class Fork:
    """A fork that calls a function and ends; it has the methods of `subprocess.Popen` that `Service` uses.

    Args:
        service: Its log, environment, folder, and the signal it gets when the fork server ends.
        target: The function, which the fork finds by its name.
        arguments: The arguments of the function.

    Raises:
        ServiceError: The modules could not be imported.
    """

    def __init__(self, service: Service, target: Callable[..., object], *arguments: str) -> None:
        env = dict(_environment if service.env is None else service.env)
        given = (env, str(service.cwd), str(service.log), service.stop_signal, target, arguments)
        self._process = CONTEXT.Process(target=_run, args=given, name=service.name, daemon=True)
        try:
            with in_its_environment():
                self._process.start()
        except (EOFError, OSError) as error:
            raise ServiceError(
                f"{service.name} could not be started, since the process that imports Nautobot has ended: see "
                f"{_environment[LOG_VARIABLE]}."
            ) from error

    @property
    def pid(self) -> int:
        """Return the id of the process."""
        return self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        """Return the exit code, negative after an end by a signal; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return the exit code; raise TimeoutExpired after `timeout` seconds."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return self.returncode

    def send_signal(self, signum: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)


def _run(
    env: dict[str, str], cwd: str, log: str, stop_signal: int, target: Callable[..., object], arguments: tuple[str, ...]
) -> None:
    """Become a separate process, like those that `Service` starts, and call the function."""
    os.setsid()
    die_with_parent(stop_signal)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    redirect_output(log)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    target(*arguments)


def redirect_output(log: str) -> None:
    """Send all output of this process to a file, and close its input."""
    for descriptor, place, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
    ):
        opened = os.open(place, flags)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.dup2(1, 2)


def nautobot_server(*arguments: str) -> None:
    """Run a command of ``nautobot-server`` in a process that has set Nautobot up."""
    from django.conf import settings
    from django.core.management import execute_from_command_line

    for name in OF_EACH_PROCESS:
        setattr(settings, name, os.environ.get(f"NAUTOBOT_{name}", getattr(settings, name)))
    sys.argv[:] = ["nautobot-server", *arguments]
    execute_from_command_line(sys.argv)


def run_module(module: str, *arguments: str) -> None:
    """Run a module as ``python -m`` does, in a process that may have imported most of what it imports."""
    sys.argv[:] = [module, *arguments]
    runpy.run_module(module, run_name="__main__")


@dataclasses.dataclass
class ForkedService(Service):
    """A service in a fork; its command is the arguments of `target`."""

    target: Callable[..., object] = nautobot_server
    cwd: str | Path = PROJECT

    def _launch(self) -> None:
        self.process = Fork(self, self.target, *self.command)
