"""Pages of erasures."""

from nautobot.apps.views import ObjectDetailViewMixin, ObjectListViewMixin

from ai_ops import filters, forms, tables
from ai_ops.api import serializers
from ai_ops.details.erasures import ERASURE_DETAIL
from ai_ops.models import ThreadErasure
from ai_ops.views.ids import ID_PATTERN
from ai_ops.views.long_names import LongNamesMixin


class ThreadErasureUIViewSet(LongNamesMixin, ObjectDetailViewMixin, ObjectListViewMixin):
    """List and detail of erasures. Pages can't add, edit or delete these records, which are evidence."""

    queryset = ThreadErasure.objects.select_related("requested_by")
    serializer_class = serializers.ThreadErasureSerializer
    filterset_class = filters.ThreadErasureFilterSet
    filterset_form_class = forms.ThreadErasureFilterForm
    table_class = tables.ThreadErasureTable
    action_buttons = ("export",)
    object_detail_content = ERASURE_DETAIL
    lookup_value_regex = ID_PATTERN
