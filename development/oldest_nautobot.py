"""Names that the app imports from Nautobot and that the oldest supported Nautobot has.

The suite runs on the newest Nautobot, where imports of its new names work. So a file contains the names, and a test
compares the app's imports with it. ``python -m development.oldest_nautobot`` writes the file again: it uses the oldest
Nautobot, in the environment of `development.matrix`, and omits the names that are missing there.
"""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from development import database, services
from development.matrix import NAUTOBOTS, PYTHONS, environment_folder, make_environment

PROJECT = Path(__file__).resolve().parents[1]
OLDEST = NAUTOBOTS[0]
RECORDED = Path(__file__).with_name(f"nautobot-{OLDEST}-names.txt")


def imported_names(folder: Path = PROJECT / "ai_ops") -> set[str]:
    """Return the names that modules of `folder` import from Nautobot, as `module name`, but none with a fallback."""
    return {name for path in folder.rglob("*.py") for name in _needed(ast.parse(path.read_text()))}


def _needed(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Try) and any("ImportError" in ast.dump(each) for each in node.handlers):
        return
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "nautobot":
        yield from (f"{node.module} {alias.name}" for alias in node.names)
    if isinstance(node, ast.Import):
        yield from (f"{alias.name} " for alias in node.names if alias.name.split(".")[0] == "nautobot")
    for child in ast.iter_child_nodes(node):
        yield from _needed(child)


def _has(line: str) -> bool:
    module, _, name = line.partition(" ")
    try:
        return not name or hasattr(importlib.import_module(module), name) or bool(_submodule(module, name))
    except ImportError:
        return False


def _submodule(module: str, name: str) -> object:
    return importlib.import_module(f"{module}.{name}")


def record() -> None:
    """Write the file, in a process with the oldest Nautobot."""
    import nautobot

    nautobot.setup()
    RECORDED.write_text("".join(f"{line}\n" for line in sorted(imported_names()) if _has(line)))


def main() -> int:
    """Create the environment if it is missing, and record the names in it."""
    if sys.argv[1:] == ["record"]:
        record()
        return 0
    if said := make_environment(PYTHONS[0], OLDEST):
        print(said)
        return 1
    python = environment_folder(PYTHONS[0], OLDEST) / "bin" / "python"
    env = os.environ | services.environment(services.Settings.load())
    # Without this app, which may be the part that does not start.
    env["NAUTOBOT_CONFIG"] = str(database.CORE_CONFIG)
    return subprocess.run([python, "-m", "development.oldest_nautobot", "record"], cwd=PROJECT, env=env).returncode


if __name__ == "__main__":
    sys.exit(main())
