"""The names that users' scripts, migrations and the documentation import stay where they are."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from ai_ops.kinds import ALL_KINDS

PROJECT = Path(__file__).parents[2]
# What a developer writes by the page "Extending".
YET_TO_WRITE = {("ai_ops.celery_tasks", "review_old_pins")}


def documented():
    """Each (module, name) that an example of the documentation imports, or that its text calls."""
    for path in sorted([*(PROJECT / "docs").rglob("*.md"), PROJECT / "README.md"]):
        text = path.read_text()
        for module, names in re.findall(r"^ *from (ai_ops[\w.]*) import ([\w, ]+)$", text, re.MULTILINE):
            yield from ((module, name.strip()) for name in names.split(","))
        yield from re.findall(r"`(ai_ops(?:\.[a-z_]+)+)\.(\w+)\(", text)


DOORS = {
    "ai_ops.celery_tasks": (
        "check_mcp_server_health",
        "cleanup_old_checkpoints",
        "cleanup_user_checkpoints",
        "erase_threads",
        "explain_thread",
        "find_threads",
        "get_recent_runs",
        "pin_thread",
        "unpin_thread",
        "close_resolved_incidents",
        "move_conversations",
        "perform_mcp_health_checks",
        "sample_checkpoint_storage",
        "supervise",
    ),
    "ai_ops.checkpointer": ("describe_checkpoint_redis", "get_checkpointer", "get_redis_connection", "get_redis_url"),
    "ai_ops.agents": ("clear_mcp_cache", "current_generation"),
    "ai_ops.agents.tools": ("get_tools",),
    "ai_ops.agents.mcp_client": ("get_mcp_client",),
    "ai_ops.schedules": ("DEFAULT_SCHEDULES", "ensure_schedule", "find_job", "service_user", "schedule_once"),
    "ai_ops.schedule_control": (
        "pause_schedule",
        "remove_schedule",
        "resume_schedule",
        "retime_schedule",
        "schedule_once",
        "schedule_runs",
    ),
    "ai_ops.schedule_status": ("get_schedule_status", "get_scheduler_status", "is_scheduler_running"),
    "ai_ops.runs.requests": ("cancel_run", "discard_run", "redrive_run", "request_run"),
    "ai_ops.runs.request": ("limited_to",),
    "ai_ops.models": (
        "AgentGeneration",
        "CheckpointStorageSnapshot",
        "MCPServer",
        "MCPServerCheck",
        "MCPServerHealth",
        "MCPServerIncident",
        "MCPServerTool",
        "MCPServerToolSet",
        "MaintenanceLease",
        "MaintenanceRun",
        "PinnedThread",
        "ProvisioningRecord",
        "unhealthy_status_pk",
    ),
    "ai_ops.health_models": ("delete_unread",),
    "ai_ops.validators": ("validate_path", "validate_server_url", "validate_ca_file"),
    "ai_ops.jobs.checkpoint_cleanup": ("CleanupCheckpointsJob",),
    "ai_ops.jobs.mcp_health_check": ("MCPServerHealthCheckJob",),
}


@pytest.mark.parametrize("door", DOORS)
def test_what_scripts_and_migrations_import_stays_there(door):
    module = import_module(door)
    assert [name for name in DOORS[door] if not hasattr(module, name)] == []


@pytest.mark.parametrize(("module", "name"), sorted(set(documented()) - YET_TO_WRITE))
def test_what_the_documentation_imports_is_there(module, name):
    assert hasattr(import_module(module), name)


@pytest.mark.parametrize("path", sorted({kind.job for kind in ALL_KINDS if kind.job}))
def test_the_job_of_each_kind_is_where_schedules_name_it(path):
    module, _, name = path.rpartition(".")
    assert import_module(module).__name__.startswith("ai_ops.jobs.")
    assert hasattr(import_module(module), name)
