"""Nautobot's change log for runs with many changes: write entries together, send events while the Job runs."""

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

# Built for the first MCP server that is serialized in a block of `logged_together`, used for all; None outside. A
# server has thirty fields, with its status's: to build them takes as long as to read them.
fields_of_the_first: ContextVar[dict[str, Any] | None] = ContextVar("fields_of_the_first", default=None)


@contextmanager
def flush_change_events(failed: Callable[[str], None]) -> Iterator[None]:
    """Send the change events of this block (webhooks, Job hooks, brokers) when the block ends, not when the Job ends.

    That may be minutes later, or never: they are not called for a Job whose worker was killed. Without a change log, as
    in a shell, there is nothing to tell.

    Args:
        failed: Gets a sentence where not all could be told. What was saved stays, and the run goes on.
    """
    outer = change_context_state.get()
    if outer is None or (user := outer.get_user()) is None:
        yield
        return
    if not _has_receivers():
        # A context of its own, so that the Job's does not look for receivers either when it ends.
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
        # Brokers may be of any make and raise anything.
        logger.exception("Webhooks, Job hooks and events could not all be sent", extra={"grouping": "summary"})
        failed(f"Not all webhooks, Job hooks and events could be sent ({error}): check the receivers.")


def _has_receivers() -> bool:
    """Return whether changes are sent anywhere.

    Nautobot reads four rows for each change to find out, and what the object was before, which takes a quarter of the
    time of a flip.
    """
    # Without that list, as in another release of Nautobot, it is left to Nautobot to find out.
    brokers = getattr(events, "_EVENT_BROKERS", True)
    return bool(brokers) or any(kind.objects.filter(enabled=True).exists() for kind in (Webhook, JobHook))


@contextmanager
def logged_together() -> Iterator[None]:
    """Serialize the change log entries of this block as a list, and insert them with one statement at its end.

    The block is a transaction, and short: custom fields that are added meanwhile are seen by the next.
    """
    context = change_context_state.get()
    # Nautobot would log once more what was logged before in the same context.
    if context is None or context.deferred_object_changes:
        yield
        return
    token = fields_of_the_first.set({})
    try:
        with deferred_change_logging_for_bulk_operation():
            yield
    finally:
        fields_of_the_first.reset(token)
