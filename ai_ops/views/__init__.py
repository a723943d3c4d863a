"""Pages of AI Ops, a module for each subject. Nautobot looks for the view of a model here."""

from ai_ops.views.erasures import ThreadErasureUIViewSet
from ai_ops.views.incidents import MCPServerIncidentUIViewSet
from ai_ops.views.pinned_threads import PinnedThreadUIViewSet
from ai_ops.views.retention import RetentionPolicyUIViewSet
from ai_ops.views.runs import DeadLettersView, MaintenanceRunUIViewSet
from ai_ops.views.schedules import SchedulesView
from ai_ops.views.servers import MCPServerCheckUIViewSet, MCPServerUIViewSet
from ai_ops.views.storage import CheckpointStorageSampleView, CheckpointStorageView
from ai_ops.views.threads import ThreadEraseView, ThreadSearchView, ThreadsView
from ai_ops.views.tools import MCPServerToolUIViewSet

__all__ = [
    "CheckpointStorageSampleView",
    "CheckpointStorageView",
    "DeadLettersView",
    "MCPServerCheckUIViewSet",
    "MCPServerIncidentUIViewSet",
    "MCPServerToolUIViewSet",
    "MCPServerUIViewSet",
    "MaintenanceRunUIViewSet",
    "PinnedThreadUIViewSet",
    "RetentionPolicyUIViewSet",
    "SchedulesView",
    "ThreadEraseView",
    "ThreadErasureUIViewSet",
    "ThreadSearchView",
    "ThreadsView",
]
