"""Decisions that every subject needs: standard library only, time is an argument, nothing is read or written."""
