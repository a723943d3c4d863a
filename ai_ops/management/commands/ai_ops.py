"""``nautobot-server ai_ops``: status, cleanup, check, runs, schedules, threads, storage, notify, doctor."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ai_ops.choices import MaintenanceKindChoices, RunStateChoices
from ai_ops.command_line import views, work
from ai_ops.command_line.answers import NOT_KNOWN, Answer, as_json, as_text, print_tables
from ai_ops.exceptions import AiOpsError
from ai_ops.notifications.hooks import PAGERDUTY, PAGERDUTY_URL, RECEIVERS
from ai_ops.runs.infrastructure import BACKEND_ERRORS, backend_sentence

EPILOG = "Exit codes: 0 all is well, 1 something needs you, 2 unknown, or the command line is not valid."
# By convention 128 and the number of the signal, SIGINT.
STOPPED = 130
# Options of the cleanup that take a whole number.
NUMBERS = {
    "retention_days": "age in days after which checkpoints are deleted; the configured value by default",
    "pending_retention_days": "retention of threads that wait for a user's answer",
    "keep_last": "minimum number of checkpoints that each namespace of a live thread keeps",
    "memory_limit_mb": "memory of Redis, in MiB, above which the shorter retention applies",
    "memory_retention_days": "the shorter retention, in days",
    "max_deletions": "maximum number of keys to delete",
}


class Command(BaseCommand):
    """The app's command line."""

    help = "Look at AI Ops and work with it. " + EPILOG
    # Without this Django would refuse an invalid setting before the doctor could report it.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the commands and their options."""
        parser.epilog = EPILOG
        commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
        common = argparse.ArgumentParser(add_help=False)
        common.add_argument("--json", action="store_true", help="print JSON")
        common.add_argument("--quiet", action="store_true", help="print no progress")
        common.add_argument("--user", help="user in the change log; by default the user of the app's schedules")

        def command(name: str, what: str, under: Any = commands) -> Any:
            return under.add_parser(name, help=what, description=what, parents=[common], epilog=EPILOG)

        command("status", "show whether all is well, and what needs you")
        _add_cleanup(command("cleanup", "delete old checkpoints"))
        check = command("check", "check MCP servers: all due servers, or the named ones")
        check.add_argument("names", nargs="*", metavar="NAME", help="name of a server")
        runs = command("runs", "list the latest runs")
        runs.add_argument("--kind", choices=MaintenanceKindChoices.values())
        runs.add_argument("--state", choices=RunStateChoices.values())
        runs.add_argument("--limit", type=int, default=20, help="maximum number of runs, up to 1000")
        runs.add_argument("--all", action="store_true", help="include supervisor runs that found no work")
        command("schedules", "list the schedules, and whether they are late")
        storage = command("storage", "show the latest sample of the checkpoint Redis")
        storage.add_argument("--sample", action="store_true", help="sample the checkpoint Redis now")
        threads = commands.add_parser("threads", help="conversations", description="conversations")
        actions = threads.add_subparsers(dest="action", required=True, metavar="ACTION")
        pin = command("pin", "keep a thread regardless of its age", actions)
        pin.add_argument("--note", default="", help="why")
        unpin = command("unpin", "unpin a thread", actions)
        explain = command("explain", "explain what the next cleanup would do with a thread, and why", actions)
        find = command("find", "find the threads whose ids match a pattern", actions)
        find.add_argument("pattern", metavar="PATTERN", help="a glob such as user-42-*")
        _add_erase(command("erase", "delete whole threads immediately, regardless of their age", actions))
        for each in (pin, unpin, explain):
            each.add_argument("thread", metavar="ID", help="ID of the thread")
        _add_notify(commands, command)
        command("doctor", "examine the set-up, and give advice")

    def handle(self, *_: Any, **options: Any) -> None:
        """Print the answer, and exit with its code."""
        try:
            answer = self._answer(options)
        except (AiOpsError, ValueError) as error:
            raise CommandError(str(error), returncode=NOT_KNOWN) from error
        except KeyboardInterrupt:
            raise CommandError(
                "Stopped: completed work stays, and the next run continues.", returncode=STOPPED
            ) from None
        except BACKEND_ERRORS as error:
            raise CommandError(backend_sentence(error), returncode=NOT_KNOWN) from error
        self._show(answer, options["json"])
        if answer.code:
            sys.exit(answer.code)

    def _answer(self, options: dict[str, Any]) -> Answer:
        name = options["command"]
        if name in LOOKS and not options.get("sample"):
            return LOOKS[name](options)
        with work.progress_on_stderr(options["quiet"]), work.changes_by(options["user"]) as user:
            return WORKS[name](options | {"as_user": user})

    def _show(self, answer: Answer, json: bool) -> None:
        if json:
            self.stdout.write(as_json(answer))
        elif not (self.stdout.isatty() and print_tables(answer, self.stdout._out)):
            self.stdout.write(as_text(answer))


