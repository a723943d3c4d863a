"""The "AI Ops" tab of Nautobot's navigation."""

from nautobot.apps.ui import (
    NavigationWeightChoices,
    NavMenuAddButton,
    NavMenuGroup,
    NavMenuImportButton,
    NavMenuItem,
    NavMenuTab,
)

from ai_ops.kinds import DEFAULT_SCHEDULES
from ai_ops.overview.page import PERMISSIONS

# After Nautobot's own data, and before its settings and Jobs. Tabs without a weight have 1000.
TAB_WEIGHT = NavigationWeightChoices.CLOUD + 50


def _run_item(kind: str, name: str, weight: int) -> NavMenuItem:
    """Return a link to the form of a Job, by its class, because its display name may be changed.

    Nautobot's menu shows only the name and the link of an item; its template has neither icons nor the buttons of
    NavMenuItem. So these items have a group of their own, begin with a verb, and end with an ellipsis, because they
    open a form.
    """
    return NavMenuItem(
        link="extras:job_run_by_class_path",
        kwargs={"class_path": DEFAULT_SCHEDULES[kind].class_path},
        name=name,
        weight=weight,
        permissions=["extras.run_job"],
    )


menu_items = (
    NavMenuTab(
        name="AI Ops",
        icon="control-panel",
        weight=TAB_WEIGHT,
        groups=(
            NavMenuGroup(
                name="Overview",
                weight=50,
                items=(
                    NavMenuItem(
                        link="plugins:ai_ops:overview", name="Overview", weight=100, permissions=list(PERMISSIONS)
                    ),
                ),
            ),
            NavMenuGroup(
                name="MCP",
                weight=100,
                items=(
                    NavMenuItem(
                        link="plugins:ai_ops:mcpserver_list",
                        name="MCP Servers",
                        weight=100,
                        permissions=["ai_ops.view_mcpserver"],
                        buttons=(
                            NavMenuAddButton(link="plugins:ai_ops:mcpserver_add", permissions=["ai_ops.add_mcpserver"]),
                            NavMenuImportButton(
                                link="plugins:ai_ops:mcpserver_import", permissions=["ai_ops.add_mcpserver"]
                            ),
                        ),
                    ),
                    NavMenuItem(
                        link="plugins:ai_ops:mcpserverincident_list",
                        name="Incidents",
                        weight=200,
                        permissions=["ai_ops.view_mcpserverincident"],
                    ),
                    NavMenuItem(
                        link="plugins:ai_ops:mcpservertool_list",
                        name="Tools",
                        weight=250,
                        permissions=["ai_ops.view_mcpservertool"],
                    ),
                    NavMenuItem(
                        link="plugins:ai_ops:mcpservercheck_list",
                        name="Check History",
                        weight=300,
                        permissions=["ai_ops.view_mcpservercheck"],
                    ),
                ),
            ),
            NavMenuGroup(
                name="Checkpoints",
                weight=200,
                items=(
                    NavMenuItem(
                        link="plugins:ai_ops:checkpointstorage",
                        name="Checkpoint Storage",
                        weight=100,
                        permissions=["ai_ops.view_checkpointstoragesnapshot"],
                    ),
                    NavMenuItem(
                        link="plugins:ai_ops:threads",
                        name="Threads",
                        weight=120,
                        permissions=["ai_ops.view_checkpointstoragesnapshot"],
                    ),
                    NavMenuItem(
                        link="plugins:ai_ops:retentionpolicy_list",
                        name="Retention Policies",
                        weight=150,
                        permissions=["ai_ops.view_retentionpolicy"],
                        buttons=(
                            NavMenuAddButton(
                                link="plugins:ai_ops:retentionpolicy_add", permissions=["ai_ops.add_retentionpolicy"]
                            ),
                            NavMenuImportButton(
                                link="plugins:ai_ops:retentionpolicy_import", permissions=["ai_ops.add_retentionpolicy"]
                            ),
                        ),
                    ),
                    NavMenuItem(
                        link="plugins:ai_ops:threaderasure_list",
                        name="Erasures",
                        weight=300,
                        permissions=["ai_ops.view_threaderasure"],
                    ),
                    NavMenuItem(
                        link="plugins:ai_ops:pinnedthread_list",
                        name="Pinned Threads",
                        weight=200,
                        permissions=["ai_ops.view_pinnedthread"],
                        buttons=(
                            NavMenuAddButton(
                                link="plugins:ai_ops:pinnedthread_add", permissions=["ai_ops.add_pinnedthread"]
                            ),
                        ),
                    ),
                ),
            ),
            NavMenuGroup(
                name="Maintenance",
                weight=300,
                items=(
                    NavMenuItem(
                        link="plugins:ai_ops:maintenancerun_list",
                        name="Runs",
                        weight=10,
                        permissions=["ai_ops.view_maintenancerun"],
                    ),
                    NavMenuItem(
                        link="plugins:ai_ops:deadletters",
                        name="Dead Letters",
                        weight=20,
                        permissions=["ai_ops.view_maintenancerun"],
                    ),
                    NavMenuItem(
                        link="plugins:ai_ops:schedules",
                        name="Schedules",
                        weight=30,
                        permissions=["extras.view_scheduledjob"],
                    ),
                ),
            ),
            NavMenuGroup(
                name="Run Now",
                weight=400,
                items=(
                    _run_item("health", "Check MCP Servers…", 100),
                    _run_item("cleanup", "Clean Up Checkpoints…", 200),
                    _run_item("incidents", "Review MCP Incidents…", 300),
                ),
            ),
        ),
    ),
)
