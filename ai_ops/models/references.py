"""References to rows that Nautobot deletes past Django: the results of Jobs and the change log."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models.fields.related_descriptors import ForwardManyToOneDescriptor


class _RowOrNone(ForwardManyToOneDescriptor):
    """Gives None for a row that is gone, where Django raises DoesNotExist."""

    def get_object(self, instance: models.Model) -> models.Model | None:
        try:
            return super().get_object(instance)
        except self.field.related_model.DoesNotExist:
            return None


class LooseForeignKey(models.ForeignKey):
    """A reference to a row that may be deleted without notice; it reads as None then.

    Nautobot's Job "Logs Cleanup" deletes results and changes with one raw statement. A constraint in the database lets
    that fail, after the log entries of all old results were deleted: so there is none. The column may keep the id of a
    row that is gone. Where Django deletes the row, `on_delete` applies.
    """

    forward_related_accessor_class = _RowOrNone

    def __init__(self, to: Any, on_delete: Any, **options: Any) -> None:
        options["db_constraint"] = False
        super().__init__(to, on_delete, **options)

    def validate(self, value: Any, model_instance: models.Model | None) -> None:
        """Take the id of a row that is gone too: a record that keeps one can be saved."""
        # Not ForeignKey's, which looks for the row.
        models.Field.validate(self, value, model_instance)

    def deconstruct(self) -> Any:
        """Write it to migrations as Django's own: the table knows no difference but the constraint."""
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.ForeignKey", args, kwargs
