"""Names of the app's choices in Nautobot's API schema, which all apps share.

The schema names choices by their field. A field of ours that is called as one of Nautobot's, or as another of ours,
would rename both, and `check --deploy` would warn of it. Nautobot lists its own names in this setting.
"""

from __future__ import annotations

from typing import Any

from ai_ops.kinds import KINDS

CHOICE_NAMES = {
    "MCPProtocolChoices": "ai_ops.choices.MCPProtocolChoices",
    "MCPIncidentKindChoices": "ai_ops.choices.MCPIncidentKindChoices",
    "MaintenanceKindChoices": "ai_ops.choices.MaintenanceKindChoices",
    # Those that can be asked for, as requests have them.
    "RunKindChoices": [(str(kind), str(kind)) for kind in KINDS],
}


def name_choices(settings: Any) -> None:
    """Add the names to `settings`, where the project has not chosen others."""
    names = settings.SPECTACULAR_SETTINGS.setdefault("ENUM_NAME_OVERRIDES", {})
    for name, choices in CHOICE_NAMES.items():
        names.setdefault(name, choices)
