"""A checkpoint saver for LangGraph on any Redis or Valkey and any database; its memory grows linearly with turns."""

from langgraph_checkpoint_compact.errors import (
    CompactSaverError,
    DamagedThreadError,
    ThreadBusyError,
    UnsupportedFormatError,
)
from langgraph_checkpoint_compact.migration import Migration, MigrationError, amigrate_threads, migrate_threads
from langgraph_checkpoint_compact.saver import AsyncCompactRedisSaver, CompactRedisSaver

__all__ = [
    "AsyncCompactRedisSaver",
    "CompactRedisSaver",
    "CompactSaverError",
    "DamagedThreadError",
    "Migration",
    "MigrationError",
    "ThreadBusyError",
    "UnsupportedFormatError",
    "amigrate_threads",
    "migrate_threads",
]
__version__ = "0.1.0"
