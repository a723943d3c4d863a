"""Actions of the REST API on an object that the user may view, each with its own permission."""

from nautobot.core.api.authentication import TokenPermissions


class ActionPermissions(TokenPermissions):
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
