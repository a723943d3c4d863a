"""Loggers whose lines appear in a Job's log, which Nautobot renders as Markdown."""

from __future__ import annotations

import logging

from celery.utils.log import get_task_logger

from ai_ops.logic.foreign_text import HarmlessArguments


def get_logger(name: str) -> logging.Logger:
    """Return the task logger of a module. It escapes the arguments of its lines for Markdown."""
    logger: logging.Logger = get_task_logger(name)
    if not any(isinstance(each, HarmlessArguments) for each in logger.filters):
        logger.addFilter(HarmlessArguments())
    return logger
