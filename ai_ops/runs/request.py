"""An old import path for users' scripts; the functions are in `ai_ops.runs.context`."""

from ai_ops.runs.context import limited_to

__all__ = ["limited_to"]
