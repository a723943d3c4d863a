"""Pages of pinned threads."""

from nautobot.apps.views import (
    ObjectBulkDestroyViewMixin,
    ObjectChangeLogViewMixin,
    ObjectDestroyViewMixin,
    ObjectDetailViewMixin,
    ObjectEditViewMixin,
    ObjectListViewMixin,
    ObjectNotesViewMixin,
)

from ai_ops import filters, forms, tables
from ai_ops.api import serializers
from ai_ops.details.pinned_threads import PINNED_THREAD_DETAIL
from ai_ops.models import PinnedThread
from ai_ops.views.long_names import LongNamesMixin


class PinnedThreadUIViewSet(
    LongNamesMixin,
    ObjectDetailViewMixin,
    ObjectListViewMixin,
    ObjectEditViewMixin,
    ObjectDestroyViewMixin,
    ObjectBulkDestroyViewMixin,
    ObjectChangeLogViewMixin,
    ObjectNotesViewMixin,
):
    """List, detail, add, edit and delete pinned threads. A pin is for one thread, so there is no bulk edit."""

    queryset = PinnedThread.objects.all()
    serializer_class = serializers.PinnedThreadSerializer
    filterset_class = filters.PinnedThreadFilterSet
    filterset_form_class = forms.PinnedThreadFilterForm
    form_class = forms.PinnedThreadForm
    table_class = tables.PinnedThreadTable
    action_buttons = ("add", "export")
    object_detail_content = PINNED_THREAD_DETAIL
