"""Decisions to flip a status, without a network, a database or a clock."""

from itertools import product

import pytest

from ai_ops.mcp.logic.reports import HealthReport, ServerReport
from ai_ops.mcp.logic.verdicts import (
    AS_BEFORE,
    CHECKS_TO_FLIP,
    INCONCLUSIVE,
    LEFT_ALONE,
    NOT_CONFIRMED,
    Flip,
    Keep,
    Probe,
    ProbeAgain,
    Reason,
    Verdict,
    next_step,
)

H, U, X = Verdict.HEALTHY, Verdict.UNHEALTHY, Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("current", "history", "step"),
    [
        (H, [], ProbeAgain()),
        (H, [H], AS_BEFORE),
        (U, [U], AS_BEFORE),
        (H, [U], ProbeAgain()),
        (H, [U, U], ProbeAgain()),
        (H, [U, U, U], Flip(U)),
        (U, [H, H, H], Flip(H)),
        # two of three are a majority, and not enough
        (H, [U, U, H], NOT_CONFIRMED),
        (H, [U, H], NOT_CONFIRMED),
        (U, [H, H, U], NOT_CONFIRMED),
        # trouble of our own says nothing about the server, not even next to two clear answers
        (H, [X], INCONCLUSIVE),
        (H, [U, U, X], INCONCLUSIVE),
        (U, [H, X], INCONCLUSIVE),
        # Maintenance and statuses of the operator's own
        (None, [], ProbeAgain()),
        (None, [H], LEFT_ALONE),
        (None, [U], LEFT_ALONE),
        (None, [X], LEFT_ALONE),
    ],
)
def test_what_follows_from_the_checks_so_far(current, history, step):
    assert next_step(history, current) == step


@pytest.mark.parametrize("current", [H, U, None])
def test_no_run_takes_more_than_three_checks_and_only_three_of_one_mind_flip(current):
    for history in product([H, U, X], repeat=CHECKS_TO_FLIP):
        step = next_step(history, current)
        agreed = len(set(history)) == 1 and history[0] is not X and current is not None and history[0] is not current
        assert (step == Flip(history[0])) if agreed else isinstance(step, Keep)


@pytest.mark.parametrize(
    ("ok", "reason", "verdict"),
    [(True, None, H), (False, Reason.HTTP, U), (False, Reason.DNS, U), (False, Reason.CHECKER, X)],
)
def test_a_probe_says_nothing_about_the_server_when_the_checker_is_at_fault(ok, reason, verdict):
    assert Probe(ok, reason, "", 1.0).verdict is verdict


def test_the_result_of_a_run_has_the_keys_that_users_rely_on():
    servers = (
        ServerReport("well", ok=True),
        ServerReport("flipped", ok=False, changed=True),
        ServerReport("still down", ok=False),
        ServerReport("not saved", ok=True, error="The status could not be saved."),
    )
    assert HealthReport(servers, worker_count=4, cache_cleared=True).as_dict() == {
        "success": True,
        "checked_count": 4,
        "changed_count": 1,
        "failed_count": 3,
        "worker_count": 4,
        "cache_cleared": True,
        "error": None,
        "errors": [],
    }
    failed = HealthReport(error="The database failed.").as_dict()
    assert (failed["success"], failed["errors"]) == (False, ["The database failed."])
