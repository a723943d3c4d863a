"""Commands that only read: status, runs, schedules, storage, doctor."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.utils import timezone

from ai_ops.checkpoints.snapshots import latest_snapshots
from ai_ops.command_line.answers import NEEDS_YOU, NOT_KNOWN, WELL, Answer, Table
from ai_ops.doctor import Outcome, examine, exit_code
from ai_ops.logic.durations import duration
from ai_ops.logic.relative_times import age
from ai_ops.models import MaintenanceRun
from ai_ops.overview import logic
from ai_ops.overview.page import Overview, unrestricted_user
from ai_ops.runs.dead_letters import dead_letters
from ai_ops.runs.queries import get_recent_runs
from ai_ops.schedules.lateness import iso
from ai_ops.schedules.status import get_scheduler_status, statuses_of

# As on the page, the list of runs hides them by default, since there is one a minute.
QUIET_KIND = "supervisor"
SIGNS = {Outcome.WELL: "well", Outcome.PROBLEM: "PROBLEM", Outcome.UNKNOWN: "not known"}
MEBIBYTE = 2**20


def status() -> Answer:
    """Show the state as on the overview: whether all is well, and what needs the operator."""
    now = timezone.now()
    page = Overview(unrestricted_user(), now)
    headline = page.headline
    machinery = [(each, *logic.machine_state(each, now)) for each in page.machines]
    data = {
        "answer": headline.sentence,
        "level": headline.level.name.lower(),
        "needs": {need.key: need.count for need in page.needs},
        "machinery": [
            {"kind": each.kind, "state": state, "last_success": each.last_success, "next_run": each.next_run}
            for each, _, state in machinery
        ],
        "servers": page.states,
    }
    rows = tuple((need.count, need.name) for need in page.needs if need.count)
    return Answer(
        _code(headline.level),
        data,
        (f"{headline.sentence}.",),
        (
            Table(("number", "what"), rows, "Needs you"),
            Table(
                ("kind", "state", "last success", "next run"),
                tuple((each.kind, state, _age(each.last_success), _age(each.next_run)) for each, _, state in machinery),
                "Machinery",
            ),
            Table(
                ("servers", "state"), tuple((count, state) for state, count in sorted(page.states.items())), "Servers"
            ),
        ),
    )


def _code(level: logic.Level) -> int:
    return {logic.Level.SUCCESS: WELL, logic.Level.UNKNOWN: NOT_KNOWN}.get(level, NEEDS_YOU)


def runs(kind: str | None = None, state: str | None = None, limit: int = 20, quiet: bool = False) -> Answer:
    """List the latest runs. The exit code reports dead letters of any age."""
    chosen = {name: value for name, value in (("kind", kind), ("state", state)) if value}
    found = MaintenanceRun.objects.filter(**chosen)
    found = found if quiet or kind else found.exclude(kind=QUIET_KIND)
    latest = get_recent_runs(limit, found)
    waiting = dead_letters(MaintenanceRun.objects.all()).count()
    lines = (f"{waiting} dead letter{'s' * (waiting != 1)} to redrive or discard.",) if waiting else ()
    columns = ("run", "kind", "state", "trigger", "started", "took", "error")
    rows = tuple(
        (each["name"], each["kind"], each["state"], each["trigger"], each["started"], _took(each), each["error"])
        for each in latest
    )
    return Answer(
        NEEDS_YOU if waiting else WELL, latest, lines or (("No runs.",) if not rows else ()), (Table(columns, rows),)
    )


def schedules() -> Answer:
    """List the app's schedules; one that is late, paused or broken needs the operator."""
    found = statuses_of()
    beat = get_scheduler_status()
    bad = [each for each in found if each.needs_attention]
    lines = () if beat["running"] or beat["why"] is None else (beat["why"],)
    columns = ("schedule", "crontab", "state", "last run", "outcome", "next run", "why")
    rows = tuple(
        (each.name, each.crontab, "late" if each.late else each.standing, iso(each.last_run),
         each.last_outcome, iso(each.next_run), each.why)
        for each in found
    )  # fmt: skip
    data = {"scheduler": beat, "schedules": [each.as_dict() for each in found]}
    return Answer(NEEDS_YOU if bad or lines else WELL, data, lines, (Table(columns, rows),))


def storage() -> Answer:
    """Show the latest sampling of the checkpoint Redis."""
    good, failed = latest_snapshots()
    if good is None and failed is None:
        return Answer(NOT_KNOWN, None, ("The checkpoint storage has not been sampled yet: use storage --sample.",))
    lines = [f"The latest sampling failed: {failed.data['error']}"] if failed else []
    if good is None:
        return Answer(NEEDS_YOU, failed.data if failed else None, tuple(lines))
    data = good.data | {"taken": good.taken}
    lines.append(_storage_sentence(data))
    families = Table(("keys", "content"), tuple((count, name) for name, count in data["families"].items()))
    largest = Table(
        ("thread", "keys", "MiB", "last activity"),
        tuple(
            (each["thread"], each["keys"], _mebibytes(each["bytes"]), each["last_activity"])
            for each in data["largest_threads"]
        ),
        "Largest threads",
    )
    return Answer(NEEDS_YOU if failed else WELL, data, tuple(lines), (families, largest))


def _storage_sentence(data: dict[str, Any]) -> str:
    size = _mebibytes(data["checkpoint_bytes"])
    more = "" if data["complete"] else " of the keys in the sample"
    return (
        f"{data['thread_count']:,} threads in {data['checkpoint_keys']:,} keys{more}, "
        f"{f'about {size} MiB' if size is not None else 'of unknown size'}, {_age(data['taken'])}."
    )


def doctor() -> Answer:
    """Examine the set-up of the installation."""
    findings = list(examine())
    counts = {outcome: sum(finding.outcome == outcome for finding in findings) for outcome in Outcome}
    line = f"{counts[Outcome.WELL]} checks are well, {counts[Outcome.PROBLEM]} need you"
    if counts[Outcome.UNKNOWN]:
        line += f", {counts[Outcome.UNKNOWN]} unknown"
    rows = tuple((each.check, SIGNS[each.outcome], each.message, each.advice) for each in findings)
    data = {"answer": line, "checks": [asdict(finding) for finding in findings]}
    return Answer(exit_code(findings), data, (f"{line}.",), (Table(("check", "answer", "found", "what to do"), rows),))


def _age(at: Any) -> str:
    return age(at, timezone.now()) if at else "never"


def _took(run: dict[str, Any]) -> str:
    return "" if run["execution_time_ms"] is None else duration(run["execution_time_ms"] / 1000)


def _mebibytes(size: int | None) -> float | None:
    return None if size is None else round(size / MEBIBYTE, 1)
