"""The savers' own errors. Errors of the server and of the connection stay those of redis-py."""

from __future__ import annotations


class CompactSaverError(Exception):
    """The base of the errors below."""


class UnsupportedFormatError(CompactSaverError):
    """A newer version of this package wrote the thread."""


class DamagedThreadError(CompactSaverError):
    """A thread contains data that no version of this package has written."""


class ThreadBusyError(CompactSaverError):
    """Writes to a thread interrupted every attempt to delete checkpoints from it."""
