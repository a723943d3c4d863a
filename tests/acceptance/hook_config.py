"""Nautobot settings for the test of webhooks and Job hooks: short pauses, and webhooks by way of a proxy."""

import os
from contextlib import ExitStack
from typing import Any

from celery.signals import worker_process_init

from development.nautobot_config import *  # noqa: F403

# Nautobot sends no webhook to loopback, whatever its settings say. The proxy is where the test listens.
HTTP_PROXIES = {"http": os.environ["AI_OPS_TEST_WEBHOOK_PROXY"]}


# Of a worker's process, as long as it lives.
_surroundings = ExitStack()


@worker_process_init.connect(weak=False)
def _begin_short_pauses(**_: Any) -> None:
    """Let each check of this process begin within a block of short pauses."""
    from tests.fakes.runs import with_pauses

    _surroundings.enter_context(with_pauses(0.05))
