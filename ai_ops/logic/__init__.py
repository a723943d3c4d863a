"""Decisions that all packages share: only the standard library, the time as an argument, and no input or output."""
