"""Forks of the test process: other processes of Nautobot, without the ten seconds that an import takes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

from django.db import connections


def start_fork(function: Callable[..., object], *arguments: Any) -> BaseProcess:
    """Call a function in a process of its own, with connections of its own to the same database."""
    # A connection that two processes share belongs to neither.
    connections.close_all()
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments, daemon=True)
    process.start()
    return process
