"""Pages of retention policies."""

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.shortcuts import redirect
from django.utils.html import format_html
from nautobot.apps.views import NautobotUIViewSet
from rest_framework.decorators import action

from ai_ops import filters, forms, tables
from ai_ops.api import serializers
from ai_ops.choices import MaintenanceKindChoices, RunTriggerChoices
from ai_ops.details.retention import RETENTION_POLICY_DETAIL
from ai_ops.exceptions import RunNotPermittedError, RunRefusedError
from ai_ops.models import RetentionPolicy
from ai_ops.runs.requests import request_run
from ai_ops.views.long_names import LongNamesMixin


class RetentionPolicyUIViewSet(LongNamesMixin, NautobotUIViewSet):
    """List, detail, edit, delete, bulk actions and import of retention policies."""

    queryset = RetentionPolicy.objects.all()
    serializer_class = serializers.RetentionPolicySerializer
    filterset_class = filters.RetentionPolicyFilterSet
    filterset_form_class = forms.RetentionPolicyFilterForm
    form_class = forms.RetentionPolicyForm
    bulk_update_form_class = forms.RetentionPolicyBulkEditForm
    table_class = tables.RetentionPolicyTable
    object_detail_content = RETENTION_POLICY_DETAIL

    @action(
        detail=True,
        # After a login the request becomes a GET, which requests no run.
        methods=["get", "post"],
        url_path="try",
        url_name="try",
        custom_view_base_action="view",
        custom_view_additional_permissions=["extras.run_job"],
    )
    def dry_run(self, request, *args, **kwargs):
        """Run the cleanup as a dry run in which this policy is enabled."""
        policy = self.get_object()
        if request.method != "POST":
            return redirect(policy)
        try:
            run = request_run(
                MaintenanceKindChoices.CLEANUP,
                {"dryrun": True, "trial_policy": str(policy.pk)},
                request.user,
                trigger=RunTriggerChoices.JOB,
            )
        except RunNotPermittedError as refusal:
            raise PermissionDenied(str(refusal)) from refusal
        except RunRefusedError as refusal:
            messages.warning(request, str(refusal))
            return redirect(policy)
        sentence = 'The dry run <a href="{}">{}</a> has been requested.'
        messages.success(request, format_html(sentence, run.get_absolute_url(), run))
        return redirect(policy)
