"""Actions of the REST API on an object: of those that the user may view, each with a permission of its own."""

from nautobot.core.api.authentication import TokenPermissions


class ActionPermissions(TokenPermissions):
    """Ask for the permission to view; the action asks for its own, on the object that it found."""

    perms_map = {"POST": ["%(app_label)s.view_%(model_name)s"]}


class ActionsViewSetMixin:
    """Lets actions find what the user may view; Nautobot takes each POST for adding otherwise."""

    def restrict_queryset(self, request, *args, **kwargs):
        """Restrict by the permission to view where an action has `ActionPermissions`."""
        if ActionPermissions in self.permission_classes and request.user.is_authenticated:
            self.queryset = self.queryset.restrict(request.user, "view")
        else:
            super().restrict_queryset(request, *args, **kwargs)
