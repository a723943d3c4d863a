"""Addresses of the pages, below /plugins/ai-ops/."""

from django.urls import path
from django.views.generic import RedirectView
from nautobot.apps.urls import NautobotUIViewSetRouter

from ai_ops import views
from ai_ops.overview.views import OverviewView

app_name = "ai_ops"

router = NautobotUIViewSetRouter()
router.register("mcp-servers", views.MCPServerUIViewSet)
router.register("mcp-server-checks", views.MCPServerCheckUIViewSet)
router.register("mcp-server-incidents", views.MCPServerIncidentUIViewSet)
router.register("mcp-server-tools", views.MCPServerToolUIViewSet)
router.register("pinned-threads", views.PinnedThreadUIViewSet)
router.register("retention-policies", views.RetentionPolicyUIViewSet)
router.register("thread-erasures", views.ThreadErasureUIViewSet)
router.register("runs", views.MaintenanceRunUIViewSet)

urlpatterns = [
    path("", OverviewView.as_view(), name="overview"),
    # Nautobot serves ai_ops/docs itself. This adds the name for `docs_view_name`.
    path(
        "docs/",
        RedirectView.as_view(pattern_name="docs_file"),
        {"app_base_url": "ai-ops", "path": "index.html"},
        name="docs",
    ),
    path("checkpoint-storage/", views.CheckpointStorageView.as_view(), name="checkpointstorage"),
    path("checkpoint-storage/sample/", views.CheckpointStorageSampleView.as_view(), name="checkpointstorage_sample"),
    path("threads/", views.ThreadsView.as_view(), name="threads"),
    path("threads/search/", views.ThreadSearchView.as_view(), name="thread_search"),
    path("threads/erase/", views.ThreadEraseView.as_view(), name="thread_erase"),
    path("schedules/", views.SchedulesView.as_view(), name="schedules"),
    path("dead-letters/", views.DeadLettersView.as_view(), name="deadletters"),
    *router.urls,
]
