"""The overview: the overall state, problems that need the operator, and actions."""

from __future__ import annotations

from django.core.exceptions import PermissionDenied
from django.shortcuts import render
from django.utils import timezone
from nautobot.apps.ui import Titles
from nautobot.apps.views import GenericView

from ai_ops.overview import panels
from ai_ops.overview.page import PERMISSIONS, Overview

# The first line and what needs the operator are made by the page's own template.
ALWAYS_REFRESHED = ("#ai-ops-answer:innerHTML",)


class OverviewView(GenericView):
    """The page "Overview". It reads Nautobot's database, and asks neither Redis nor a worker."""

    view_titles = Titles(titles={"*": "AI Ops"})

    def get(self, request):
        """Show the page to a user who may view a part of it. A page that refreshes itself requests the same."""
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
