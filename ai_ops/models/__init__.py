"""The app's tables in Nautobot's database, a module for each subject."""

from ai_ops.models.erasures import ThreadErasure
from ai_ops.models.generation import AgentGeneration
from ai_ops.models.health import MCPServerCheck, MCPServerCheckHour, MCPServerHealth
from ai_ops.models.incidents import MCPServerIncident
from ai_ops.models.pinned_threads import THREAD_ID_MAX_LENGTH, PinnedThread
from ai_ops.models.provisioning import ProvisioningRecord
from ai_ops.models.retention import RetentionPolicy
from ai_ops.models.runs import MaintenanceLease, MaintenanceRun
from ai_ops.models.servers import MAX_CHECK_INTERVAL, MCPServer, unhealthy_status_pk
from ai_ops.models.storage import CheckpointStorageSnapshot
from ai_ops.models.tools import MCPServerTool, MCPServerToolSet
from ai_ops.models.totals import Total

__all__ = (
    "MAX_CHECK_INTERVAL",
    "THREAD_ID_MAX_LENGTH",
    "AgentGeneration",
    "CheckpointStorageSnapshot",
    "MCPServer",
    "MCPServerCheck",
    "MCPServerCheckHour",
    "MCPServerHealth",
    "MCPServerIncident",
    "MCPServerTool",
    "MCPServerToolSet",
    "MaintenanceLease",
    "MaintenanceRun",
    "PinnedThread",
    "ProvisioningRecord",
    "RetentionPolicy",
    "ThreadErasure",
    "Total",
    "unhealthy_status_pk",
)
