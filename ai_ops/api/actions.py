"""Permissions of the REST API, and actions on an object that the user may view, each with its own permission."""

from typing import Any

from django.db.models import QuerySet
from nautobot.core.api.authentication import TokenPermissions


class ModelPermissions(TokenPermissions):
    """Nautobot's permissions of a user, or of a token, for the model of a view."""

    def _queryset(self, view: Any) -> QuerySet:
        # Only the model of the queryset is used. `get_queryset` would build all fields of the serializer, which takes
        # a fifth of a request.
        return view.queryset


class ActionPermissions(ModelPermissions):
    """Require the view permission; the action checks its own on the object."""

    perms_map = {"POST": ["%(app_label)s.view_%(model_name)s"]}


class ActionsViewSetMixin:
    """Restrict actions by the view permission; Nautobot would require the add permission for each POST."""

    def restrict_queryset(self, request, *args, **kwargs):
        """Restrict by the view permission if an action has `ActionPermissions`."""
        if ActionPermissions in self.permission_classes and request.user.is_authenticated:
            self.queryset = self.queryset.restrict(request.user, "view")
        else:
            super().restrict_queryset(request, *args, **kwargs)
