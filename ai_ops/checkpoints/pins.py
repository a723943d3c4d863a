"""Pins: threads that the cleanup keeps, from Nautobot's database."""

from __future__ import annotations

import time

from django.core.exceptions import ValidationError
from django.db import Error as DatabaseError

from ai_ops.checkpoints.logic.pins import Pins
from ai_ops.exceptions import AiOpsError, ConfigurationError
from ai_ops.logic.foreign_text import shown
from ai_ops.models import PinnedThread

# A run reads the pins again before it deletes, but not more often than this: a read takes a millisecond, a batch ten.
SECONDS_BETWEEN_READS = 1.0


class PinsError(AiOpsError):
    """Nautobot's database could not be read for pins: nothing may be deleted."""


def pin_thread(thread_id: str, note: str = "", *, is_glob: bool | None = None) -> PinnedThread:
    """Pin a thread, or all threads that a glob matches: the cleanup then keeps their checkpoints.

    The thread need not exist yet. A pinned thread may be pinned again; a note replaces the previous one.

    Args:
        thread_id: The thread's id, exactly as in the agent's configuration; or a glob such as ``user-42-*``.
        note: The reason why it must stay, for other operators.
        is_glob: Whether `thread_id` is a glob; None keeps the value of an existing pin, and means False for a new one.

    Returns:
        The pin.

    Raises:
        ConfigurationError: The id or the note can't be stored, for the reason in the message.
        PinsError: The database failed.
    """
    try:
        pin = PinnedThread.objects.filter(thread_id=str(thread_id)).first() or PinnedThread(thread_id=str(thread_id))
        pin.note = note or pin.note
        pin.is_glob = pin.is_glob if is_glob is None else is_glob
        pin.validated_save()
    except ValidationError as error:
        raise ConfigurationError(f"The thread can't be pinned: {' '.join(error.messages)}") from error
    except ValueError as error:
        # The database's driver refuses invalid text, such as an unpaired surrogate.
        raise ConfigurationError(f"No thread can be called {shown(str(thread_id))}: {error}") from error
    except DatabaseError as error:
        raise _pins_error(error) from error
    return pin


def unpin_thread(thread_id: str) -> bool:
    """Unpin a thread; the next cleanup treats it like any other.

    Args:
        thread_id: The thread's id, exactly as it was pinned.

    Returns:
        Whether it was pinned.

    Raises:
        PinsError: The database failed.
    """
    try:
        pin = PinnedThread.objects.filter(thread_id=str(thread_id)).first()
        if pin is not None:
            # One by one instead of as a queryset, so that the change log records it.
            pin.delete()
    except ValueError:
        # The database's driver refuses the text, so it can't have been pinned.
        return False
    except DatabaseError as error:
        raise _pins_error(error) from error
    return pin is not None


def pinned_threads() -> frozenset[str]:
    """Return the ids of the pinned threads, without those that globs match.

    Raises:
        PinsError: The database failed.
    """
    return read_pins().ids


def read_pins() -> Pins:
    """Return the pins in the database.

    Raises:
        PinsError: The database failed.
    """
    try:
        pins = list(PinnedThread.objects.values_list("thread_id", "is_glob"))
    except DatabaseError as error:
        raise _pins_error(error) from error
    return Pins(frozenset(name for name, is_glob in pins if not is_glob), frozenset(n for n, g in pins if g))


class CurrentPins:
    """The current pins during a run: a callable that returns them, at most a second old.

    Args:
        given: Ids of threads that are pinned only for this run.
    """

    def __init__(self, given: frozenset[str] = frozenset()) -> None:
        self._given = given
        self._pins = Pins()
        self._read_at: float | None = None

    def __call__(self) -> Pins:
        """Return the pins; raise PinsError when the database failed."""
        if self._read_at is None or time.monotonic() - self._read_at >= SECONDS_BETWEEN_READS:
            pins = read_pins()
            self._pins = Pins(pins.ids | self._given, pins.globs)
            self._read_at = time.monotonic()
        return self._pins


def _pins_error(error: Exception) -> PinsError:
    message = " ".join(str(error).split())
    return PinsError(
        f"The pinned threads could not be read from Nautobot's database ({message}), so nothing more is deleted. "
        "Check the database, and that nautobot-server migrate has run; the next run tries again."
    )
