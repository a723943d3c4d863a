"""Delays the import of a slow library, which Nautobot rarely uses, until its first use."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


def import_later(package: str, name: str) -> None:
    """Let ``import package.name`` return a module that loads the real module when an attribute is first read."""
    parent, module = ModuleType(package), ModuleType(f"{package}.{name}")

    def load(attribute: str) -> Any:
        # Python and libraries read such attributes of all modules.
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        for each in (parent, module):
            if sys.modules.get(each.__name__) is each:
                del sys.modules[each.__name__]
        return getattr(import_module(module.__name__), attribute)

    module.__getattr__ = load  # type: ignore[method-assign]
    setattr(parent, name, module)
    sys.modules |= {each.__name__: each for each in (parent, module)}


def import_kubernetes_later() -> None:
    """Import Nautobot without the client of Kubernetes, which takes a fifth of the time of the import."""
    import_later("kubernetes", "client")
