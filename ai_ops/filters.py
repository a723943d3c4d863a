"""Filters of the list pages, the REST API and GraphQL."""

from nautobot.apps.filters import NautobotFilterSet, SearchFilter, StatusModelFilterSetMixin

from ai_ops.models import MCPServer


class MCPServerFilterSet(StatusModelFilterSetMixin, NautobotFilterSet):
    """Filter for MCPServer; every field with Nautobot's usual lookups, such as `url__ic`."""

    q = SearchFilter(
        filter_predicates={
            "name": "icontains",
            "url": "icontains",
            "description": "icontains",
        }
    )

    class Meta:
        """Model and fields."""

        model = MCPServer
        fields = "__all__"
