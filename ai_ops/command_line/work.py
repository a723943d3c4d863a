"""Commands that do work: cleanup, check, storage --sample, threads."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.contrib.auth import get_user_model
from nautobot.apps.change_logging import web_request_context

from ai_ops import celery_tasks
from ai_ops.choices import RunStateChoices
from ai_ops.command_line.answers import NEEDS_YOU, NOT_KNOWN, WELL, Answer, Table
from ai_ops.command_line.views import storage
from ai_ops.exceptions import ConfigurationError
from ai_ops.logic.foreign_text import shown
from ai_ops.mcp.incidents import send_test_incident
from ai_ops.models import MCPServer
from ai_ops.notifications import add_receiver, allow_job_hook
from ai_ops.runs.service_user import service_user

# The parent of every logger of the tasks.
TASK_LOGGER = "celery.task"


@contextmanager
def progress_on_stderr(is_quiet: bool) -> Iterator[None]:
    """Print the log lines of the Job while the work goes on."""
    logger = logging.getLogger(TASK_LOGGER)
    handler: logging.Handler = logging.NullHandler() if is_quiet else logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    # Nautobot's own handlers would print the lines a second time.
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


@contextmanager
def changes_by(name: str | None) -> Iterator[Any]:
    """Record the changes of the block in the change log, as changes by a user.

    Args:
        name: Name of the user; None for the user of the app's schedules.

    Raises:
        ConfigurationError: There is no such user.
    """
    user = service_user() if name is None else get_user_model().objects.filter(username=name).first()
    if user is None:
        raise ConfigurationError(f"There is no user {shown(name)}: give the name of a user in --user.")
    with web_request_context(user, context_detail="nautobot-server ai_ops"):
        yield user


def cleanup(options: Mapping[str, Any], dryrun: bool) -> Answer:
    """Clean up old checkpoints in this process."""
    given = {name: value for name, value in options.items() if value is not None}
    retention = given.pop("retention_days", None)
    report = celery_tasks.cleanup_old_checkpoints(retention, dryrun, **given)
    if failure := _not_done(report):
        return failure
    verb = "would delete" if dryrun else "deleted"
    names = ("deleted_count", "threads_deleted", "checkpoints_trimmed", "processed_count", "policy")
    deleted, threads, trimmed, processed, policy = (report[name] for name in names)
    line = (
        f"The cleanup {verb} {deleted:,} of {processed:,} keys: {threads:,} whole threads, and {trimmed:,} old "
        f"checkpoints of live ones. {policy}"
    )
    return Answer(WELL, report, (line,))


def check(names: list[str]) -> Answer:
    """Check the due servers, or the named ones."""
    if not names:
        report = celery_tasks.perform_mcp_health_checks()
        if failure := _not_done(report):
            return failure
        line = (
            f"{report['checked_count']:,} servers checked, {report['failed_count']:,} failed, "
            f"{report['changed_count']:,} changed their status."
        )
        return Answer(NEEDS_YOU if report["failed_count"] else WELL, report, (line,))
    reports = [_checked(name) for name in names]
    rows = tuple(
        (each["server"], _verdict(each), each["status_after"], each.get("latency_ms"), each["error"] or each["message"])
        for each in reports
    )
    codes = {NOT_KNOWN if not each["success"] or each["ok"] is None else not each["ok"] for each in reports}
    code = NEEDS_YOU if True in codes else NOT_KNOWN if NOT_KNOWN in codes else WELL
    return Answer(code, reports, (), (Table(("server", "answer", "status", "latency (ms)", "message"), rows),))


def _checked(name: str) -> dict[str, Any]:
    pk = MCPServer.objects.filter(name=name).values_list("pk", flat=True).first()
    if pk is None:
        error = f"There is no MCP server called {shown(name)}."
        return dict.fromkeys(("ok", "status_after", "message")) | {"success": False, "server": name, "error": error}
    return celery_tasks.check_mcp_server_health(pk)


def _verdict(report: Mapping[str, Any]) -> str:
    if not report["success"] or report["ok"] is None:
        return "not known"
    return "well" if report["ok"] else str(report["reason"])


def sample() -> Answer:
    """Sample the checkpoint Redis now, and show the result."""
    report = celery_tasks.sample_checkpoint_storage()
    return _not_done(report) or storage()


def explain(thread: str) -> Answer:
    """Explain what the next cleanup would do with a thread, and why."""
    report = celery_tasks.explain_thread(thread)
    if not report["success"]:
        return Answer(NOT_KNOWN, report, (str(report["error"]),))
    if not report["found"]:
        return Answer(NOT_KNOWN, report, (f"Nothing of the thread {shown(thread)} is in Redis.", *report["notes"]))
    holder = report["policy"] or "the configured options"
    lines = (f"{report['decision']} By {holder}: {report['retention']}", *report["notes"])
    rows = tuple(
        (space["name"], each["checkpoint_id"], each["time"], "deletes" if each["goes"] else "keeps", each["rule"])
        for space in report["namespaces"]
        for each in space["checkpoints"]
    )
    return Answer(WELL, report, lines, (Table(("namespace", "checkpoint", "time", "next cleanup", "rule"), rows),))


def find(pattern: str) -> Answer:
    """Find the threads whose ids match a glob."""
    report = celery_tasks.find_threads(pattern)
    if failure := _not_done(report):
        return failure
    seen = f"{'all' if report['complete'] else 'about'} {report['looked_at']:,} of {report['database_keys']:,}"
    line = f"{report['thread_count']:,} threads match, with {report['key_count']:,} keys; {seen} keys were scanned."
    columns = ("thread", "state", "last_activity", "checkpoints", "bytes", "policy", "saver")
    rows = tuple(tuple(each[name] for name in columns) for each in report["threads"])
    return Answer(WELL, report, (line,), (Table(("thread", "state", "last active", *columns[3:]), rows),))


def erase(options: Mapping[str, Any]) -> Answer:
    """Delete whole threads, and verify that no key is left."""
    report = celery_tasks.erase_threads(
        options["threads"],
        options["pattern"],
        store_namespaces=options["store_namespace"],
        reason=options["reason"],
        include_pinned=options["include_pinned"],
        dryrun=options["dry_run"],
    )
    if failure := _not_done(report):
        return failure
    verb = "would be deleted" if report["dryrun"] else "were deleted"
    line = f"{report['deleted_count']:,} keys of {report['thread_count']:,} threads {verb}."
    more = (
        ()
        if report["dryrun"]
        else ("A final scan found no keys left." if report["verified"] else "The erasure was not verified.",)
    )
    return Answer(WELL, report, (line, *more))


def pin(thread: str, note: str) -> Answer:
    """Pin a thread."""
    celery_tasks.pin_thread(thread, note)
    return Answer(WELL, {"thread": thread, "pinned": True}, (f"The thread {shown(thread)} is pinned.",))


def unpin(thread: str) -> Answer:
    """Unpin a thread."""
    was = celery_tasks.unpin_thread(thread)
    state = "is no longer pinned" if was else "was not pinned"
    return Answer(
        WELL, {"thread": thread, "pinned": False, "was_pinned": was}, (f"The thread {shown(thread)} {state}.",)
    )


def test_notification(user: Any) -> Answer:
    """Create a test incident."""
    incident = send_test_incident(user)
    line = f"{incident} was created: see whether its notification arrives."
    return Answer(WELL, {"id": str(incident.pk), "name": incident.name}, (line,))


def add_webhook(receiver: str, url: str, options: Mapping[str, str]) -> Answer:
    """Create the webhook that notifies a receiver of incidents."""
    webhook = add_receiver(receiver, url, **options)
    line = f'The webhook "{webhook.name}" notifies {receiver} of incidents. Test it: nautobot-server ai_ops notify test'
    return Answer(WELL, {"id": str(webhook.pk), "name": webhook.name}, (line,))


def allow_hook(class_path: str) -> Answer:
    """Let scheduled runs call the Job of a Job hook."""
    permission = allow_job_hook(class_path)
    line = f'The app\'s scheduled runs may call {shown(class_path)}, by the permission "{permission.name}".'
    return Answer(WELL, {"id": str(permission.pk), "name": permission.name}, (line,))


def _not_done(report: Mapping[str, Any]) -> Answer | None:
    """Return the answer for a run that failed or was skipped; None if the run did its work."""
    run = report.get("run") or {}
    if run.get("state") == RunStateChoices.SKIPPED:
        return Answer(NOT_KNOWN, report, (f"The run did no work: {run.get('note')}",))
    if not report["success"]:
        return Answer(NEEDS_YOU, report, (str(report["error"]),))
    return None
