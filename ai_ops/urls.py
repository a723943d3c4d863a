"""Addresses of the pages, below /plugins/ai-ops/."""

from nautobot.apps.urls import NautobotUIViewSetRouter

from ai_ops import views

app_name = "ai_ops"

router = NautobotUIViewSetRouter()
router.register("mcp-servers", views.MCPServerUIViewSet)

urlpatterns = router.urls
