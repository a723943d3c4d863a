"""The page of a retention policy: its panels and buttons."""

from __future__ import annotations

from django.db.models import Q
from django.template.loader import render_to_string
from django.utils.html import format_html
from nautobot.apps.templatetags import hyperlinked_object
from nautobot.apps.ui import (
    ButtonColorChoices,
    ObjectDetailContent,
    Panel,
    PostButton,
    SectionChoices,
)
from nautobot.apps.views import get_obj_from_context

from ai_ops.checkpoints.snapshots import latest_snapshots
from ai_ops.choices import MaintenanceKindChoices, RunStateChoices
from ai_ops.models import CheckpointStorageSnapshot, MaintenanceRun
from ai_ops.runs.permissions import may_run
from ai_ops.ui.panels import FactsPanel, FieldsPanel


class RetentionPolicyFieldsPanel(FieldsPanel):
    """The fields of a policy; the run provides the value of an empty field."""

    def render_value(self, key, value, context):
        """Show each pattern on a line of its own, and say where an empty field gets its value from."""
        if key == "thread_patterns":
            return format_html('<span style="white-space: pre-wrap; word-break: break-all">{}</span>', value)
        if key in INHERITED and value in ("", None):
            return format_html('<span class="text-secondary">{}</span>', "from the run's options")
        return super().render_value(key, value, context)


class PolicyMatchesPanel(FactsPanel):
    """The threads that a policy matched at the last sampling, and the keys that a cleanup would delete."""

    def render_key(self, key, value, context):
        """Keep the capital letters of the label."""
        return key

    def get_data(self, context):
        """Read the last sample, and the last dry run that tried the policy."""
        policy, user = get_obj_from_context(context), context["request"].user
        facts = _sampled(policy, user)
        if tried := _last_trial(policy, user):
            counts = ((tried.job_result.result or {}).get("policies") or {}).get(policy.name)
            if counts:
                facts["Last dry run"] = hyperlinked_object(tried)
                facts |= {f"Dry run: {name.lower()}": value for name, value in _in_words(counts).items()}
        return facts


def _sampled(policy, user):
    snapshot = latest_snapshots(CheckpointStorageSnapshot.objects.restrict(user, "view"))[0]
    counts = ((snapshot.data.get("policies") or {}) if snapshot else {}).get(policy.name)
    if not policy.enabled:
        return {"Sample": "The policy is not enabled. Press Dry run to see its effect."}
    if snapshot is None or counts is None:
        return {
            "Sample": "There is no sample with this policy yet: refresh the page Checkpoint Storage, or press Dry run."
        }
    if policy.last_updated and policy.last_updated > snapshot.taken:
        return {"Sample": "The policy has changed since the last sampling. Press Dry run to see its effect now."}
    return {"Sampled": snapshot.taken, **_in_words(counts)}


def _in_words(counts):
    to_delete, to_keep = counts["threads_deleted"], counts["threads_kept"]
    return {
        "Matching threads": f"{to_delete + to_keep:,}",
        "Whole threads to delete": f"{to_delete:,}",
        "Checkpoints of live threads to delete": f"{counts['checkpoints_trimmed']:,}",
        "Keys to delete": f"{counts['deleted_count']:,}",
    }


def _last_trial(policy, user):
    runs = MaintenanceRun.objects.restrict(user, "view").filter(
        kind=MaintenanceKindChoices.CLEANUP,
        state=RunStateChoices.SUCCEEDED,
        options__trial_policy=str(policy.pk),
    )
    if policy.last_updated:
        runs = runs.filter(created__gte=policy.last_updated)
    run = runs.first()
    return run if run and run.job_result else None


class TrialFollowingPanel(Panel):
    """A line that keeps the page of a policy up to date while a dry run tries it."""

    def should_render(self, context):
        """Show the line while such a run is pending or running."""
        return super().should_render(context) and self._trial(context) is not None

    def render(self, context):
        """Render the line without the frame of a panel."""
        trial = self._trial(context)
        if trial is None:
            return ""
        following = {"following": f"A dry run of this policy is {trial.state}."}
        return render_to_string("ai_ops/inc/following.html", following, request=context["request"])

    @staticmethod
    def _trial(context):
        policy, user = get_obj_from_context(context), context["request"].user
        runs = MaintenanceRun.objects.restrict(user, "view").filter(
            kind=MaintenanceKindChoices.CLEANUP, options__trial_policy=str(policy.pk)
        )
        # A run that waits for approval has no due time.
        waits = Q(state=RunStateChoices.PENDING, next_attempt__isnull=False)
        return runs.filter(waits | Q(state=RunStateChoices.RUNNING)).first()


class DryRunButton(PostButton):
    """Run the cleanup as a dry run in which the policy is enabled."""

    def should_render(self, context):
        """Show the button to users who may run the Job."""
        return super().should_render(context) and may_run("cleanup", context["request"].user)


INHERITED = ("retention", "pending_retention", "trim_live_threads", "keep_last")

RETENTION_POLICY_DETAIL = ObjectDetailContent(
    panels=(
        TrialFollowingPanel(weight=10, section=SectionChoices.FULL_WIDTH),
        RetentionPolicyFieldsPanel(
            weight=100,
            section=SectionChoices.LEFT_HALF,
            fields=(
                "name",
                "weight",
                "enabled",
                "thread_patterns",
                "retention",
                "pending_retention",
                "trim_live_threads",
                "keep_last",
                "max_checkpoints",
                "max_thread_mb",
                "description",
            ),
        ),
        PolicyMatchesPanel(weight=100, section=SectionChoices.RIGHT_HALF, label="Matches"),
    ),
    extra_buttons=(
        DryRunButton(
            weight=100,
            label="Dry run",
            icon="mdi-test-tube",
            color=ButtonColorChoices.BLUE,
            link_name="plugins:ai_ops:retentionpolicy_try",
        ),
    ),
)
