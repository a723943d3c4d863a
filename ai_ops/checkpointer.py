"""The checkpoint Redis for agents and shells: its client, the agents' saver, and a description of both.

`ai_ops.checkpoints.connection` has the implementation, and documents the environment variables.
"""

from ai_ops.checkpoints.connection import (
    Checkpointer,
    CheckpointRedis,
    describe_checkpoint_redis,
    get_checkpointer,
    get_redis_connection,
    get_redis_url,
)

__all__ = [
    "CheckpointRedis",
    "Checkpointer",
    "describe_checkpoint_redis",
    "get_checkpointer",
    "get_redis_connection",
    "get_redis_url",
]
