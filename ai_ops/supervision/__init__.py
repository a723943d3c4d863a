"""Supervision of lost runs, late schedules and old records. A failure of one sub-check does not stop the others."""
