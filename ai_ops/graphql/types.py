"""GraphQL types that Nautobot does not generate correctly."""

import graphene
from graphene_django_optimizer import resolver_hints
from nautobot.apps.graphql import OptimizedNautobotObjectType

from ai_ops.filters import MCPServerFilterSet
from ai_ops.models import MCPServer


class MCPServerType(OptimizedNautobotObjectType):
    """An MCP server: `url` is the address of its record in the REST API, `server_url` the server's own."""

    # Declared, because otherwise the model's field of that name would be used.
    url = graphene.String()
    server_url = graphene.String()

    class Meta:
        """Model and filters."""

        model = MCPServer
        filterset_class = MCPServerFilterSet

    def resolve_url(self, info):
        """Resolve to the address, as all types do."""
        return self.get_absolute_url(api=True)

    @resolver_hints(only=("url",))
    def resolve_server_url(self, info):
        """Resolve to the model's field `url`."""
        return self.url


graphql_types = [MCPServerType]
