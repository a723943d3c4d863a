"""Tasks for developers; the Makefile calls them."""

import os
import sys
from pathlib import Path

from invoke import Context, task

PROJECT = Path(__file__).parent
BIN = Path(sys.executable).parent
# Limit on test processes. Each uses half a gigabyte, and a tenth of the local PostgreSQL's connections.
MAX_TEST_WORKERS = 8


def _become(*command: str) -> None:
    """Replace this process, so that Ctrl-C and SIGTERM reach the command itself."""
    os.chdir(PROJECT)
    os.execv(command[0], command)


def _run(context: Context, command: str, **env: str) -> None:
    """Run a tool of the virtual environment, from the project's folder."""
    with context.cd(str(PROJECT)):
        context.run(f"{BIN}/{command}", env=env)


@task
def demo(_, json=False):
    """Run the demo: both Jobs on real conversations and real MCP servers."""
    _become(sys.executable, "-m", "development.demo", *(["--json"] if json else []))


@task
def start(_):
    """Start a local Nautobot, and run it until Ctrl-C."""
    _become(sys.executable, "-m", "development.stack")


@task
def services(_):
    """Start only PostgreSQL and Redis, print their addresses, and run them until Ctrl-C."""
    _become(sys.executable, "-m", "development.services")


@task
def test(_, paths="tests", costs=False):
    """Run the tests, or those of some paths; with --costs print the tests with the most processor time."""
    # Nautobot serves the built pages, and one of its own tests needs them. The tests' plugin builds them.
    os.environ["AI_OPS_TEST_HELP_PAGES"] = "1"
    # A test waits for servers and browsers for a third of its time. Two processes more than processors use it: with one
    # more, the processors were idle for an eighth of the time.
    workers = (os.cpu_count() or 1) + 2
    # In the order of tests/plugin.py: by default, the slow files would come last, because they have few tests.
    order = (f"-n{workers}", f"--maxprocesses={MAX_TEST_WORKERS}", "--dist=loadfile", "--no-loadscope-reorder")
    _become(str(BIN / "pytest"), *order, *(["-p", "tests.costs"] if costs else []), *paths.split())


@task
def lint(context):
    """Check style, layering and types, and look for missing migrations."""
    _run(context, "ruff format --check .")
    _run(context, "ruff check .")
    _run(context, "lint-imports")
    _run(context, "mypy")
    _run(
        context,
        # The tests' settings need neither database nor Redis for this; Django warns about the missing database.
        "nautobot-server --config tests/nautobot_config.py makemigrations --check --dry-run ai_ops",
        PYTHONPATH=str(PROJECT),
        PYTHONWARNINGS="ignore::RuntimeWarning",
        NAUTOBOT_ROOT=str(PROJECT / ".state" / "nautobot"),
    )


@task
def docs(context):
    """Build the documentation in ai_ops/docs/, from which Nautobot serves it."""
    _run(context, "mkdocs build --strict")


@task
def bench_cleanup(_, million=False, layouts="", threads="", policies=0, turns=0):
    """Compare the checkpoint cleanup with Redis itself, with a loop and with the library.

    With --policies 50 a run with so many retention policies is compared with one without; with --turns 1000 one thread
    of so many turns is cleaned. Then nothing else is measured.
    """
    chosen = ["--million"] if million else []
    numbers = [(f"--{name}", str(number or "")) for name, number in (("policies", policies), ("turns", turns))]
    for option, values in (("--layouts", layouts), ("--threads", threads), *numbers):
        chosen += [option, *values.split()] if values else []
    _become(sys.executable, "-m", "development.bench_cleanup", *chosen)


@task(iterable=["case"])
def bench_health(_, case):
    """Measure health checks, and fail if a limit is exceeded; repeat --case NAME to select cases."""
    chosen = [argument for name in case for argument in ("--case", name)]
    _become(sys.executable, "-m", "development.bench_health", *chosen)


@task
def bench_runs(_):
    """Measure records of runs and requests for runs, and fail if a limit is exceeded."""
    _become(sys.executable, "-m", "development.bench_runs")


@task
def bench_saver(_, long_thread=False):
    """Compare the checkpoint saver with others in one run, and fail if a limit is exceeded.

    With --long-thread what the server's scripts take on a long thread, and nothing else.
    """
    _become(sys.executable, "-m", "development.bench_saver", *(["--long-thread"] if long_thread else []))


@task
def bench_pages(_):
    """Measure pages on a large installation, and fail if a limit is exceeded."""
    _become(sys.executable, "-m", "development.bench_pages")


@task
def soak(_, seconds=600):
    """Run maintenance for ten minutes under random faults, then check all promises."""
    _become(sys.executable, "-m", "development.soak", "--seconds", str(seconds))


@task
def build(context):
    """Build the wheels and source archives of the app, with its help pages, and of the saver, into dist/."""
    _run(context, "mkdocs build --strict --quiet")
    for folder in (".", "packages/langgraph-checkpoint-compact"):
        _run(context, f"uv build --quiet --out-dir {PROJECT / 'dist'} {folder}")


@task(iterable=["python", "nautobot", "paths"])
def matrix(_, python, nautobot, paths):
    """Run the tests with each Python and the oldest and newest Nautobot; repeat --python 3.12 to select versions."""
    chosen = []
    for option, values in (("--python", python), ("--nautobot", nautobot), ("--paths", paths)):
        chosen += [option, *values] if values else []
    _become(sys.executable, "-m", "development.matrix", *chosen)


@task
def release(_, version, dry_run=False):
    """Change the version, gather the notes into CHANGELOG.md, commit and tag; nothing is uploaded."""
    _become(sys.executable, "-m", "development.release", version, *(["--dry-run"] if dry_run else []))


@task
def requirements(context, upgrade=False):
    """Pin the exact versions of all requirements in requirements.txt; keep those that still fit."""
    _run(
        context,
        "uv pip compile --quiet --universal --python-version 3.11 --all-extras --group dev --no-header --no-annotate "
        f"{'--upgrade ' if upgrade else ''}--output-file requirements.txt pyproject.toml",
    )


@task
def snapshot(_):
    """Dump the core schema of the installed Nautobot again; this takes five minutes."""
    _become(sys.executable, "-m", "development.snapshot")


@task
def screenshots(_):
    """Take the documentation's pictures from the Nautobot of `make start`."""
    _become(sys.executable, "-m", "development.screenshots")


@task
def clean(_):
    """Remove the local servers' state."""
    from development.services import remove_state

    remove_state()
