"""Nautobot settings for the test of webhooks and Job hooks: short pauses, and webhooks by way of a proxy."""

import os
from typing import Any

from celery.signals import worker_process_init

from development.nautobot_config import *  # noqa: F403

# Nautobot sends no webhook to loopback, whatever its settings say. The proxy is where the test listens.
HTTP_PROXIES = {"http": os.environ["AI_OPS_TEST_WEBHOOK_PROXY"]}


@worker_process_init.connect(weak=False)
def _short_pauses(**_: Any) -> None:
    from ai_ops.mcp import check as health_run

    health_run.PAUSE_SECONDS = 0.05
