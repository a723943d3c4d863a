"""Nautobot's change log for runs with many changes: write entries together, and send events during the Job."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from nautobot.apps.change_logging import change_logging, web_request_context
from nautobot.core import events
from nautobot.extras.context_managers import deferred_change_logging_for_bulk_operation
from nautobot.extras.models import JobHook, Webhook
from nautobot.extras.signals import change_context_state

from ai_ops.runs.logs import get_logger

logger = get_logger(__name__)

# Built for the first MCP server that is serialized in a block of `logged_together`, and used for all; None outside. A
# server has thirty fields, including those of its status. Building them takes as long as reading them.
fields_of_the_first: ContextVar[dict[str, Any] | None] = ContextVar("fields_of_the_first", default=None)


@contextmanager
def flush_change_events(failed: Callable[[str], None]) -> Iterator[None]:
    """Send the change events of this block (webhooks, Job hooks, brokers) when the block ends, not when the Job ends.

    The end of the Job may be minutes later, or never come if its worker is killed. Without a change log, as in a shell,
    there are no events.

    Args:
        failed: Called with a sentence if not all events could be sent. Saved changes stay, and the run continues.
    """
    outer = change_context_state.get()
    if outer is None or (user := outer.get_user()) is None:
        yield
        return
    if not _has_receivers():
        # A separate context, so that the Job's context does not search for receivers at its end.
        with change_logging(type(outer)(user=user, context_detail=outer.context_detail, context=outer.context)):
            yield
        return
    done = False
    try:
        with web_request_context(user, context_detail=outer.context_detail, context=outer.context):
            yield
            done = True
    except SoftTimeLimitExceeded:
        raise
    except Exception as error:
        if not done:
            raise
        # Brokers may be third-party code and raise any error.
        logger.exception("Webhooks, Job hooks and events could not all be sent", extra={"grouping": "summary"})
        failed(f"Not all webhooks, Job hooks and events could be sent ({error}): check the receivers.")


def _has_receivers() -> bool:
    """Return whether changes have receivers.

    For each change Nautobot would read four rows to find out, and the previous state of the object, which takes a
    quarter of the time of a flip.
    """
    # In a release of Nautobot without this list, Nautobot finds out itself.
    brokers = getattr(events, "_EVENT_BROKERS", True)
    return bool(brokers) or any(kind.objects.filter(enabled=True).exists() for kind in (Webhook, JobHook))


@contextmanager
def logged_together() -> Iterator[None]:
    """Serialize the change log entries of this block as a list, and insert them with one statement at its end.

    The block is a short transaction. Custom fields that are added meanwhile are used from the next block on.
    """
    context = change_context_state.get()
    # Nautobot would log earlier changes of the same context again.
    if context is None or context.deferred_object_changes:
        yield
        return
    token = fields_of_the_first.set({})
    try:
        with deferred_change_logging_for_bulk_operation():
            yield
    finally:
        fields_of_the_first.reset(token)
