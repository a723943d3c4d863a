"""The result of a run in sentences, from the counters in its record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.template.defaultfilters import filesizeformat

from ai_ops.choices import MaintenanceKindChoices, RunStateChoices
from ai_ops.logic.durations import duration
from ai_ops.models import MaintenanceRun

Counters = Mapping[str, Any]


def summary(run: MaintenanceRun) -> list[str]:
    """Return the work of `run` in sentences; empty without counters."""
    in_words = _IN_WORDS.get(run.kind)
    if in_words is None or not run.counters or run.state == RunStateChoices.SKIPPED:
        return []
    try:
        return in_words(run.counters)
    except (KeyError, TypeError, ValueError):
        # The counters may be incomplete, or those of another version of this app.
        return []


def _cleanup(counters: Counters) -> list[str]:
    dry = counters["dryrun"]
    keys, threads = _count(counters["deleted_count"], "key"), _count(counters["threads_deleted"], "thread")
    verb = "A real run would delete" if dry else "It deleted"
    trimmed, orphans = counters["checkpoints_trimmed"], counters["orphan_count"]
    sentences = [
        f"{verb} {keys} of {_count(counters['processed_count'], 'scanned key')}: {threads} whole, "
        f"{_count(trimmed, 'old checkpoint')} of live threads, {_count(orphans, 'key')} without a checkpoint.",
        f"{_count(counters['threads_kept'], 'thread')} stayed.",
    ]
    if dry:
        sentences[0] = f"A dry run: nothing was deleted. {sentences[0]}"
    if counters["unfixable_count"]:
        sentences.append(f"{_count(counters['unfixable_count'], 'key')} stayed, because their age is unknown.")
    if counters["changed_count"]:
        sentences.append(
            f"{_count(counters['changed_count'], 'deletion')} cancelled, because the conversation continued during the "
            "run."
        )
    if counters["limit_reached"]:
        sentences.append("It stopped at its limit of deletions. The next run continues.")
    if counters.get("policy"):
        sentences.append(f"Retention: {counters['policy']}")
    before, after = counters.get("memory_before_bytes"), counters.get("memory_after_bytes")
    if not dry and before and after:
        sentences.append(f"Redis used {filesizeformat(before)} before and {filesizeformat(after)} after.")
    sentences.append(f"It took {duration(counters['seconds'])}.")
    return sentences


def _health(counters: Counters) -> list[str]:
    changed, failed = counters["changed_count"], counters["failed_count"]
    checked = counters["checked_count"]
    sentences = [
        f"{_count(checked, 'server')} checked: {failed:,} failed, {changed:,} changed {_its(changed)} status.",
    ]
    if changed:
        result = "were notified" if counters["cache_cleared"] else "could not be notified"
        sentences.append(f"Agents {result} to drop their cached MCP clients.")
    return sentences


def _incidents(counters: Counters) -> list[str]:
    return [
        f"{_count(counters['opened'], 'incident')} opened, {counters['auto_closed']:,} closed, "
        f"{counters['escalated']:,} escalated."
    ]


def _its(count: int) -> str:
    return "its" if count == 1 else "their"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


_IN_WORDS: dict[str, Callable[[Counters], list[str]]] = {
    MaintenanceKindChoices.CLEANUP: _cleanup,
    MaintenanceKindChoices.HEALTH: _health,
    MaintenanceKindChoices.INCIDENTS: _incidents,
}
