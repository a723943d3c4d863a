"""A local Nautobot: its servers, web, Celery worker and beat. ``make start`` runs this until Ctrl-C."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import httpx

from development import bootstrap, database, forks
from development.services import (
    PROJECT,
    STATE,
    Service,
    ServiceError,
    Settings,
    Supervisor,
    environment,
    state_lock,
    telling,
    wanted_services,
)

USER = PASSWORD = "admin"
HELP_LOG = STATE / "logs" / "help.log"
NAUTOBOT_SERVER = str(Path(sys.executable).with_name("nautobot-server"))


def api_token(settings: Settings) -> str:
    """Return the superuser's API token: 40 characters, derived from the state folder's secret."""
    return hashlib.sha1(settings.password.encode(), usedforsecurity=False).hexdigest()


def web_url(settings: Settings) -> str:
    """Return the address of the local Nautobot."""
    return f"http://127.0.0.1:{settings.web_port}"


def stack_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of Nautobot's processes."""
    run = STATE / "run"
    run.mkdir(parents=True, exist_ok=True)
    return environment(settings) | {
        "AI_OPS_DEMO_USER": USER,
        "AI_OPS_DEMO_PASSWORD": PASSWORD,
        "AI_OPS_DEMO_TOKEN": api_token(settings),
        "NAUTOBOT_CELERY_HEALTH_PROBES_AS_FILES": "true",
        "NAUTOBOT_CELERY_WORKER_READINESS_FILE": str(run / "worker.ready"),
        "NAUTOBOT_CELERY_WORKER_HEARTBEAT_FILE": str(run / "worker.heartbeat"),
        "NAUTOBOT_CELERY_BEAT_HEARTBEAT_FILE": str(run / "beat.heartbeat"),
        # The web server makes Django's checks when it starts; Celery's worker would make them again.
        "CELERY_SKIP_CHECKS": "true",
    }


def web(settings: Settings, env: dict[str, str]) -> Service:
    """Return the service of Nautobot's pages and REST API."""
    # --insecure: serve the static files too, which otherwise needs DEBUG or a web server in front.
    command = ["runserver", "--noreload", "--insecure", f"127.0.0.1:{settings.web_port}"]
    ready = lambda: _answers(web_url(settings) + "/robots.txt")  # noqa: E731
    return forks.ForkedService("web", command, ready=ready, env=env, ports=(settings.web_port,), restarts=True)


def worker(env: dict[str, str]) -> Service:
    """Return the service of a Celery worker with two processes."""
    ready_file = Path(env["NAUTOBOT_CELERY_WORKER_READINESS_FILE"])
    ready_file.unlink(missing_ok=True)
    command = ["celery", "worker", "--concurrency", "2", "--loglevel", "INFO"]
    return forks.ForkedService("worker", command, ready=ready_file.exists, env=env, restarts=True)


def beat(env: dict[str, str]) -> Service:
    """Return the service of Celery beat, which starts the scheduled Jobs."""
    heartbeat = Path(env["NAUTOBOT_CELERY_BEAT_HEARTBEAT_FILE"])
    heartbeat.unlink(missing_ok=True)
    pid_file = STATE / "run" / "beat.pid"
    pid_file.unlink(missing_ok=True)
    command = ["celery", "beat", "--loglevel", "INFO", "--pidfile", str(pid_file)]
    return forks.ForkedService("beat", command, ready=heartbeat.exists, env=env, restarts=True)


def mcp_servers(settings: Settings, env: dict[str, str]) -> Service:
    """Return the service of the demo's MCP servers, in one process."""
    *alive, _ = settings.mcp_ports
    # The app imports the MCP SDK, so a fork has it.
    command = ["development.demo_mcp_servers", *map(str, alive)]
    ready = lambda: all(_answers(f"http://127.0.0.1:{port}/health") for port in alive)  # noqa: E731
    return forks.ForkedService("mcp-servers", command, ready=ready, env=env, ports=alive, target=forks.run_module)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.TransportError:
        return False


def start_servers(supervisor: Supervisor, settings: Settings) -> dict[str, str]:
    """Start PostgreSQL and Redis and migrate the database; return Nautobot's environment."""
    env = stack_environment(settings)
    # Import Nautobot in the meantime: the import needs no server.
    forks.start_server(env, STATE / "logs" / "nautobot.log", forks.SET_UP)
    with telling("Starting PostgreSQL and Redis"):
        supervisor.start(*wanted_services(settings))
    with telling("Preparing the database"):
        must_migrate = database.prepare_live(env)
    if must_migrate:
        with telling("Migrating the database"):
            _migrate(env)
        database.live_is_current()
    return env


def _migrate(env: dict[str, str]) -> None:
    preparation = forks.ForkedService("bootstrap", ["--migrate"], ready=lambda: False, env=env, target=bootstrap.main)
    try:
        preparation.start()
        if preparation.process.wait():
            raise ServiceError(f"The database could not be prepared.\n{preparation.tail(40)}")
    finally:
        preparation.stop()


def build_help_pages() -> subprocess.Popen[bytes] | None:
    """Start to build the pages that Nautobot serves as help, unless they are newer than their sources."""
    sources = [PROJECT / "mkdocs.yml", *(PROJECT / "docs").rglob("*")]
    built = PROJECT / "ai_ops" / "docs" / "index.html"
    if built.exists() and built.stat().st_mtime > max(path.stat().st_mtime for path in sources):
        return None
    command = [Path(sys.executable).with_name("mkdocs"), "build", "--quiet"]
    HELP_LOG.parent.mkdir(parents=True, exist_ok=True)
    with HELP_LOG.open("wb") as log:
        return subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)


def main() -> int:
    """Start everything, print the addresses, and run until Ctrl-C."""
    started = time.monotonic()
    try:
        settings = Settings.load()
        with state_lock() as mine:
            if not mine:
                print(f"Already running: {web_url(settings)} (login {USER}, password {PASSWORD})")
                return 0
            with Supervisor() as supervisor:
                help_pages = build_help_pages()
                env = start_servers(supervisor, settings)
                with telling("Starting Nautobot, its Celery worker and beat, and MCP servers"):
                    supervisor.start(web(settings, env), worker(env), beat(env), mcp_servers(settings, env))
                if help_pages and help_pages.wait():
                    print(f"The help pages could not be built: see {HELP_LOG}.", flush=True)
                print(
                    f"\nNautobot is ready after {time.monotonic() - started:.0f} s: {web_url(settings)}\n"
                    f"Login {USER}, password {PASSWORD}. Logs are in {STATE / 'logs'}. Ctrl-C stops everything.",
                    flush=True,
                )
                supervisor.watch()
    except KeyboardInterrupt:
        print("Stopped.")
    except ServiceError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
