"""Decisions on checkpoints: standard library only, with the time as an argument, and no input or output."""
