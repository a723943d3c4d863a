"""Nautobot settings for the fault tests: those of the local stack, with leases that a test can wait for."""

from development.nautobot_config import *  # noqa: F403

PLUGINS_CONFIG["ai_ops"]["lease_seconds"] = 3  # noqa: F405
# A test waits for beat to have looked around twice.
CELERY_BEAT_MAX_LOOP_INTERVAL = 1
