"""A plugin of pytest that imports the test files, as pytest does before it collects their tests, and collects none."""

from __future__ import annotations

from pathlib import Path

import pytest


class Imported(pytest.Module):
    """A test file that counts as empty."""

    def collect(self) -> list[pytest.Item]:
        """Import the file."""
        self._getobj()
        return []


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module:
    """Have each file imported only."""
    return Imported.from_parent(parent, path=module_path)
