"""Run the tests with other versions of Python and Nautobot, each pair in its own environment.

``python -m development.matrix`` prints a line for each pair and exits with 1 if one fails. Environments stay in
``.state/matrix``. A Python that is not installed counts as a failure, because it was not tested.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from development.services import PROJECT, STATE

PYTHONS = ("3.11", "3.12", "3.13")
# The oldest and the newest release of the supported minor version.
NAUTOBOTS = ("3.2.0", "3.2.7")
FOLDER = STATE / "matrix"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the requested pairs; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", nargs="+", default=PYTHONS)
    parser.add_argument("--nautobot", nargs="+", default=NAUTOBOTS)
    parser.add_argument("--paths", nargs="+", default=["tests/unit", "tests/integration", "tests/saver"])
    chosen = parser.parse_args(arguments)
    failed = False
    for python in chosen.python:
        for nautobot in chosen.nautobot:
            began = time.monotonic()
            said = run_pair(python, nautobot, chosen.paths)
            failed |= said != "passed"
            print(f"Python {python}, Nautobot {nautobot}: {said} ({time.monotonic() - began:.0f} s)", flush=True)
    return int(failed)


def run_pair(python: str, nautobot: str, paths: Sequence[str]) -> str:
    """Run the tests in an environment with these versions; return "passed", or the failure."""
    if said := make_environment(python, nautobot):
        return said
    folder = environment_folder(python, nautobot)
    env = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")}
    # Use separate servers: two versions must not share a database.
    env["AI_OPS_STATE"] = str(folder / "state")
    done = subprocess.run(
        [folder / "bin" / "pytest", "-q", "-n2", "--dist=loadfile", *paths], cwd=PROJECT, env=env, check=False
    )
    return "passed" if done.returncode == 0 else f"pytest ended with {done.returncode}"


def environment_folder(python: str, nautobot: str) -> Path:
    """Return the folder of the environment with these versions."""
    return FOLDER / f"python{python}-nautobot{nautobot}"


def make_environment(python: str, nautobot: str) -> str | None:
    """Create an environment if it is missing; return None, or the failure."""
    folder = environment_folder(python, nautobot)
    if (folder / "bin" / "pytest").exists():
        return None
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    override = FOLDER / f"nautobot-{nautobot}.txt"
    override.parent.mkdir(parents=True, exist_ok=True)
    override.write_text(f"nautobot=={nautobot}\n")
    install = ["--editable", ".[valkey]", "--group", "dev", "--constraint", str(override)]
    steps = (
        ([uv, "venv", "--quiet", "--clear", "--python", python, str(folder)], f"there is no Python {python}"),
        (
            [uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), *install],
            "the packages could not be installed",
        ),
    )
    for command, sentence in steps:
        if subprocess.run(command, cwd=PROJECT, check=False).returncode:
            return sentence
    return None


if __name__ == "__main__":
    sys.exit(main())
