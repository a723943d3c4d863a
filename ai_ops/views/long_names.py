"""Pages of one object whose name may be long."""

from __future__ import annotations

from typing import Any

# Nautobot's templates that have an object's name in their title.
_WITH_NAME = frozenset(
    f"generic/object_{page}.html" for page in ("retrieve", "update", "destroy", "notes", "changelog")
)


class LongNamesMixin:
    """Breaks a long name in the title and the fields of a page into lines; Nautobot's own templates do not."""

    def get_template_name(self) -> str:
        """Put a template of this app around Nautobot's."""
        found = super().get_template_name()
        return "ai_ops/long_names.html" if found in _WITH_NAME else found

    def get_extra_context(self, request: Any, instance: Any = None) -> dict[str, Any]:
        """Tell that template which one it is around."""
        return {**super().get_extra_context(request, instance), "around": super().get_template_name()}
