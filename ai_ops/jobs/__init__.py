"""Nautobot Jobs: their form variables, log lines and outcomes. ``ai_ops.celery_tasks`` does the work."""

from nautobot.apps.jobs import register_jobs

from ai_ops.jobs.checkpoint_cleanup import CleanupCheckpointsJob
from ai_ops.jobs.checkpoint_storage import SampleCheckpointStorageJob
from ai_ops.jobs.conversation_moves import MoveConversationsJob
from ai_ops.jobs.erasure import EraseConversationsJob
from ai_ops.jobs.mcp_health_check import MCPServerHealthCheckJob
from ai_ops.jobs.mcp_incidents import CloseResolvedIncidentsJob
from ai_ops.jobs.supervisor import SuperviseRunsJob
from ai_ops.jobs.thread_search import FindThreadsJob

jobs = [
    CleanupCheckpointsJob,
    SampleCheckpointStorageJob,
    MoveConversationsJob,
    EraseConversationsJob,
    FindThreadsJob,
    MCPServerHealthCheckJob,
    CloseResolvedIncidentsJob,
    SuperviseRunsJob,
]
register_jobs(*jobs)
