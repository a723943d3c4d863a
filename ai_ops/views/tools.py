"""Pages of the tools of MCP servers."""

from nautobot.apps.views import (
    ObjectDetailViewMixin,
    ObjectListViewMixin,
)

from ai_ops import filters, forms, tables
from ai_ops.api import serializers
from ai_ops.details.tools import TOOL_DETAIL
from ai_ops.models import (
    MCPServerTool,
)
from ai_ops.views.ids import ID_PATTERN


class MCPServerToolUIViewSet(ObjectDetailViewMixin, ObjectListViewMixin):
    """List and detail of tools. Health checks write them."""

    queryset = MCPServerTool.objects.select_related("server")
    serializer_class = serializers.MCPServerToolSerializer
    filterset_class = filters.MCPServerToolFilterSet
    filterset_form_class = forms.MCPServerToolFilterForm
    table_class = tables.MCPServerToolTable
    action_buttons = ("export",)
    object_detail_content = TOOL_DETAIL
    lookup_value_regex = ID_PATTERN
