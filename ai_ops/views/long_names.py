"""Pages of an object with a possibly long name."""

from __future__ import annotations

from typing import Any

# Nautobot's templates with an object's name in their title.
_WITH_NAME = frozenset(
    f"generic/object_{page}.html" for page in ("retrieve", "update", "destroy", "notes", "changelog")
)


class LongNamesMixin:
    """Wraps a long name in the title and the fields of a page, unlike Nautobot's own templates."""

    def get_template_name(self) -> str:
        """Return a template of this app that extends Nautobot's."""
        found = super().get_template_name()
        return "ai_ops/long_names.html" if found in _WITH_NAME else found

    def get_extra_context(self, request: Any, instance: Any = None) -> dict[str, Any]:
        """Add the name of the extended template."""
        return {**super().get_extra_context(request, instance), "around": super().get_template_name()}
