"""Maintenance runs: records, leases, heartbeats and retries, so that work survives a killed worker."""
