"""Maintenance runs that survive: records, leases, heartbeats, retries."""
