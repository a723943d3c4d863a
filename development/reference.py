"""Generates the page "Reference" from the code: settings, options, schedules, permissions, metrics, events and more.

``python -m development.reference`` writes it and "REST Schema" again; a test compares both with the code.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from typing import Any

from development import reference_rest
from development.services import PROJECT
from development.tables import table

PAGE = PROJECT / "docs" / "admin" / "reference.md"
HEAD = """# Reference

`python -m development.reference` generates this page from the code, so it is complete for the installed version. The
linked pages have explanations.
"""


def page() -> str:
    """Return the page for the current code. Nautobot must be set up."""
    return "\n".join([HEAD, *_settings(), *_options(), *_schedules(), *_reasons(), *_permissions(), *_made()])


def _made() -> Iterator[str]:
    """Return the section on messages to other systems."""
    yield from (*_metrics(), *_events(), *_checks())


def _attributes(cls: type) -> dict[str, str]:
    """Return the line of each attribute in the docstring of a dataclass."""
    section = (inspect.getdoc(cls) or "").partition("Attributes:\n")[2].partition("\nRaises:")[0]
    entries = re.split(r"^    (?=\w+:)", section, flags=re.MULTILINE)[1:]
    pairs = (entry.split(":", 1) for entry in entries)
    return {name: " ".join(text.split()).replace("``", "`") for name, text in pairs}


def _default(field: Field[Any]) -> Any:
    return field.default if field.default is not MISSING else field.default_factory()  # type: ignore[misc]


def _settings() -> Iterator[str]:
    from ai_ops.config import AiOpsSettings, CleanupOptions

    meanings = _attributes(CleanupOptions) | _attributes(AiOpsSettings)
    yield from ("## Settings", "", 'In `PLUGINS_CONFIG["ai_ops"]`; see [Settings](settings.md).', "")
    rows = ((f"`{each.name}`", f"`{_default(each)!r}`", meanings[each.name]) for each in fields(AiOpsSettings))
    yield from table(("setting", "default", "meaning"), *rows)


def _options() -> Iterator[str]:
    from ai_ops.kinds import KINDS
    from ai_ops.runs.options import TIME_LIMIT, option_names

    yield from ("## Kinds of runs and their options", "", "See [Runs](../user/runs.md).", "")
    rows = (
        (f"`{kind}`", ", ".join(f"`{option}`" for option in [*sorted(option_names(known)), TIME_LIMIT]))
        for kind, known in KINDS.items()
    )
    yield from table(("kind", "options"), *rows)


def _schedules() -> Iterator[str]:
    from django.utils.module_loading import import_string

    from ai_ops.schedules import DEFAULT_SCHEDULES

    yield from ("## Default schedules", "", "See [Schedules](../user/schedules.md).", "")
    rows = (
        (f"`{kind}`", each.name, f"`{each.crontab}`", import_string(each.class_path).name, f"`{each.class_path}`")
        for kind, each in DEFAULT_SCHEDULES.items()
    )
    yield from table(("kind", "schedule", "crontab", "Job", "class"), *rows)


def _reasons() -> Iterator[str]:
    from ai_ops.mcp.logic.verdicts import Phase, Reason

    yield from ("## Reasons of failed probes", "", "See [Reasons](../user/probing.md#reasons).", "")
    yield from (", ".join(f"`{reason}`" for reason in Reason) + ".", "")
    yield from ("Phases of a `TIMEOUT`: " + ", ".join(f"`{phase}`" for phase in Phase) + ".", "")


def _permissions() -> Iterator[str]:
    from ai_ops.navigation import menu_items

    yield from ("## Entries of the menu and their permissions", "", "See [Permissions](permissions.md).", "")
    rows = (
        (f"{group.name} / {item.name}", ", ".join(f"`{permission}`" for permission in sorted(item.permissions)))
        for tab in menu_items
        for group in tab.groups
        for item in group.items
    )
    yield from table(("entry", "permission"), *rows)


def _metrics() -> Iterator[str]:
    from ai_ops.metrics import KINDS, PREFIX

    yield from (
        "## Metrics",
        "",
        f"At Nautobot's `/metrics/`, each with the prefix `{PREFIX}`; see [Monitoring](monitoring.md).",
        "",
    )
    rows = (
        (
            f"`{name}{'_total' if kind.type == 'counter' else ''}`",
            kind.type,
            ", ".join(f"`{label}`" for label in kind.labels),
            kind.what,
        )
        for name, kind in KINDS.items()
    )
    yield from table(("metric", "type", "labels", "meaning"), *rows)


def _events() -> Iterator[str]:
    from ai_ops.mcp import events as mcp_events
    from ai_ops.runs import events as run_events

    yield from (
        "## Events",
        "",
        "Through Nautobot's event brokers; see [External Interactions](../user/external_interactions.md).",
        "",
    )
    topics = mcp_events.TOPICS | run_events.TOPICS
    yield from table(("topic", "published when"), *((f"`{topic}`", when) for topic, when in topics.items()))


def _checks() -> Iterator[str]:
    from ai_ops.doctor import CHECKS

    yield from (
        "## Checks of the doctor",
        "",
        "By `nautobot-server ai_ops doctor`; see [Command Line](../user/command_line.md#doctor).",
        "",
    )
    yield from table(("check", "does"), *((name, f"{inspect.getdoc(check)}") for name, check in CHECKS.items()))


def main() -> None:
    """Write the page, and that of the REST schema."""
    import nautobot

    nautobot.setup(PROJECT / "development" / "nautobot_config.py")
    PAGE.write_text(page())
    reference_rest.PAGE.write_text(reference_rest.page())


if __name__ == "__main__":
    main()
