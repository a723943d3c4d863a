"""Prepare a release: version, changelog and tag. Nothing is uploaded.

``python -m development.release 0.2.0`` changes the version in ``pyproject.toml``, gathers the notes in ``changes/``
into ``CHANGELOG.md``, and commits and tags that. ``--dry-run`` prints what would be done.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from development.services import PROJECT

VERSION = re.compile(r'^version = "([^"]+)"$', re.MULTILINE)
NUMBER = re.compile(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?")
# In this order; the names are those of the files' ends.
KINDS = ("security", "removed", "changed", "added", "fixed")
MARK = "<!-- towncrier release notes start -->"


def release(version: str, project: Path = PROJECT, today: datetime | None = None) -> list[Path]:
    """Write the version and the notes; return the files that changed or went.

    Raises:
        SystemExit: The version is none or not newer, or there are no notes.
    """
    settings = project / "pyproject.toml"
    text = settings.read_text()
    found = VERSION.search(text)
    if found is None or not NUMBER.fullmatch(version):
        raise SystemExit(f"{version} is no version such as 1.2.3, or pyproject.toml has none.")
    if _order(version) < _order(found[1]):
        raise SystemExit(f"{version} is older than {found[1]}.")
    notes = sorted(each for each in (project / "changes").iterdir() if each.suffix[1:] in KINDS)
    if not notes:
        raise SystemExit("There are no notes in changes/: nothing that users see has changed.")
    changelog = project / "CHANGELOG.md"
    section = _section(version, notes, today or datetime.now(UTC))
    changelog.write_text(changelog.read_text().replace(MARK, f"{MARK}\n\n{section}", 1))
    settings.write_text(text[: found.start(1)] + version + text[found.end(1) :])
    for note in notes:
        note.unlink()
    return [settings, changelog, *notes]


def _section(version: str, notes: Sequence[Path], today: datetime) -> str:
    lines = [f"## {version} ({today:%Y-%m-%d})"]
    for kind in KINDS:
        of_kind = [" ".join(note.read_text().split()) for note in notes if note.suffix == f".{kind}"]
        if of_kind:
            lines += ["", f"### {kind.capitalize()}", "", *(f"- {text}" for text in of_kind)]
    return "\n".join(lines) + "\n"


def _order(version: str) -> tuple[list[int], bool, str]:
    numbers, _, rest = re.sub(r"(a|b|rc)", r" \1", version, count=1).partition(" ")
    return [int(part) for part in numbers.split(".")], not rest, rest


def main(arguments: Sequence[str] | None = None) -> int:
    """Release, or say what a release would do; give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("version")
    parser.add_argument("--dry-run", action="store_true")
    chosen = parser.parse_args(arguments)
    if chosen.dry_run:
        notes = sorted(each.name for each in (PROJECT / "changes").iterdir() if each.suffix[1:] in KINDS)
        print(f"Version {chosen.version}, notes {', '.join(notes) or 'none'}, tag v{chosen.version}")
        return 0
    if subprocess.run(["git", "status", "--porcelain"], cwd=PROJECT, capture_output=True, check=True).stdout:
        raise SystemExit("Commit or remove your changes first.")
    changed = release(chosen.version)
    subprocess.run(["git", "add", "--all", *map(str, changed)], cwd=PROJECT, check=True)
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
