"""Filters of the list pages, the REST API and GraphQL."""

from nautobot.apps.filters import (
    MultiValueCharFilter,
    NaturalKeyOrPKMultipleChoiceFilter,
    NautobotFilterSet,
    SearchFilter,
    StatusModelFilterSetMixin,
)
from nautobot.extras.models import SecretsGroup

from ai_ops.models import MCPServer, PinnedThread


class MCPServerFilterSet(StatusModelFilterSetMixin, NautobotFilterSet):
    """Filter for MCPServer; every field with Nautobot's usual lookups, such as `url__ic`."""

    q = SearchFilter(
        filter_predicates={
            "name": "icontains",
            "url": "icontains",
            "description": "icontains",
        }
    )

    secrets_group = NaturalKeyOrPKMultipleChoiceFilter(
        queryset=SecretsGroup.objects.all(), to_field_name="name", label="Secrets group (name or ID)"
    )

    class Meta:
        """Model and fields."""

        model = MCPServer
        fields = "__all__"


class PinnedThreadFilterSet(NautobotFilterSet):
    """Filter for PinnedThread."""

    q = SearchFilter(filter_predicates={"thread_id": "icontains", "note": "icontains"})
    # Blanks at its ends belong to a thread's id.
    thread_id = MultiValueCharFilter(strip=False)

    class Meta:
        """Model and fields."""

        model = PinnedThread
        fields = "__all__"
