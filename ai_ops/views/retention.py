"""Pages of retention policies and erasures."""

from nautobot.apps.views import NautobotUIViewSet, ObjectDetailViewMixin, ObjectListViewMixin

from ai_ops import filters, forms, tables
from ai_ops.api import serializers
from ai_ops.details.retention import ERASURE_DETAIL, RETENTION_POLICY_DETAIL
from ai_ops.models import RetentionPolicy, ThreadErasure
from ai_ops.views.ids import ID_PATTERN


class RetentionPolicyUIViewSet(NautobotUIViewSet):
    """List, detail, edit, delete, bulk actions and import of retention policies."""

    queryset = RetentionPolicy.objects.all()
    serializer_class = serializers.RetentionPolicySerializer
    filterset_class = filters.RetentionPolicyFilterSet
    filterset_form_class = forms.RetentionPolicyFilterForm
    form_class = forms.RetentionPolicyForm
    bulk_update_form_class = forms.RetentionPolicyBulkEditForm
    table_class = tables.RetentionPolicyTable
    object_detail_content = RETENTION_POLICY_DETAIL


class ThreadErasureUIViewSet(ObjectDetailViewMixin, ObjectListViewMixin):
    """List and detail of erasures. The records are evidence: nothing adds, edits or deletes them here."""

    queryset = ThreadErasure.objects.select_related("requested_by")
    serializer_class = serializers.ThreadErasureSerializer
    filterset_class = filters.ThreadErasureFilterSet
    filterset_form_class = forms.ThreadErasureFilterForm
    table_class = tables.ThreadErasureTable
    action_buttons = ("export",)
    object_detail_content = ERASURE_DETAIL
    lookup_value_regex = ID_PATTERN
