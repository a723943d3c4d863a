"""Supervision: runs that died, schedules that are late, old records; each sub-check fails alone."""
