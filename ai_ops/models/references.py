"""References to rows that Nautobot deletes by raw SQL: the results of Jobs and the change log."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models.fields.related_descriptors import ForwardManyToOneDescriptor


class _RowOrNone(ForwardManyToOneDescriptor):
    """A descriptor that returns None for a deleted row, where Django raises DoesNotExist."""

    def get_object(self, instance: models.Model) -> models.Model | None:
        try:
            return super().get_object(instance)
        except self.field.related_model.DoesNotExist:
            return None


class LooseForeignKey(models.ForeignKey):
    """A foreign key to a row that may be deleted by raw SQL; it then reads as None.

    Nautobot's Job "Logs Cleanup" deletes results and changes with a raw statement. A constraint in the database would
    make it fail after it has deleted the log entries of all old results. So there is no constraint, and the column may
    keep the id of a deleted row. If Django deletes the row, `on_delete` applies.
    """

    forward_related_accessor_class = _RowOrNone

    def __init__(self, to: Any, on_delete: Any, **options: Any) -> None:
        options["db_constraint"] = False
        super().__init__(to, on_delete, **options)

    def validate(self, value: Any, model_instance: models.Model | None) -> None:
        """Accept the id of a deleted row, so that a record with one can be saved."""
        # Not ForeignKey's validation, which queries the row.
        models.Field.validate(self, value, model_instance)

    def deconstruct(self) -> Any:
        """Appear in migrations as Django's ForeignKey. Only the constraint differs."""
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.ForeignKey", args, kwargs
