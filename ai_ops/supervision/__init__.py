"""Supervision: dead runs, late schedules, old records. A failure of one sub-check does not stop the others."""
