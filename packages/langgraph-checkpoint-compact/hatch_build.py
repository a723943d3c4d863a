"""Takes the package from the repository's root, or, in an unpacked sdist, from beside this file."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "langgraph_checkpoint_compact"


class PackageFromRepository(BuildHookInterface):
    """Adds the one package, whichever of the two places has it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Say where the package is; `version` is the kind of build, not used here."""
        here = Path(self.root)
        source = next(place / PACKAGE for place in (here, here.parent.parent) if (place / PACKAGE).is_dir())
        for path in source.iterdir():
            if path.suffix == ".py" or path.name == "py.typed":
                build_data["force_include"][str(path)] = f"{PACKAGE}/{path.name}"
