"""The savers' own errors. What the server or the connection reports is raised as redis-py raises it."""

from __future__ import annotations


class CompactSaverError(Exception):
    """The base of the errors below."""


class UnsupportedFormatError(CompactSaverError):
    """A newer version of this package wrote the thread."""


class DamagedThreadError(CompactSaverError):
    """A thread holds what no version of this package has written there."""


class ThreadBusyError(CompactSaverError):
    """A thread was written to again and again while checkpoints were to be deleted from it."""
