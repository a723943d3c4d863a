"""Generates the page "REST Schema" from the serializers: the fields of each address, and the bodies of POST.

Nautobot's own page has the same as OpenAPI, but needs a running Nautobot.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from development.services import PROJECT
from development.tables import table

PAGE = PROJECT / "docs" / "admin" / "reference_rest.md"
HEAD = """# REST Schema

`python -m development.reference` generates this page from the code. All addresses are below `/api/plugins/ai-ops/`;
[REST API](../user/rest_api.md) has the methods, the answers and examples. A running Nautobot has the same as OpenAPI,
at `/api/docs/`.

Each record also has the fields of all of Nautobot's records: `id`, `url`, `object_type`, `display`, `natural_slug`,
and, if the model has them, `created`, `last_updated`, `notes_url` and `custom_fields`.
"""
OF_ALL_RECORDS = {"id", "url", "object_type", "display", "natural_slug", "created", "last_updated", "notes_url"}
OF_SOME_RECORDS = {"custom_fields", "computed_fields"}
# By the class of the field, the nearest first.
TYPES = {
    "BooleanField": "`true` or `false`",
    "IntegerField": "whole number",
    "BigIntegerField": "whole number",
    "FloatField": "number",
    "DecimalField": "number",
    "DateTimeField": "time, ISO 8601",
    "UUIDField": "UUID",
    "JSONField": "JSON",
    "DictField": "object",
    "ListField": "list",
    "ListSerializer": "list of objects",
    "ManyRelatedField": "list of records",
    "RelatedField": "record",
    "Serializer": "object",
    "CharField": "text",
}


def page() -> str:
    """Return the page for the current code. Nautobot must be set up."""
    return "\n".join([HEAD, *_records(), *_bodies()])


def _records() -> Iterator[str]:
    from nautobot.apps.api import NautobotModelViewSet

    from ai_ops.api.serializers import ScheduleSerializer
    from ai_ops.api.urls import router

    made_by_hand = {"schedules": ScheduleSerializer}
    for prefix, viewset, _ in router.registry:
        serializer = getattr(viewset, "serializer_class", None) or made_by_hand.get(prefix)
        if serializer is not None:
            yield from (f"## `{prefix}/`", "", _first_line(viewset), "")
            yield from _fields(serializer, is_written=issubclass(viewset, NautobotModelViewSet))


def _bodies() -> Iterator[str]:
    from ai_ops.api import serializers

    yield from ("## Bodies of POST", "")
    for address, serializer in (
        ("runs/", serializers.RunRequestSerializer),
        ("schedules/", serializers.ScheduleRequestSerializer),
        ("threads/erase/", serializers.ErasureRequestSerializer),
        ("mcp-server-tool-sets/{id}/approve/", serializers.ToolApprovalSerializer),
        ("mcp-server-tools/{id}/approve/", serializers.ToolDecisionSerializer),
        ("mcp-server-tools/{id}/reject/", serializers.ToolDecisionSerializer),
    ):
        yield from (f"### `{address}`", "", _first_line(serializer), "")
        yield from _fields(serializer, is_written=True)


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n\n")[0].replace("\n", " ")


def _fields(serializer: type, *, is_written: bool) -> Iterator[str]:
    fields = serializer(context={"request": None, "depth": 0}).fields
    rows = (
        (f"`{name}`", _type_of(field), _taken(field, is_written), " ".join(str(field.help_text or "").split()))
        for name, field in fields.items()
        if name not in OF_ALL_RECORDS | OF_SOME_RECORDS
    )
    yield from table(("field", "type", "in a body", "meaning"), *rows)


def _type_of(field: object) -> str:
    from rest_framework.serializers import ChoiceField

    if isinstance(field, ChoiceField):
        return "one of " + ", ".join(f"`{choice}`" for choice in field.choices if choice)
    names = (TYPES.get(each.__name__) for each in type(field).__mro__)
    return next(filter(None, names), "text")


def _taken(field: object, is_written: bool) -> str:
    if not is_written or getattr(field, "read_only", False):
        return "read only"
    return "required" if getattr(field, "required", False) else "optional"
