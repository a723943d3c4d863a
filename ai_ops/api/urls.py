"""Addresses of the REST API, below /api/plugins/ai-ops/."""

from nautobot.apps.api import OrderedDefaultRouter

from ai_ops.api import run_views, schedule_views, thread_views, views

app_name = "ai_ops-api"

router = OrderedDefaultRouter()
router.register("mcp-servers", views.MCPServerViewSet)
router.register("mcp-server-health", views.MCPServerHealthViewSet)
router.register("mcp-server-checks", views.MCPServerCheckViewSet)
router.register("mcp-server-incidents", views.MCPServerIncidentViewSet)
router.register("mcp-server-tools", views.MCPServerToolViewSet)
router.register("mcp-server-tool-sets", views.MCPServerToolSetViewSet)
router.register("pinned-threads", views.PinnedThreadViewSet)
router.register("retention-policies", views.RetentionPolicyViewSet)
router.register("thread-erasures", views.ThreadErasureViewSet)
router.register("runs", run_views.MaintenanceRunViewSet)
router.register("threads", thread_views.ThreadViewSet, basename="thread")
router.register("schedules", schedule_views.ScheduleViewSet, basename="schedule")

urlpatterns = router.urls
