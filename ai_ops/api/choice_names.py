"""Names of the app's choices in Nautobot's API schema, which is shared by all apps.

The schema names choices by their field. If two fields have the same name, in Nautobot or in this app, the schema
renames the choices of both and `check --deploy` warns. Nautobot lists its own names in this setting.
"""

from __future__ import annotations

from typing import Any

from ai_ops.kinds import KINDS

CHOICE_NAMES = {
    "MCPProtocolChoices": "ai_ops.choices.MCPProtocolChoices",
    "MCPIncidentKindChoices": "ai_ops.choices.MCPIncidentKindChoices",
    "MaintenanceKindChoices": "ai_ops.choices.MaintenanceKindChoices",
    # The kinds that a request may name.
    "RunKindChoices": [(str(kind), str(kind)) for kind in KINDS],
}


def name_choices(settings: Any) -> None:
    """Add the names to `settings`, except those that the project has set."""
    names = settings.SPECTACULAR_SETTINGS.setdefault("ENUM_NAME_OVERRIDES", {})
    for name, choices in CHOICE_NAMES.items():
        names.setdefault(name, choices)
