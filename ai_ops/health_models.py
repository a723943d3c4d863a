"""An old import path for the migrations 0004 and 0009; the models are in `ai_ops.models.health`."""

from ai_ops.models.health import delete_unread

__all__ = ["delete_unread"]
