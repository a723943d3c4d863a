"""Nautobot settings for the fault tests: those of the local stack, with leases that a test can wait for."""

import os
from contextlib import ExitStack
from typing import Any

from celery.signals import worker_process_init

from development.nautobot_config import *  # noqa: F403

PLUGINS_CONFIG["ai_ops"]["lease_seconds"] = 3  # noqa: F405
# A test waits for beat to have looked around twice.
CELERY_BEAT_MAX_LOOP_INTERVAL = 1
# Nautobot sends no webhook to loopback, whatever its settings say. The proxy is where the test listens.
HTTP_PROXIES = {"http": os.environ["AI_OPS_TEST_WEBHOOK_PROXY"]}


# Of a worker's process, as long as it lives.
_surroundings = ExitStack()


@worker_process_init.connect(weak=False)
def _begin_other_pauses(**_: Any) -> None:
    """Let each check of this process begin within a block of other pauses, where its worker was told to have them."""
    from tests.fakes.runs import with_pauses

    if seconds := os.environ.get("AI_OPS_TEST_PAUSE"):
        _surroundings.enter_context(with_pauses(float(seconds)))
