"""Fields of the REST API whose errors are sentences without Python representations."""

from __future__ import annotations

from typing import Any

from nautobot.apps.api import NautobotHyperlinkedRelatedField
from rest_framework.exceptions import ValidationError
from rest_framework.serializers import ChoiceField

from ai_ops.logic.foreign_text import shown


class SentenceChoiceField(ChoiceField):
    """A choice among texts."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the choice; the error lists all choices."""
        if not isinstance(data, str) or (data not in self.choices and data != ""):
            choices = ", ".join(f'"{each}"' for each in self.choices)
            raise ValidationError(f"{shown(data)} is not a valid choice: give one of {choices}.")
        return super().to_internal_value(data)


class SentenceRelatedField(NautobotHyperlinkedRelatedField):
    """Another object, by its id, its name or some of its attributes."""

    def to_internal_value(self, data: Any) -> Any:
        """Return the object; the error names the object that was not found."""
        try:
            return super().to_internal_value(data)
        except ValidationError as refusal:
            what = self.queryset.model._meta.verbose_name if self.queryset is not None else "object"
            raise ValidationError(
                f"Related object not found. There is no {what} {shown(data)}: give its id, its name, or an object with "
                "attributes that only it has."
            ) from refusal


class SentencesMixin:
    """Gives a serializer these fields."""

    serializer_choice_field = SentenceChoiceField
    serializer_related_field = SentenceRelatedField