def _add_cleanup(parser: CommandParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="delete nothing, and report what would be deleted")
    for name, what in NUMBERS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, metavar="N", help=what)
    parser.add_argument("--thread-pattern", metavar="GLOB", help="only threads whose ID matches, such as user-42-*")
    parser.add_argument(
        "--trim-live-threads",
        action=argparse.BooleanOptionalAction,
        help="whether to trim live threads; the configured value by default",
    )


def _add_erase(parser: CommandParser) -> None:
    parser.add_argument("threads", nargs="*", metavar="ID", help="ID of a thread")
    parser.add_argument("--pattern", metavar="GLOB", help="all threads whose ID matches, such as user-42-*")
    parser.add_argument("--reason", required=True, help="reason, kept in the record")
    parser.add_argument(
        "--store-namespace", action="append", default=[], metavar="NAME", help="namespace of RedisStore to delete too"
    )
    parser.add_argument("--include-pinned", action="store_true", help="erase pinned threads too")
    parser.add_argument("--dry-run", action="store_true", help="delete nothing, and report what would be deleted")


def _add_notify(commands: Any, command: Any) -> None:
    notify = commands.add_parser("notify", help="notifications of incidents", description="notifications of incidents")
    actions = notify.add_subparsers(dest="action", required=True, metavar="ACTION")
    command("test", "create a test incident", actions)
    add = command("add", "create a webhook for Slack, Teams, PagerDuty or a plain receiver", actions)
    add.add_argument("receiver", choices=RECEIVERS)
    add.add_argument("url", nargs="?", default="", metavar="URL", help="address of the receiver; PagerDuty needs none")
    add.add_argument("--name", help="name of the webhook")
    add.add_argument("--routing-key", default="", help="integration key of the PagerDuty service")
    add.add_argument("--nautobot-url", default="", help="public address of Nautobot, for links")
    add.add_argument("--secret", default="", help="key with which Nautobot signs the body")
    allow = command("allow", "let scheduled runs call the Job of a Job hook", actions)
    allow.add_argument("job", metavar="MODULE.CLASS", help="the Job")


def _notify(options: dict[str, Any]) -> Answer:
    if options["action"] == "test":
        return work.test_notification(options["as_user"])
    if options["action"] == "allow":
        return work.allow_hook(options["job"])
    url = options["url"] or (PAGERDUTY_URL if options["receiver"] == PAGERDUTY else "")
    names = ("name", "routing_key", "nautobot_url", "secret")
    return work.add_webhook(options["receiver"], url, {name: options[name] for name in names})


def _cleanup(options: dict[str, Any]) -> Answer:
    names = (*NUMBERS, "thread_pattern", "trim_live_threads")
    return work.cleanup({name: options[name] for name in names}, options["dry_run"])


def _threads(options: dict[str, Any]) -> Answer:
    action = options["action"]
    if action == "erase":
        return work.erase(options)
    if action == "find":
        return work.find(options["pattern"])
    if action == "pin":
        return work.pin(options["thread"], options["note"])
    return work.explain(options["thread"]) if action == "explain" else work.unpin(options["thread"])


LOOKS = {
    "status": lambda options: views.status(),
    "runs": lambda options: views.runs(options["kind"], options["state"], options["limit"], options["all"]),
    "schedules": lambda options: views.schedules(),
    "storage": lambda options: views.storage(),
    "doctor": lambda options: views.doctor(),
}
WORKS = {
    "cleanup": _cleanup,
    "check": lambda options: work.check(options["names"]),
    "storage": lambda options: work.sample(),
    "threads": _threads,
    "notify": _notify,
}
