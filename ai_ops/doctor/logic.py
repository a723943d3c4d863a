"""Decisions of the doctor from given facts, without access to a database, Redis or workers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ai_ops.logic.durations import duration

# A nearly full Redis evicts keys or refuses writes before the next cleanup has run.
FULL_PERCENT = 90
# A run that takes longer than this share of its limit will exceed it with a little more work.
LONG_PERCENT = 80
# Keys that a scan passes per second at least: a tenth of the speed measured on one core beside its Redis.
KEYS_A_SECOND = 5_000
# Number of names that a sentence lists.
LISTED_NAMES = 5

WELL_CODE, PROBLEM_CODE, UNKNOWN_CODE = 0, 1, 2


class Outcome(StrEnum):
    """The outcome of one check; UNKNOWN if its source did not answer."""

    WELL = "well"
    PROBLEM = "problem"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """The result of one check, with advice.

    Attributes:
        outcome: The outcome of the check.
        message: The result, in a sentence.
        advice: The advice, in a sentence; empty if all is well.
        check: Name of the check, one of `ai_ops.doctor.CHECKS`.
    """

    outcome: Outcome
    message: str
    advice: str = ""
    check: str = ""


def well(message: str) -> Finding:
    """Return a finding without a problem."""
    return Finding(Outcome.WELL, message)


def problem(message: str, advice: str) -> Finding:
    """Return a finding that needs the operator."""
    return Finding(Outcome.PROBLEM, message, advice)


def unknown(message: str, advice: str) -> Finding:
    """Return a finding about something that could not be determined."""
    return Finding(Outcome.UNKNOWN, message, advice)


def exit_code(findings: Iterable[Finding]) -> int:
    """Return 0 if all is well, 1 if something needs the operator, 2 if nothing does and something is unknown."""
    outcomes = {finding.outcome for finding in findings}
    if Outcome.PROBLEM in outcomes:
        return PROBLEM_CODE
    return UNKNOWN_CODE if Outcome.UNKNOWN in outcomes else WELL_CODE


def listed(names: Collection[str]) -> str:
    """Join the first few names for a sentence, and count the others."""
    shown = sorted(names)[:LISTED_NAMES]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def judge_database(own: str, nautobot: Mapping[str, str], here: bool, elsewhere: Sequence[int]) -> Finding:
    """Judge whether the app's database is the one with the checkpoints, and holds nothing else.

    Args:
        own: Server and database of the checkpoints, such as ``redis.example.com:6379/2``.
        nautobot: Those of Nautobot, by their use, such as the cache.
        here: Whether the database has keys of a checkpoint saver.
        elsewhere: Other databases of the same server that have such keys.
    """
    shared = [what for what, address in nautobot.items() if address == own]
    if shared:
        return problem(
            f"The checkpoints share {own} with Nautobot's {' and '.join(shared)}.",
            "Name another database, or a server of their own, in LANGGRAPH_REDIS_URL or LANGGRAPH_REDIS_DB.",
        )
    if not here and elsewhere:
        others = ", ".join(str(number) for number in elsewhere)
        return problem(
            f"{own} has no checkpoints, but database {others} of the same server does.",
            "Set LANGGRAPH_REDIS_URL or LANGGRAPH_REDIS_DB to the database of the agents.",
        )
    return well(f"The checkpoints have {own} to themselves" + ("." if here else ", which has no checkpoints yet."))


def judge_memory(policy: str | None, used: int | None, limit: int | None, evicted: int | None) -> Finding:
    """Judge whether the checkpoint Redis loses or refuses checkpoints.

    Args:
        policy: Its `maxmemory_policy`; None if the user may not read it.
        used: Used memory in bytes.
        limit: Its `maxmemory` in bytes; 0 for none.
        evicted: Keys evicted since its start.
    """
    if policy is None or used is None or limit is None:
        return unknown("INFO does not report the memory limit of the checkpoint Redis.", "Grant its user +info.")
    if limit and policy.startswith("allkeys"):
        return problem(
            f"The checkpoint Redis may evict any key ({policy}), which breaks conversations.",
            "Set maxmemory-policy to noeviction, and memory_limit_mb and memory_retention_days to clean up earlier.",
        )
    if limit and used * 100 >= limit * FULL_PERCENT:
        return problem(
            f"The checkpoint Redis uses {used * 100 // limit} percent of its maxmemory.",
            "Clean up with a shorter retention, or raise maxmemory.",
        )
    gone = f"; it evicted {evicted:,} keys since it started" if evicted else ""
    return well(f"The memory policy is {policy}{gone}." if limit else "The checkpoint Redis has no memory limit.")


def judge_commands(refused: Sequence[str]) -> Finding:
    """Judge the ACL of the Redis user, by the commands that it may not call."""
    if refused:
        return problem(
            f"The Redis user may not call {listed(refused)}.",
            "Give it the permissions of the ACL line in the documentation of the installation.",
        )
    return well("The Redis user may call every command that the app needs.")


def judge_workers(queues: Mapping[str, int] | None, wanted: Collection[str]) -> Finding:
    """Judge whether workers listen to the queues of the schedules and Jobs.

    Args:
        queues: Workers by queue; None if Celery did not answer.
        wanted: The queues of the app's runs.
    """
    if queues is None:
        return unknown("Celery did not answer the question for its workers.", "Check that Celery's broker runs.")
    if not queues:
        return problem("No Celery worker answers.", "Start a worker: nautobot-server celery worker.")
    if missing := [name for name in wanted if not queues.get(name)]:
        return problem(
            f"No Celery worker listens to {listed(missing)}.",
            "Start a worker with --queues, or give the runs another queue.",
        )
    return well(f"Celery workers listen to {listed(wanted)}.")


def judge_limit(kind: str, limit: float, longest: float | None, needed: float) -> str | None:
    """Return the reason why a time limit is too short, as a clause; None if it is long enough.

    Args:
        kind: The kind of run.
        limit: Seconds after which a run is stopped; 0 for never.
        longest: Duration in seconds of the longest of its latest runs.
        needed: Seconds that a run may take at worst with the present data.
    """
    if not limit:
        return None
    if longest is not None and longest * 100 >= limit * LONG_PERCENT:
        return f"{kind} took {duration(longest)} of {duration(limit)}"
    if needed > limit:
        return f"{kind} may take {duration(needed)} and has {duration(limit)}"
    return None


def cleanup_seconds(keys: int | None) -> float:
    """Return the seconds that a scan of `keys` keys takes on a slow machine."""
    return (keys or 0) / KEYS_A_SECOND


def health_seconds(servers: int, at_once: int, timeout: float, rounds: int, pause: float) -> float:
    """Return the longest duration of a health check in seconds: every server silent in every round.

    Args:
        servers: Number of servers to check.
        at_once: Number of servers that are probed at the same time.
        timeout: Seconds until a probe gives up.
        rounds: Number of probes of each server.
        pause: Seconds between two rounds.
    """
    return rounds * timeout * -(-servers // max(1, at_once)) + (rounds - 1) * pause
