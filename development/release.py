"""Prepare a release: version, changelog and tag. Nothing is uploaded.

``python -m development.release 0.2.0`` changes the version in ``pyproject.toml``, collects the notes in ``changes/`` in
``CHANGELOG.md`` with towncrier, and commits and tags the result. ``--dry-run`` only prints the new section.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from packaging.version import InvalidVersion, Version

from development.services import PROJECT

VERSION = re.compile(r'^version = "([^"]+)"$', re.MULTILINE)
NUMBER = re.compile(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?")
# Text of an empty section of towncrier.
NO_NOTES = "No significant changes."
TOWNCRIER = Path(sys.executable).with_name("towncrier")


def release(version: str, project: Path = PROJECT, today: datetime | None = None, *, dry_run: bool = False) -> str:
    """Write the version and the notes; return the section of the changelog.

    Raises:
        SystemExit: The version is not valid or is older, or there are no notes.
    """
    settings = project / "pyproject.toml"
    text = settings.read_text()
    found = VERSION.search(text)
    if found is None or not NUMBER.fullmatch(version):
        raise SystemExit(f"{version} is not a version such as 1.2.3, or pyproject.toml has none.")
    try:
        is_older = Version(version) < Version(found[1])
    except InvalidVersion:
        raise SystemExit(f"{found[1]} in pyproject.toml is not a version.") from None
    if is_older:
        raise SystemExit(f"{version} is older than {found[1]}.")
    date = today or datetime.now(UTC)
    section = _towncrier(project, version, date, "--draft")
    if NO_NOTES in section:
        raise SystemExit("There are no notes in changes/, so there is no change for users.")
    if not dry_run:
        _towncrier(project, version, date, "--yes")
        settings.write_text(text[: found.start(1)] + version + text[found.end(1) :])
    return section


def _towncrier(project: Path, version: str, today: datetime, option: str) -> str:
    command = [TOWNCRIER, "build", option, "--version", version, "--date", f"{today:%Y-%m-%d}", "--dir", project]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"towncrier failed: {done.stderr.strip()}")
    return done.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Release, or print the effects of a release; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("version")
    parser.add_argument("--dry-run", action="store_true")
    chosen = parser.parse_args(arguments)
    if chosen.dry_run:
        print(release(chosen.version, dry_run=True))
        return 0
    if subprocess.run(["git", "status", "--porcelain"], cwd=PROJECT, capture_output=True, check=True).stdout:
        raise SystemExit("Commit or remove your changes first.")
    release(chosen.version)
    subprocess.run(["git", "add", "--all", "pyproject.toml", "CHANGELOG.md", "changes"], cwd=PROJECT, check=True)
    subprocess.run(["git", "commit", "--quiet", "-m", f"Release {chosen.version}"], cwd=PROJECT, check=True)
    subprocess.run(
        ["git", "tag", "-a", f"v{chosen.version}", "-m", f"Version {chosen.version}"], cwd=PROJECT, check=True
    )
    print(
        f"Version {chosen.version} is committed and tagged. Build it with `make build`; push branch and tag when it is "
        "right."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
