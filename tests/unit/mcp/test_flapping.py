"""Decisions on flapping servers, and on runs with a mass failure."""

import pytest

from ai_ops.logic.limits import CHECKS_LOOKED_AT
from ai_ops.mcp.logic.flapping import change_percent, is_flapping, remembered
from ai_ops.mcp.logic.own_network import is_suspicious
from ai_ops.mcp.logic.verdicts import ASKED_TO_WAIT, Flip, Reason, Verdict, next_step_without_probe

WELL, ILL, UNKNOWN = Verdict.HEALTHY, Verdict.UNHEALTHY, Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("recent", "percent"),
    [
        ("", 0),
        ("1", 0),
        ("1" * 21, 0),
        ("10" * 10 + "1", 100),  # 20 changes of 20, whose weights are 1 on average
        ("1" * 20 + "0", 6),  # the newest alone: 1.2 of 20
        ("0" + "1" * 20, 4),  # the oldest alone: 0.8 of 20
        ("10", 6),  # what was before the first check is taken for steady
    ],
)
def test_newer_changes_weigh_up_to_half_as_much_more(recent, percent):
    assert change_percent(recent) == pytest.approx(percent)


def test_twenty_one_checks_are_remembered_and_what_could_not_be_made_is_not():
    recent = ""
    for number in range(30):
        recent = remembered(recent, "1" if number % 2 == 0 else "0")
    assert len(recent) == CHECKS_LOOKED_AT
    assert recent.endswith("10")
    assert remembered(recent, "") == recent


@pytest.mark.parametrize(
    ("percent", "was", "now"),
    [
        (19.9, False, False),
        (20, False, True),
        (5, True, True),
        (4.9, True, False),
        (10, False, False),
        (10, True, True),
    ],
)
def test_it_begins_at_the_high_threshold_and_ends_below_the_low_one(percent, was, now):
    assert is_flapping(percent, was, low=5, high=20) is now


def test_one_outage_is_not_flapping_and_alternating_is_at_the_fourth_change():
    assert not is_flapping(change_percent("1" * 10 + "0" * 3 + "1" * 8), False, 5, 20)
    recent, begun = "1" * 21, None
    for number in range(1, 8):
        recent = remembered(recent, "1" if number % 2 == 0 else "0")
        if begun is None and is_flapping(change_percent(recent), False, 5, 20):
            begun = number
    assert begun == 4  # 1.2 + 1.18 + 1.16 + 1.14 of 20 are 23 percent


@pytest.mark.parametrize(
    ("healthy", "reasons", "percent", "suspicious"),
    [
        (10, [Reason.TIMEOUT] * 5, 50, True),
        (10, [Reason.TIMEOUT] * 4, 50, False),
        (10, [Reason.TIMEOUT] * 10, 0, True),
        (10, [Reason.TIMEOUT] * 5, 0, False),
        (10, [Reason.TIMEOUT] * 6, 0, True),
        (10, [*[Reason.TIMEOUT] * 9, Reason.HTTP], 0, False),
        (3, [Reason.DNS] * 2, 0, True),
        (2, [Reason.DNS] * 2, 0, False),
        (0, [], 0, False),
        (2, [Reason.DNS] * 2, 50, False),
        (3, [Reason.DNS, Reason.CONNECT, Reason.TIMEOUT], 100, True),
        (3, [Reason.DNS, Reason.CONNECT, Reason.TLS], 50, False),
        (6, [Reason.HTTP] * 6, 50, False),
        (0, [], 50, False),
    ],
)
def test_three_servers_and_that_share_must_fail_for_reasons_of_the_network(healthy, reasons, percent, suspicious):
    assert is_suspicious(healthy, reasons, percent) is suspicious


@pytest.mark.parametrize(
    ("history", "earlier", "step"),
    [
        ([ILL], [], ASKED_TO_WAIT),
        ([ILL], [WELL, ILL], ASKED_TO_WAIT),
        ([ILL], [WELL, ILL, ILL], Flip(ILL)),
        ([ILL, ILL], [WELL, ILL], Flip(ILL)),
        ([WELL, ILL], [ILL, ILL], ASKED_TO_WAIT),
    ],
)
def test_a_server_that_asked_to_wait_flips_when_three_checks_of_any_runs_agree(history, earlier, step):
    assert next_step_without_probe(history, earlier, WELL) == step
