"""The view of the overview."""

from __future__ import annotations

from django.core.exceptions import PermissionDenied
from django.shortcuts import render
from django.utils import timezone
from nautobot.apps.ui import Titles
from nautobot.apps.views import GenericView

from ai_ops.overview import panels
from ai_ops.overview.page import PERMISSIONS, Overview

# The template of the page renders the first line and the items that need the operator.
ALWAYS_REFRESHED = ("#ai-ops-answer:innerHTML",)


class OverviewView(GenericView):
    """The page "Overview". It reads only Nautobot's database, and uses neither Redis nor workers."""

    view_titles = Titles(titles={"*": "AI Ops"})

    def get(self, request):
        """Show the page to users with permission for one of its parts. A refresh makes the same request."""
        if not any(request.user.has_perm(permission) for permission in PERMISSIONS):
            raise PermissionDenied
        refreshed = [name for panel in panels.PANELS for name in panel.refreshed()]
        context = {
            "view_titles": self.get_view_titles(),
            "overview": Overview(request.user, timezone.now()),
            "refreshed": ",".join([*ALWAYS_REFRESHED, *refreshed]),
            "first_panels": panels.FIRST_PANELS,
            "full_width_panels": (),
            "left_half_panels": panels.LEFT_PANELS,
            "right_half_panels": panels.RIGHT_PANELS,
        }
        return render(request, "ai_ops/overview.html", context)
