"""Imports a library that takes long, and that Nautobot hardly uses, when it is first used."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


def import_later(package: str, name: str) -> None:
    """Let ``import package.name`` give a module that loads the real one at the first look at what is in it."""
    parent, module = ModuleType(package), ModuleType(f"{package}.{name}")

    def load(attribute: str) -> Any:
        # Python and libraries look at all modules in this way.
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
    """Let Nautobot be imported without the client of Kubernetes, which is a fifth of what it takes."""
    import_later("kubernetes", "client")
